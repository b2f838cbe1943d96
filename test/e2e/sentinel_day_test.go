// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// dayScript are rules that a provider runs at delivery.
const dayScript = `require ["fileinto", "imap4flags", "copy"];
if header :contains "Subject" "newsletter" { addflag "\\Seen"; fileinto "Archive"; stop; }
if header :contains "Subject" "spam" { fileinto "Junk"; stop; }
if header :contains "Subject" "urgent" { addflag ["\\Flagged", "$Label1"]; }
`

// deliver hands a message over as a provider's own delivery does.
func (w *World) deliver(t *testing.T, address, id, subject string) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.Dovecot.LMTPPort))
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Hello("provider.example"))
	must(c.Mail("someone@outside.example", nil))
	must(c.Rcpt(address, nil))
	data, err := c.Data()
	must(err)
	_, err = data.Write(letter(id, subject))
	must(err)
	must(data.Close())
	must(c.Quit())
}

// TestOrdinaryDayRaisesNoAlarm: agents read, answer, file and delete in many
// ways, by UIDs and by sequence numbers, are cut off in the middle, and the
// server is killed; mail is delivered, and the provider's rules file and flag
// it. The sentinel looks again and again, and finds nobody else's work.
func TestOrdinaryDayRaisesNoAlarm(t *testing.T) {
	const address = "sales@acme.example"
	servers.NeedPrograms(t, map[string]string{"sievec": "dovecot-sieve"})
	rules, err := os.MkdirTemp("", "rules")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(rules) })
	if err := os.Chmod(rules, 0o755); err != nil { // Dovecot's user reads it
		t.Fatal(err)
	}
	script := filepath.Join(rules, "rules.sieve")
	if err := os.WriteFile(script, []byte(dayScript), 0o644); err != nil {
		t.Fatal(err)
	}
	w := NewWorld(t, WorldOptions{
		Sealed: true, Mailboxes: []string{address},
		Dovecot: []servers.DovecotOption{servers.WithDovecotConfig(
			"protocol lmtp {\n  mail_plugins = quota sieve\n}\nplugin {\n  sieve_before = " + script + "\n}")},
		Postern: Options{Config: "sentinel:\n  interval: 24h\n"}, // it looks when it is asked
	})
	w.Dovecot.Fill(address, "", 30, func(i int) []byte { return letter(fmt.Sprintf("before%d@outside.example", i), "m") })
	seat, other := w.Seat(address), w.Seat(address)
	w.look(t, address)
	const rounds = 4
	for i := range rounds {
		for _, subject := range []string{"hello", "newsletter", "spam", "urgent"} {
			w.deliver(t, address, fmt.Sprintf("%s%d@outside.example", subject, i), subject)
		}
		ordinaryWork(t, w, seat, address, i)
		w.look(t, address)
		byNumbers(t, other, i)
		cutOff(t, other)
		if i == rounds/2 {
			// In the middle of a command, whose record nobody writes any more.
			c := seat.IMAP(t)
			c.OK("SELECT INBOX")
			c.OK("NOOP")
			c.Send("x UID STORE 1:* +FLAGS.SILENT ($Crash)\r\n")
			w.Postern.Kill()
			w.Postern.Restart()
		}
		w.look(t, address)
	}
	w.settled(t, address)
	if found := w.bypasses(t); len(found) > 0 {
		t.Errorf("false alarms:\n%s", strings.Join(found, "\n"))
	}
	// The rules were run, and what they did was there to be seen.
	for folder, subject := range map[string]string{"Archive": "newsletter", "Junk": "spam", "INBOX": "urgent"} {
		if n := len(w.Dovecot.Messages(address, folder, "SUBJECT "+subject)); n != rounds {
			t.Errorf("%d messages about %s in %s", n, subject, folder)
		}
	}
	if n := len(seat.Events(broker.EventMessageMove)); n != rounds {
		t.Errorf("%d moves in the record", n)
	}
}

// ordinaryWork is an agent's with a client that uses UIDs.
func ordinaryWork(t *testing.T, w *World, s *Seat, address string, i int) {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	base := 3*i + 1
	c.OK("UID FETCH %d (FLAGS BODY[])", base)
	c.OK("UID FETCH 1:* (FLAGS BODY.PEEK[HEADER])")
	c.OK(`UID STORE %d +FLAGS (\Answered $Done)`, base)
	c.OK("UID MOVE %d Archive", base+1)
	c.OK("UID COPY %d Archive", base)
	c.OK(`UID STORE %d +FLAGS.SILENT (\Deleted)`, base+2)
	c.OK("UID EXPUNGE %d", base+2)
	draft := letter(fmt.Sprintf("draft%d@acme.example", i), "draft")
	c.OK("APPEND Drafts (\\Draft) {%d+}\r\n%s", len(draft), draft)
	c.OK("SELECT Drafts")
	c.OK(`STORE 1:* +FLAGS (\Deleted)`)
	c.OK("CLOSE")

	id := fmt.Sprintf("answer%d@acme.example", i)
	sent := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: an answer\r\nMessage-ID: <%s>\r\n\r\nYes.\r\n", address, address, id)
	smtp := s.Submission(t)
	smtp.Ask(250, "MAIL FROM:<%s>", address)
	smtp.Ask(250, "RCPT TO:<%s>", address)
	smtp.Ask(354, "DATA")
	smtp.Send("%s.\r\n", sent)
	smtp.Want(250)
	smtp.Ask(221, "QUIT")
	if i%2 == 0 { // the provider itself files what was sent, or the client does
		w.Dovecot.Deliver(address, "Sent", []byte(sent))
	} else {
		c.OK("APPEND Sent (\\Seen) {%d+}\r\n%s", len(sent), sent)
	}
	c.OK("LOGOUT")
}

// byNumbers is another's, whose client uses sequence numbers and old commands.
func byNumbers(t *testing.T, s *Seat, i int) {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	c.OK("FETCH 2 (RFC822)")
	c.OK("FETCH 3 (BODY[HEADER])")
	c.OK(`STORE 4 FLAGS (\Flagged $Number%d)`, i)
	c.OK("COPY 5 Drafts")
	c.OK(`STORE 1 +FLAGS (\Deleted)`)
	c.OK("EXPUNGE")
	c.OK("CREATE Project%d", i)
	c.OK("COPY 2:3 Project%d", i)
	if i > 0 {
		c.OK("RENAME Project%d Done%d", i-1, i-1)
	}
	c.OK(`STORE 2 +FLAGS (\Deleted)`)
	c.OK("CLOSE")
	c.OK("LOGOUT")
}

// cutOff is a client whose connection breaks before it has read the answers.
func cutOff(t *testing.T, s *Seat) {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	c.OK("NOOP")
	c.Send("x FETCH 1:* (BODY[])\r\ny UID STORE 1:* +FLAGS (\\Answered)\r\n")
	_ = c.Close()
}
