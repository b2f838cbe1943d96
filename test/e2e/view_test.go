// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/servers"
)

// TestClientsWithAView: mbsync and neomutt, shown one folder and the last thirty
// days of it, work without an error and hold exactly the visible messages.
func TestClientsWithAView(t *testing.T) {
	servers.NeedPrograms(t, map[string]string{"mbsync": "isync", "neomutt": "neomutt", "tmux": "tmux"})
	const mailbox = "view@client.example"
	w := NewWorld(t, WorldOptions{Mailboxes: []string{mailbox, buyer}})
	s := w.Seat(mailbox)
	fillView(t, s)
	w.Postern.CLI("delegation", "update", string(s.Delegation), "--folder", "INBOX", "--slice", "SINCE @-30d")

	t.Run("mbsync", func(t *testing.T) {
		m := newMaildir(t, w.For(t), s)
		m.h.t = t
		for range 2 { // the second finds nothing to do
			m.sync()
			var got []string
			for _, file := range m.files("INBOX") {
				_, after, _ := bytes.Cut(readFile(t, file), []byte("Subject: "))
				subject, _, _ := strings.Cut(string(after), "\n")
				got = append(got, strings.TrimSpace(subject))
			}
			slices.Sort(got)
			var want []string
			for i := range viewMessages {
				if i%2 == 0 {
					want = append(want, fmt.Sprintf("visible-%03d", i))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("mbsync holds %q", got)
			}
		}
		folders, err := os.ReadDir(m.root)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range folders {
			if f.IsDir() && f.Name() != "INBOX" {
				t.Errorf("mbsync has made %s", f.Name())
			}
		}
		if n := len(w.Dovecot.Messages(mailbox, "INBOX", "ALL")); n != viewMessages {
			t.Errorf("INBOX holds %d messages", n)
		}
	})
	t.Run("neomutt", func(t *testing.T) {
		h := newHome(t)
		term := startNeomutt(t, s, h, straightWay(w.For(t), s, h))
		term.await("visible-000")
		term.await("visible-038")
		if screen := term.screen(); strings.Contains(screen, "hidden") || strings.Count(screen, "visible-") != viewMessages/2 {
			t.Errorf("neomutt shows:\n%s", screen)
		}
		term.keys("2", "Enter", "F", "3", "Enter", "d", "$")
		servers.WaitFor(t, screenTimeout, func() bool {
			return len(w.Dovecot.Messages(mailbox, "INBOX", "SUBJECT visible-004")) == 0
		}, "the third message to be deleted")
		if got := w.Dovecot.Messages(mailbox, "INBOX", "FLAGGED"); !slices.Equal(got, w.Dovecot.Messages(mailbox, "INBOX", "SUBJECT visible-002")) {
			t.Errorf("flagged: %q", got)
		}
		if n := len(w.Dovecot.Messages(mailbox, "INBOX", "SUBJECT hidden")); n != viewMessages/2 {
			t.Errorf("%d hidden messages are left", n)
		}
		term.keys("q")
		term.awaitEnd()
	})
}

// TestRecoveryMailIsHiddenFromAgents: what a firm names as the senders of its
// provider's recovery mail is hidden without a word in the terms, from a session
// that runs too, and 'delegation create' says so.
func TestRecoveryMailIsHiddenFromAgents(t *testing.T) {
	const mailbox = "recovery@client.example"
	w := NewWorld(t, WorldOptions{Mailboxes: []string{mailbox}, Sealed: true})
	s := w.Seat(mailbox)
	deliver := func(from string) {
		w.Dovecot.Deliver(mailbox, "", []byte(message(from, mailbox, "Hello", "493817")))
	}
	deliver("no-reply@accounts.provider.example")
	deliver("anna@customer.example")
	before := s.IMAP(t)
	before.OK("SELECT INBOX")
	if untagged := before.OK("UID SEARCH ALL"); !slices.Contains(untagged, "* SEARCH 1 2") {
		t.Errorf("%q", untagged)
	}
	before.Send("i IDLE\r\n")
	before.Expect(`\+ .*`)
	ended := before.UntilClosed(30 * time.Second)
	w.Postern.CLI("mailbox", "update", mailbox, "--recovery-sender", "accounts.provider.example")
	if end := <-ended; end.Err != nil {
		t.Errorf("the session that was shown it: %v", end.Err)
	}
	shown := w.Postern.CLI("delegation", "show", string(s.Delegation))
	if want := "all folders; all messages; no mail for account recovery and one-time codes: none from accounts.provider.example"; !strings.Contains(shown, want) {
		t.Errorf("delegation show:\n%s", shown)
	}
	after := s.IMAP(t)
	after.OK("SELECT INBOX")
	deliver("security@accounts.provider.example")
	deliver("ravi@customer.example")
	after.OK("NOOP")
	if untagged := after.OK("UID SEARCH ALL"); !slices.Contains(untagged, "* SEARCH 2 4") {
		t.Errorf("%q", untagged)
	}
	// Only a firm that says so has it shown: an assignment alone cannot.
	_, said, code := w.Postern.TryCLI("", "assignment", "update", string(s.Assignment), "--recovery-mail", "shown")
	if code == 0 || !strings.Contains(said, "recovery_mail") {
		t.Errorf("exit %d: %s", code, said)
	}
	w.Postern.CLI("delegation", "update", string(s.Delegation), "--recovery-mail", "shown")
	w.Postern.CLI("assignment", "update", string(s.Assignment), "--recovery-mail", "shown")
	again := s.IMAP(t)
	again.OK("SELECT INBOX")
	if untagged := again.OK("UID SEARCH ALL"); !slices.Contains(untagged, "* SEARCH 1 2 3 4") {
		t.Errorf("%q", untagged)
	}
}

const viewMessages = 40

// fillView puts messages of today and of sixty days ago into INBOX, in turns, and
// others into Archive.
func fillView(t *testing.T, s *Seat) {
	t.Helper()
	c := s.IMAP(t)
	defer c.Close()
	for i := range viewMessages {
		subject, at := fmt.Sprintf("visible-%03d", i), time.Now().Add(-48*time.Hour)
		if i%2 == 1 {
			subject, at = fmt.Sprintf("hidden-%03d", i), time.Now().Add(-60*24*time.Hour)
		}
		text := message(buyer, s.Mailbox, subject, "We need pumps.")
		c.OK("APPEND INBOX \"%s\" {%d+}\r\n%s", at.UTC().Format("02-Jan-2006 15:04:05 -0700"), len(text), text)
	}
	text := message(buyer, s.Mailbox, "hidden-archive", "Nothing.")
	c.OK("APPEND Archive {%d+}\r\n%s", len(text), text)
}
