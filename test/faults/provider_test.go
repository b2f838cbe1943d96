// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// TestProviderCertificate: a provider that cannot prove who it is gets nothing
// but the beginning of a handshake.
func TestProviderCertificate(t *testing.T) {
	t.Parallel()
	var imap, smtp *front
	var imapTap, smtpTap *servers.Tap
	var once sync.Once
	fronts := func(w *e2e.World) {
		once.Do(func() {
			good := w.CA.Issue().TLS
			imap, smtp = newFront(t, w.Dovecot.IMAPPort, &good), newFront(t, w.Postfix.PlainPort, &good)
			imapTap, smtpTap = servers.NewTap(t, fmt.Sprintf("127.0.0.1:%d", imap.port)), servers.NewTap(t, fmt.Sprintf("127.0.0.1:%d", smtp.port))
		})
	}
	w := e2e.NewWorld(t, e2e.WorldOptions{
		Mailboxes: []string{sales}, Sealed: true,
		IMAP:       func(w *e2e.World) broker.Endpoint { fronts(w); return endpoint(imapTap, broker.TLSImplicit, w.CA) },
		Submission: func(w *e2e.World) broker.Endpoint { fronts(w); return endpoint(smtpTap, broker.TLSImplicit, w.CA) },
	})
	s := w.Seat(sales)
	letIn := func(t *testing.T) {
		t.Helper()
		c, answer := tryLogin(t, s)
		wantPrefix(t, "IMAP", answer, "OK ")
		c.OK("LOGOUT")
		m, reply := tryAuth(t, s)
		wantPrefix(t, "submission", reply, "235 ")
		m.Ask(221, "QUIT")
		servers.WaitFor(t, patience, func() bool { return imapTap.Connections()+smtpTap.Connections() == 0 }, "the goodbyes")
	}
	letIn(t)
	for name, certificate := range map[string]*servers.Certificate{
		"wrong name": w.CA.IssueWrongName(), "expired": w.CA.IssueExpired(), "unknown CA": servers.NewCA(t).Issue(),
	} {
		t.Run(name, func(t *testing.T) {
			imap.present(certificate)
			smtp.present(certificate)
			heard := len(imap.hears()) + len(smtp.hears())
			before := [2]int{len(imapTap.Seen(servers.ToServer)), len(smtpTap.Seen(servers.ToServer))}
			_, answer := tryLogin(t, s)
			wantPrefix(t, "IMAP", answer, "NO [UNAVAILABLE] ")
			_, reply := tryAuth(t, s)
			wantPrefix(t, "submission", reply, "454 ")
			for i, tap := range []*servers.Tap{imapTap, smtpTap} {
				octets := said(tap, before[i])
				if err := onlyHandshake(octets); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
				t.Logf("%d octets went to the provider", len(octets))
			}
			if n := len(imap.hears()) + len(smtp.hears()) - heard; n != 0 {
				t.Errorf("%d octets came out of TLS", n)
			}
			good := w.CA.Issue()
			imap.present(good)
			smtp.present(good)
			letIn(t)
		})
	}
	w.CheckNothingLeaked()
}

// onlyHandshake reads TLS records (RFC 8446 §5.1). Before the server is
// verified a client sends its hello, a change of cipher for old middle boxes,
// and an alert, which TLS 1.3 encrypts: a record of type application data that
// has room for nothing else.
func onlyHandshake(b []byte) error {
	const (
		changeCipher, alert, handshake, data = 20, 21, 22, 23
		header                               = 5
		encryptedAlert                       = 2 + 1 + 16
	)
	hellos := 0
	for len(b) > 0 {
		if len(b) < header {
			return fmt.Errorf("half a record: %x", b)
		}
		size := int(b[3])<<8 | int(b[4])
		if len(b) < header+size {
			return fmt.Errorf("half a record: %x", b)
		}
		switch kind := b[0]; {
		case kind == handshake && size > 0 && b[header] == 1:
			hellos++
		case kind == changeCipher, kind == alert && size == 2, kind == data && size == encryptedAlert:
		default:
			return fmt.Errorf("a record of type %d with %d octets", kind, size)
		}
		b = b[header+size:]
	}
	if hellos == 0 {
		return fmt.Errorf("no handshake was begun")
	}
	return nil
}

// TestProviderCloses: the provider goes in the middle of a message; the client
// is not told that it has all of it, and the next session is as good as ever.
func TestProviderCloses(t *testing.T) {
	t.Parallel()
	r := newRig(t, e2e.WorldOptions{Sealed: true, Mailboxes: []string{sales}})
	s := r.Seat(sales)
	r.Dovecot.Fill(sales, "", 2, func(i int) []byte {
		return []byte(message("buyer@market.example", sales, fmt.Sprintf("cut-%d", i),
			strings.Repeat("before\r\n", 10000)+halfWay+"\r\n"+strings.Repeat("behind\r\n", 10000)))
	})
	r.Dovecot.Fill(sales, "Archive", 1, func(int) []byte { return bulk("huge", hugeSize) })

	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	struck := r.imap.Arm(servers.Fault{Direction: servers.ToClient, Pattern: []byte(halfWay), Action: servers.Cut})
	c.Send("f FETCH 1:2 (UID BODY.PEEK[])\r\n")
	await(t, struck, "the middle of the message")
	// The reset takes with it what Postern had not read.
	got := c.ExpectClosed(patience)
	_, body, _ := strings.Cut(got, "\r\n\r\n")
	if body == "" || !strings.HasPrefix(strings.Repeat("before\r\n", 10000)+halfWay, body) {
		t.Errorf("what the client got is not the message up to where the provider left: %q", got[max(0, len(got)-100):])
	}
	fetchTwo(t, s)

	c = s.IMAP(t)
	c.OK("SELECT Archive")
	c.Send("f FETCH 1 (UID BODY.PEEK[])\r\n")
	awaitStuck(t, c) // so that Dovecot still has some of it
	r.Dovecot.Kill()
	got = c.ExpectClosed(patience)
	if n := strings.Count(got, "x"); n == 0 || len(got) >= hugeSize || !strings.HasSuffix(strings.TrimRight(got, "\r\n"), "x") {
		t.Errorf("of half a message the client got %d octets, ending in %q", len(got), got[max(0, len(got)-100):])
	}
	t.Logf("Dovecot killed: the client got %d of %d octets, and nothing behind them", len(got), hugeSize)
	refused, answer := tryLogin(t, s)
	wantPrefix(t, "without Dovecot", answer, "NO [UNAVAILABLE] ")
	r.Dovecot.Restart()
	_, answer = refused.Cmd("LOGIN %s %s", s.Mailbox, s.Token)
	wantPrefix(t, "the same client again", answer, "OK ")
	refused.OK("LOGOUT")
	fetchTwo(t, s)
	r.noSessions()
	var reasons []broker.EndReason
	opened := make(map[broker.ID]int)
	for _, e := range s.Events(broker.EventSessionEnd, broker.EventMessageOpen) {
		if e.Type == broker.EventMessageOpen {
			opened[e.SessionID] += len(e2e.Decode[broker.MessageOpen](t, e).Messages)
			continue
		}
		if end := e2e.Decode[broker.SessionEnd](t, e); end.Reason == broker.EndUpstreamClosed {
			reasons = append(reasons, end.Reason)
			if opened[e.SessionID] != 1 {
				t.Errorf("the record of the lost session has %d openings: one began to pass", opened[e.SessionID])
			}
		}
	}
	if len(reasons) != 2 {
		t.Errorf("%d sessions ended by the provider, not 2", len(reasons))
	}
}

// hugeSize is more than all the buffers between Dovecot and a client hold.
const hugeSize = 32 << 20

func fetchTwo(t *testing.T, s *e2e.Seat) {
	t.Helper()
	c := s.IMAP(t)
	c.OK("SELECT INBOX")
	if lines := c.OK("FETCH 1:2 (UID BODY.PEEK[])"); len(lines) != 2 {
		t.Errorf("afterwards there are %d messages", len(lines))
	}
	c.OK("LOGOUT")
}

// TestClientVanishesInMidAppend: nothing half stored.
func TestClientVanishesInMidAppend(t *testing.T) {
	t.Parallel()
	r := newRig(t, e2e.WorldOptions{Sealed: true, Mailboxes: []string{sales}})
	s := r.Seat(sales)
	m := message(sales, "buyer@market.example", "half", strings.Repeat("of a draft\r\n", 5000))
	for _, literal := range []string{"{%d}", "{%d+}"} {
		for name, n := range map[string]int{"nothing of it": 0, "some": 100, "half": len(m) / 2, "all but one octet": len(m) - 1, "all, and no CRLF": len(m)} {
			from := len(r.imap.Seen(servers.ToServer))
			c := s.IMAP(t)
			c.Send("a APPEND Drafts "+literal+"\r\n", len(m))
			if !strings.Contains(literal, "+") {
				c.Expect(`\+ .*`)
			}
			c.Send("%s", m[:n])
			servers.WaitFor(t, patience, func() bool {
				_, sent, _ := strings.Cut(string(said(r.imap, from)), "APPEND")
				_, sent, _ = strings.Cut(sent, "\r\n")
				return len(sent) >= n
			}, "what was sent to pass")
			c.Close()
			r.noSessions()
			_, sent, _ := strings.Cut(string(said(r.imap, from)), "APPEND")
			_, sent, _ = strings.Cut(sent, "\r\n")
			if sent != m[:n] {
				t.Errorf("%s %s: %d octets went upstream, not the %d that came", literal, name, len(sent), n)
			}
		}
	}
	if got := r.Dovecot.Messages(sales, "Drafts", "ALL"); len(got) != 0 {
		t.Errorf("stored: %v", got)
	}
	// What had gone upstream whole, but for the command's end, may have been
	// stored for all that Postern knows.
	unanswered := 0
	for _, e := range s.Events(broker.EventMessageAppend) {
		if e2e.Decode[broker.MessageAppend](t, e).Outcome != broker.ChangeUnanswered {
			t.Errorf("on record as appended: %+v", e)
		}
		unanswered++
	}
	if unanswered > 2 {
		t.Errorf("%d messages are on record as unanswered, of two that went upstream whole", unanswered)
	}
	c := s.IMAP(t)
	c.OK("APPEND Drafts {%d+}\r\n%s", len(m), m)
	c.OK("LOGOUT")
	if got := r.Dovecot.Messages(sales, "Drafts", "ALL"); len(got) != 1 {
		t.Errorf("a whole message afterwards: %v", got)
	}
}

// TestVaultLost: Vault sealed, killed and slow. New sessions are refused as
// unavailable, in time; those that live do not notice; and all recovers.
func TestVaultLost(t *testing.T) {
	w := e2e.NewWorld(t, e2e.WorldOptions{Mailboxes: []string{sales, support}})
	w.Dovecot.Fill(sales, "", 3, func(i int) []byte { return bulk(fmt.Sprintf("vault-%d", i), 1000) })
	s := w.Seat(sales)
	r := &rig{World: w, t: t}
	for _, loss := range []struct {
		name       string
		lose, mend func()
	}{
		{"sealed", w.Vault.Seal, w.Vault.Unseal},
		{"killed", w.Vault.Kill, func() { w.Vault.Restart(); w.Vault.Unseal() }},
		{"slow", func() { w.Vault.Slow(time.Minute) }, func() { w.Vault.Slow(0) }},
	} {
		t.Run(loss.name, func(t *testing.T) {
			imap, smtp := s.IMAP(t), s.Submission(t)
			imap.OK("SELECT INBOX")
			loss.lose()
			slowest := time.Duration(0)
			for range 7 { // more than open the breaker
				began := time.Now()
				_, answer := tryLogin(t, s)
				wantPrefix(t, "IMAP", answer, "NO [UNAVAILABLE] ")
				slowest = max(slowest, time.Since(began))
				began = time.Now()
				_, reply := tryAuth(t, s)
				wantPrefix(t, "submission", reply, "454 4.7.0 ")
				slowest = max(slowest, time.Since(began))
			}
			if slowest > 5*second {
				t.Errorf("a refusal took %v", slowest)
			}
			imap.OK("FETCH 1:3 (UID BODY.PEEK[])")
			id := "vault-" + loss.name
			smtp.Ask(250, "MAIL FROM:<%s>", sales)
			smtp.Ask(250, "RCPT TO:<%s>", support)
			smtp.Ask(354, "DATA")
			smtp.Send("%s.\r\n", message(sales, support, id, "on a live session\r\n"))
			smtp.Want(250)
			if ok, answer := w.Postern.Ready(); ok {
				t.Errorf("the server calls itself ready: %s", answer)
			}
			loss.mend()
			mended := time.Now()
			var again string
			servers.WaitFor(t, patience, func() bool {
				var c *e2e.Conn
				c, again = tryLogin(t, s)
				c.Close()
				return strings.HasPrefix(again, "OK ")
			}, "logins to work again")
			t.Logf("the slowest refusal took %v; %v after the mending a login succeeded",
				slowest.Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
			_, reply := tryAuth(t, s)
			wantPrefix(t, "submission again", reply, "235 ")
			imap.OK("NOOP")
			imap.OK("LOGOUT")
			smtp.Ask(221, "QUIT")
			if n := r.For(t).settled(support, id); n != 1 {
				t.Errorf("delivered %d times", n)
			}
		})
	}
	w.CheckNothingLeaked()
	var refused int
	for _, e := range s.Events(broker.EventSessionEnd) {
		if e2e.Decode[broker.SessionEnd](t, e).Reason == broker.EndUpstreamFailed {
			refused++
		}
	}
	if refused < 3*7*2 {
		t.Errorf("%d refused sessions are on record", refused)
	}
}
