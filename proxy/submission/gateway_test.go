// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

var zapNop = zap.NewNop()

func TestSubmitsAMessage(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	c.talk(`C: MAIL FROM:<Alice@OWN.example> SIZE=200 BODY=8BITMIME RET=HDRS ENVID=abc
		S*250
		C: RCPT TO:<bob@client.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob@client.example
		S*250
		C: RCPT TO:<"carol \"x\""@client.example>
		S*250
		C: DATA
		S*354`)
	m := message1("one\r\n.dot\r\n..two dots\r\n.\r\nend\r\n")
	c.raw(stuffed(m))
	c.expect("250 2.0.0 ")
	c.quit()

	got := k.only(t)
	if string(got.body) != m {
		t.Errorf("the message changed: %q", got.body)
	}
	if got.from != "Alice@OWN.example" || string(got.opts.Body) != "8BITMIME" || got.opts.Size != 200 || string(got.opts.Return) != "HDRS" || got.opts.EnvelopeID != "abc" {
		t.Errorf("MAIL changed: %q %+v", got.from, got.opts)
	}
	wantList(t, "recipients", got.to, []string{"bob@client.example", `carol "x"@client.example`})
	if len(got.rcpt[0].Notify) != 2 || got.rcpt[0].OriginalRecipient != "bob@client.example" {
		t.Errorf("RCPT changed: %+v", got.rcpt[0])
	}
	if e := s.gate.waitEnd(t); e.Reason != broker.EndLogout {
		t.Errorf("the session ended by %q", e.Reason)
	}
	intents := eventsOf[broker.SendIntent](s.gate, broker.EventSendIntent)
	if len(intents) != 1 {
		t.Fatalf("%d intents", len(intents))
	}
	sum := sha256.Sum256([]byte(m))
	i := intents[0]
	if i.SHA256 != hex.EncodeToString(sum[:]) || i.Octets != int64(len(m)) || i.MessageID != messageID || i.HeaderFrom != ownAddress {
		t.Errorf("the intent is wrong: %+v", i)
	}
	wantList(t, "recorded recipients", i.Recipients, []string{"bob@client.example", `"carol \"x\""@client.example`})
	results := eventsOf[broker.SendResult](s.gate, broker.EventSendResult)
	if len(results) != 1 || results[0].Intent != i.Intent || results[0].Outcome != "accepted" || !strings.HasPrefix(results[0].Answer, "250 2.0.0 ") {
		t.Errorf("the result is wrong: %+v", results)
	}
}

func TestSeveralMessagesOnOneConnection(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	for range 3 {
		c.data()
		c.raw(stuffed(message1("hello\r\n")))
		c.expect("250 ")
	}
	c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RSET\nS*250")
	c.data()
	c.raw(stuffed(message1("after RSET\r\n")))
	c.expect("250 ")
	c.quit()
	if k.count() != 4 {
		t.Errorf("the sink has %d messages, want 4", k.count())
	}
}

func TestPipelinedCommands(t *testing.T) {
	s, k := start(t)
	c := s.login(t)
	c.raw("MAIL FROM:<alice@own.example>\r\nRCPT TO:<bob@client.example>\r\nRCPT TO:<x@>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "501 5.1.3", "354"} {
		c.expect(want)
	}
	c.raw(stuffed(message1("x\r\n")) + "NOOP\r\nQUIT\r\n")
	for _, want := range []string{"250", "250", "221"} {
		c.expect(want)
	}
	c.expectEOF()
	k.only(t)
}

func TestConfigIsChecked(t *testing.T) {
	for field, config := range map[string]Config{
		"gate":               {Hostname: "x.example"},
		"counts":             {Gate: newGate(), Hostname: "x.example"},
		"hostname":           {Gate: newGate(), Counts: uncounted{}, Hostname: "a b"},
		"offer_before_login": {Gate: newGate(), Counts: uncounted{}, Hostname: "x.example", OfferBeforeLogin: []string{"CHUNKING"}},
	} {
		_, err := New(config)
		var e *broker.Error
		if !asError(err, &e) || e.Code != broker.Invalid || e.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}
