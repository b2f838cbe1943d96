// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// submitRaw sends a message as it is, and returns the answer.
func (c *client) submitRaw(message string) string {
	c.t.Helper()
	c.data()
	c.raw(stuffed(message))
	return c.expect("")
}

// TestNever8WhatAContentRuleBlocks is accepted by no upstream, whether it went
// there in part or not; the agent is told the rule, the record has it, and the
// session goes on.
func TestNever8WhatAContentRuleBlocks(t *testing.T) {
	filler := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 4000) // more than any buffer
	for name, test := range map[string]struct {
		terms   policy.Sending
		message string
		rule    string
		answer  string
	}{
		"content":         {policy.Sending{Content: secretRule}, message1("the confidential plan\r\n"), ruleTermsContent, `550 5.7.1 the terms of this mailbox block this message: the text matches "secret" (rule terms-content)`},
		"content, large":  {policy.Sending{Content: secretRule}, message1(filler + "confidential plan\r\n" + filler), ruleTermsContent, "550 5.7.1 "},
		"at the very end": {policy.Sending{Content: secretRule}, message1(filler + "confidential plan\r\n"), ruleTermsContent, "550 5.7.1 "},
		"attachment":      {policy.Sending{NoAttachments: true}, strings.Replace(message1("x\r\n"), "Subject: x", "Content-Type: image/png", 1), ruleTermsAttachments, "550 5.7.1 "},
		"unreadable":      {policy.Sending{NoAttachments: true}, strings.Replace(message1("x\r\n"), "Subject: x", "Content-Type: text", 1), ruleTermsAttachments, "554 5.6.0 "},
		"unreadable text": {policy.Sending{NoAttachments: true, Content: secretRule}, strings.Replace(message1(filler), "Subject: x", "Content-Transfer-Encoding: base64", 1) + "!\r\n", ruleTermsContent, "554 5.6.0 "},
	} {
		t.Run(name, func(t *testing.T) {
			s, k := start(t)
			s.gate.terms.Sending = test.terms
			c := s.login(t)
			answer := c.submitRaw(test.message)
			if !strings.HasPrefix(answer, test.answer) || !strings.Contains(answer, "rule "+test.rule) {
				t.Errorf("answer %q", answer)
			}
			if k.count() != 0 || s.gate.intents() != 0 {
				t.Errorf("%d arrived, %d intents", k.count(), s.gate.intents())
			}
			wantList(t, "rules", s.gate.rules(), []string{test.rule})
			if answer := c.submitRaw(message1("hello\r\n")); !strings.HasPrefix(answer, "250 ") {
				t.Errorf("the next message: %q", answer)
			}
			if got := k.only(t); string(got.body) != message1("hello\r\n") {
				t.Errorf("got %q", got.body)
			}
			c.quit()
		})
	}
}

// TestNever8InspectionAltersNothing: what is inspected and passes arrives octet
// by octet, and a rule that flags is in the record before the intent.
func TestNever8InspectionAltersNothing(t *testing.T) {
	s, k := start(t)
	s.gate.terms.Sending = policy.Sending{Content: []policy.ContentRule{{Name: "greeting", Pattern: "hello"}, {Name: "other", Pattern: "absent"}}}
	message := message1(strings.Repeat(".\r\n..hello \t \r\n"+strings.Repeat("y", 900)+"\r\n", 200))
	c := s.login(t)
	if answer := c.submitRaw(message); !strings.HasPrefix(answer, "250 ") {
		t.Fatalf("answer %q", answer)
	}
	c.quit()
	if got := string(k.only(t).body); got != message {
		t.Error("the message was altered")
	}
	flagged, intents := eventsOf[broker.SendFlagged](s.gate, broker.EventSendFlagged), eventsOf[broker.SendIntent](s.gate, broker.EventSendIntent)
	if len(flagged) != 1 || len(intents) != 1 || flagged[0] != (broker.SendFlagged{Intent: intents[0].Intent, MessageID: messageID, Rule: "greeting", Where: "the text"}) {
		t.Fatalf("flagged %+v", flagged)
	}
	at := func(kind broker.EventType) int {
		return slices.IndexFunc(s.gate.events, func(e event) bool { return e.kind == kind })
	}
	if at(broker.EventSendFlagged) > at(broker.EventSendIntent) {
		t.Error("it was flagged after the intent")
	}
}

// TestNever8AFlagThatIsNotRecorded holds the message back.
func TestNever8AFlagThatIsNotRecorded(t *testing.T) {
	s, k := start(t)
	s.gate.terms.Sending = policy.Sending{Content: []policy.ContentRule{{Name: "greeting", Pattern: "hello"}}}
	s.gate.appendErr = map[broker.EventType]error{broker.EventSendFlagged: broker.Errorf(broker.Unavailable, "full")}
	if answer := s.login(t).submitRaw(message1("hello\r\n")); !strings.HasPrefix(answer, "451 4.3.0") || k.count() != 0 {
		t.Errorf("%q, %d arrived", answer, k.count())
	}
	wantList(t, "outcomes", s.gate.outcomes(), []string{"not-sent"})
}

// TestInspectionEndsWithTheConnection: a client that breaks off in the middle
// of HTML leaves nothing behind; goleak looks for it.
func TestInspectionEndsWithTheConnection(t *testing.T) {
	s, _ := start(t)
	s.gate.terms.Sending = policy.Sending{Content: secretRule}
	c := s.login(t)
	c.data()
	c.raw(strings.Replace(message1("<p>hello\r\n"), "Subject: x", "Content-Type: text/html", 1))
	_ = c.Close()
	s.gate.waitEnd(t)
}
