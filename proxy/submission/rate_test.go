// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/policy"
)

// openCounts opens the real store.
func openCounts(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: path, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

// startCounted is start with terms and a store.
func startCounted(t *testing.T, gate *fakeGate, counts broker.SendingCounts, terms policy.Sending) *setup {
	t.Helper()
	gate.terms.Sending = terms
	return newSetup(t, gate, func(c *Config) { c.Counts = counts })
}

// submitTo sends one message, and returns the answer to it.
func (c *client) submitTo(id string, recipients ...string) string {
	c.t.Helper()
	c.talk("C: MAIL FROM:<alice@own.example>\nS*250")
	for _, to := range recipients {
		c.talk("C: RCPT TO:<" + to + ">\nS*250")
	}
	c.talk("C: DATA\nS*354")
	c.raw(stuffed(strings.Replace(message1("x\r\n"), messageID, "<"+id+"@own.example>", 1)))
	return c.expect("")
}

// TestNever8MoreThanAnHourAllows: sessions of one assignment that send at the
// same time get through what the hour allows and no more, and after a restart
// it is no more either.
func TestNever8MoreThanAnHourAllows(t *testing.T) {
	const limit, sessions, each = 4, 4, 3
	gate, k, path := newGate(), newSink(t, nil), filepath.Join(t.TempDir(), "postern.db")
	gate.dial = dialTo(k.addr)
	counts := openCounts(t, path)
	s := startCounted(t, gate, counts, policy.Sending{MessagesPerHour: limit})
	var all sync.WaitGroup
	var sent, refused atomic.Int64
	for i := range sessions {
		c := s.login(t)
		all.Go(func() {
			for j := range each {
				switch answer := c.submitTo(fmt.Sprintf("%d.%d", i, j), "bob@client.example"); {
				case strings.HasPrefix(answer, "250 "):
					sent.Add(1)
				case strings.HasPrefix(answer, "451 4.7.1 ") && strings.Contains(answer, "rule terms-messages-per-hour"):
					refused.Add(1)
				default:
					t.Errorf("answer %q", answer)
				}
			}
		})
	}
	all.Wait()
	if sent.Load() != limit || refused.Load() != sessions*each-limit || k.count() != limit || gate.intents() != limit {
		t.Errorf("%d sent, %d refused, %d arrived, %d intents", sent.Load(), refused.Load(), k.count(), gate.intents())
	}
	for _, rule := range gate.rules() {
		if rule != ruleTermsMessagesHour {
			t.Errorf("rule %s", rule)
		}
	}
	if err := counts.Close(); err != nil {
		t.Fatal(err)
	}
	again := startCounted(t, gate, openCounts(t, path), policy.Sending{MessagesPerHour: limit})
	if answer := again.login(t).submitTo("later", "bob@client.example"); !strings.HasPrefix(answer, "451 4.7.1 ") || k.count() != limit {
		t.Errorf("after a restart: %q, %d arrived", answer, k.count())
	}
}

// TestNever8RecipientsOfAnHour: the recipients of all messages are counted, and
// a message that no hour can hold is refused at its recipient.
func TestNever8RecipientsOfAnHour(t *testing.T) {
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	s := startCounted(t, gate, openCounts(t, filepath.Join(t.TempDir(), "postern.db")), policy.Sending{RecipientsPerHour: 3})
	c := s.login(t)
	c.talk(`C: MAIL FROM:<alice@own.example>
S*250
C: RCPT TO:<a@x.example>
S*250
C: RCPT TO:<b@x.example>
S*250
C: RCPT TO:<c@x.example>
S*250
C: RCPT TO:<d@x.example>
S: 550 5.5.3
C: RSET
S*250`)
	for i, test := range []struct {
		recipients []string
		want       string
	}{
		{[]string{"a@x.example", "b@x.example"}, "250 "},
		{[]string{"a@x.example", "b@x.example"}, "451 4.7.1 "},
		{[]string{"a@x.example"}, "250 "},
		{[]string{"a@x.example"}, "451 4.7.1 "},
	} {
		if answer := c.submitTo(fmt.Sprint(i), test.recipients...); !strings.HasPrefix(answer, test.want) {
			t.Errorf("message %d: %q, want %q", i, answer, test.want)
		}
	}
	if k.count() != 2 {
		t.Errorf("%d arrived", k.count())
	}
	wantList(t, "rules", gate.rules(), []string{ruleTermsRecipients, ruleTermsRecipientsHour, ruleTermsRecipientsHour})
}

// serve answers messages as finals say; "" closes in place of an answer.
func (u *scripted) serve(finals <-chan string) {
	for {
		line, err := u.r.ReadString('\n')
		if err != nil {
			return
		}
		if !strings.HasPrefix(line, "DATA") {
			u.write("250 ok\r\n")
			continue
		}
		u.write("354 go\r\n")
		for line != ".\r\n" {
			if line, err = u.r.ReadString('\n'); err != nil {
				return
			}
		}
		final := <-finals
		if final == "" {
			_ = u.conn.Close()
			return
		}
		u.write(final)
	}
}

// TestWhatWasNotSentIsNotCounted, but what may have been is.
func TestWhatWasNotSentIsNotCounted(t *testing.T) {
	gate := newGate()
	upstreams := scriptedUpstream(t, gate)
	s := startCounted(t, gate, openCounts(t, filepath.Join(t.TempDir(), "postern.db")), policy.Sending{MessagesPerHour: 1})
	finals := make(chan string, 1)
	var serving sync.WaitGroup
	defer serving.Wait()
	over := make(chan struct{})
	defer close(over)
	serving.Go(func() {
		for {
			select {
			case u := <-upstreams:
				serving.Go(func() { u.serve(finals) })
			case <-over:
				return
			}
		}
	})
	c := s.login(t)
	send := func(id, final, want string) {
		t.Helper()
		finals <- final
		if answer := c.submitTo(id, "bob@client.example"); !strings.HasPrefix(answer, want) {
			t.Errorf("%s: %q, want %q", id, answer, want)
		}
	}
	send("refused", "554 5.7.1 no\r\n", "554 ")
	gate.set(func() {
		gate.appendErr = map[broker.EventType]error{broker.EventSendIntent: broker.Errorf(broker.Unavailable, "full")}
	})
	if answer := c.submitTo("unrecorded", "bob@client.example"); !strings.HasPrefix(answer, "451 4.3.0") {
		t.Errorf("unrecorded: %q", answer)
	}
	gate.set(func() { gate.appendErr = nil })
	send("unknown", "", "451 4.4.2")
	if answer := c.submitTo("one more", "bob@client.example"); !strings.HasPrefix(answer, "451 4.7.1") {
		t.Errorf("one more: %q", answer)
	}
	c.quit()
	wantList(t, "outcomes", gate.outcomes(), []string{"refused", "unknown"})
}

// TestNever8WhatCannotBeCountedIsNotSent: the store is out of reach.
func TestNever8WhatCannotBeCountedIsNotSent(t *testing.T) {
	gate := newGate()
	var seen bytes.Buffer
	k := newSink(t, func(s *smtp.Server) { s.Debug = &seen })
	gate.dial = dialTo(k.addr)
	counts := openCounts(t, filepath.Join(t.TempDir(), "postern.db"))
	s := startCounted(t, gate, counts, policy.Sending{RecipientsPerHour: 100})
	c := s.login(t)
	if err := counts.Close(); err != nil {
		t.Fatal(err)
	}
	if answer := c.submitTo("x", "bob@client.example"); !strings.HasPrefix(answer, "451 4.3.0 ") || k.count() != 0 || gate.intents() != 0 {
		t.Errorf("%q, %d arrived, %d intents", answer, k.count(), gate.intents())
	}
	gate.set(func() { gate.terms.Sending = policy.Sending{} })
	if answer := c.submitTo("y", "bob@client.example"); !strings.HasPrefix(answer, "250 ") {
		t.Errorf("without a limit: %q", answer)
	}
}
