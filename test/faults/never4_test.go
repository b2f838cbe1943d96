// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// ending is one way in which sessions must end.
type ending struct {
	name string
	// do ends the seat's sessions, and returns when that was asked for and
	// when the asking was answered.
	do func(r *rig, s *e2e.Seat) (asked, answered time.Time)
	// told is what the next login is told; "": it is let in.
	told string
	// code is the next login's IMAP response code.
	code string
	// undo makes way for the next ending.
	undo func(r *rig, s *e2e.Seat)
}

const ask = " Ask " + e2e.FirmContact + "."

// signInFailed is the one text for all who are not known.
const signInFailed = "Sign-in failed."

// byCLI is an ending by one command.
func byCLI(args func(s *e2e.Seat) []string) func(*rig, *e2e.Seat) (time.Time, time.Time) {
	return func(r *rig, s *e2e.Seat) (asked, answered time.Time) {
		command := args(s)
		asked = time.Now()
		r.Postern.CLI(command...)
		return asked, time.Now()
	}
}

func unlock(r *rig, _ *e2e.Seat) {
	for _, l := range cli[httpapi.List[*httpapi.Lock]](r.t, r.Postern, "lock", "list").Items {
		r.Postern.CLI("lock", "remove", string(l.ID))
	}
}

func endings() []ending {
	all := []ending{
		{
			name: "assignment revoke", told: "You are no longer assigned to this mailbox." + ask, code: "AUTHORIZATIONFAILED",
			do: byCLI(func(s *e2e.Seat) []string { return []string{"assignment", "revoke", string(s.Assignment)} }),
		},
		{
			name: "delegation revoke", told: "The firm has withdrawn access to this mailbox." + ask, code: "AUTHORIZATIONFAILED",
			do: byCLI(func(s *e2e.Seat) []string { return []string{"delegation", "revoke", string(s.Delegation)} }),
		},
		{
			name: "app-password revoke", told: signInFailed, code: "AUTHENTICATIONFAILED",
			do: byCLI(func(s *e2e.Seat) []string { return []string{"app-password", "revoke", string(s.AppPassword)} }),
		},
		{
			name: "workstation remove", told: signInFailed, code: "AUTHENTICATIONFAILED",
			do: byCLI(func(s *e2e.Seat) []string { return []string{"workstation", "remove", s.Workstation} }),
		},
		{
			name: "agent remove", told: signInFailed, code: "AUTHENTICATIONFAILED",
			do: byCLI(func(s *e2e.Seat) []string { return []string{"agent", "remove", s.Agent} }),
		},
		{name: "session end", do: endEach},
		{name: "expiry", told: "Your access to this mailbox ended on ", code: "AUTHORIZATIONFAILED", do: awaitExpiry},
	}
	for target, name := range map[string]func(*e2e.Seat) string{
		"agent":       func(s *e2e.Seat) string { return s.Agent },
		"workstation": func(s *e2e.Seat) string { return s.Workstation },
		"mailbox":     func(s *e2e.Seat) string { return s.Mailbox },
		"firm":        func(*e2e.Seat) string { return e2e.FirmName },
		"site":        func(*e2e.Seat) string { return siteName },
	} {
		all = append(all, ending{
			name: "lock " + target, told: "Held for a test of locks." + ask, code: "AUTHORIZATIONFAILED", undo: unlock,
			do: byCLI(func(s *e2e.Seat) []string {
				return []string{"lock", "add", target, name(s), "--message", "Held for a test of locks"}
			}),
		})
	}
	slices.SortFunc(all, func(a, b ending) int { return strings.Compare(a.name, b.name) })
	return all
}

// endEach ends every session by its id. It counts as asked when the last is.
func endEach(r *rig, _ *e2e.Seat) (asked, answered time.Time) {
	var all sync.WaitGroup
	sessions := r.sessions()
	asked = time.Now()
	for _, session := range sessions {
		all.Go(func() { r.Postern.TryCLI("", "session", "end", string(session.ID)) })
	}
	all.Wait()
	return asked, time.Now()
}

// awaitExpiry waits for the end that expiring gave the seat's assignment.
func awaitExpiry(r *rig, s *e2e.Seat) (asked, answered time.Time) {
	for _, a := range cli[httpapi.List[*httpapi.Assignment]](r.t, r.Postern, "assignment", "list", "--all").Items {
		if a.ID == s.Assignment {
			time.Sleep(time.Until(a.Terms.NotAfter)) // the event is the instant itself
			return a.Terms.NotAfter, a.Terms.NotAfter
		}
	}
	r.t.Fatal("the assignment is not listed")
	return
}

// expiring gives the seat an assignment that ends by itself, in place of its
// own.
func expiring(r *rig, s *e2e.Seat, in time.Duration) {
	r.t.Helper()
	r.Postern.CLI("assignment", "revoke", string(s.Assignment))
	s.Assignment = cli[httpapi.Assignment](r.t, r.Postern, "assignment", "create", s.Agent,
		"--delegation", string(s.Delegation), "--not-after", time.Now().Add(in).UTC().Format(time.RFC3339)).ID
}

const siteName = "Loopback"

// busySeat is a seat whose sessions are in each of the states in which an end
// is hardest.
type busySeat struct {
	r    *rig
	seat *e2e.Seat
	legs map[string]leg
	// what the clients in IDLE and in DATA are told shows that the end came in
	// order; the others hang.
	idle, data *e2e.Conn
	// imapLogin and smtpLogin are logging in while the provider says nothing.
	imapLogin, smtpLogin *e2e.Conn
	release              []func()
}

// upstreamsNow are the legs towards the provider that are open.
func (r *rig) upstreamsNow() map[leg]bool {
	all := sockets(r.t)
	now := make(map[leg]bool)
	for _, port := range []uint16{r.imap.Port, r.smtp.Port} {
		for _, s := range (leg{remote: port}).find(all) {
			now[leg{s.local, s.remote}] = true
		}
	}
	return now
}

// add notes a client's connection and what came up upstream since before.
func (b *busySeat) add(name string, c *e2e.Conn, before map[leg]bool) {
	b.legs[name+", client"] = clientLeg(b.r.t, c)
	for l := range b.r.upstreamsNow() {
		if !before[l] {
			b.legs[fmt.Sprintf("%s, upstream %d", name, l.local)] = l
		}
	}
}

// open makes connections one after the other, so that each upstream leg is
// known for whose it is.
func open(r *rig, s *e2e.Seat) *busySeat {
	t := r.t
	t.Helper()
	b := &busySeat{r: r, seat: s, legs: make(map[string]leg)}

	before := r.upstreamsNow()
	b.idle = s.IMAP(t)
	b.idle.OK("SELECT INBOX")
	b.idle.Send("i IDLE\r\n")
	b.idle.Expect(`\+ .*`)
	b.add("IDLE", b.idle, before)

	before = r.upstreamsNow()
	fetching := s.IMAP(t)
	if tcp, ok := fetching.Conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
		if err := tcp.SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
	}
	fetching.OK("SELECT INBOX")
	fetching.Send("f FETCH 1:* (UID BODY.PEEK[])\r\n")
	awaitStuck(t, fetching)
	b.add("FETCH to one who does not read", fetching, before)

	before = r.upstreamsNow()
	appending := s.IMAP(t)
	appending.Send("p APPEND Drafts {1000000}\r\n")
	appending.Expect(`\+ .*`)
	from := len(r.imap.Seen(servers.ToServer))
	appending.Send("%s", strings.Repeat("half of it\r\n", 1000))
	servers.WaitFor(t, patience, func() bool { return count(r.imap, servers.ToServer, from, "half of it") > 500 }, "the half message to pass")
	b.add("mid-APPEND", appending, before)

	before = r.upstreamsNow()
	b.data = s.Submission(t)
	b.data.Ask(250, "MAIL FROM:<%s>", sales)
	b.data.Ask(250, "RCPT TO:<%s>", support)
	b.data.Ask(354, "DATA")
	from = len(r.smtp.Seen(servers.ToServer))
	b.data.Send("%s", message(sales, support, "half-"+s.Agent, strings.Repeat("half of it\r\n", 9000)))
	servers.WaitFor(t, patience, func() bool { return count(r.smtp, servers.ToServer, from, "half of it") > 1000 }, "the half message to pass")
	b.add("half-sent DATA", b.data, before)

	b.imapLogin = b.stallLogin("logging in to IMAP", r.imap, func() *e2e.Conn {
		c := s.DialIMAP(t)
		c.Send("l LOGIN %s %s\r\n", s.Mailbox, s.Token)
		return c
	})
	b.smtpLogin = b.stallLogin("logging in to submission", r.smtp, func() *e2e.Conn {
		c := s.DialSubmission(t)
		c.Send("AUTH PLAIN %s\r\n", s.SASLPlain())
		return c
	})
	return b
}

// stallLogin has the provider answer nothing to a login. Only its upstream leg
// must close: the client, told no, may try again on the same connection.
func (b *busySeat) stallLogin(name string, tap *servers.Tap, login func() *e2e.Conn) *e2e.Conn {
	b.r.t.Helper()
	before := b.r.upstreamsNow()
	struck := tap.Arm(servers.Fault{Direction: servers.ToServer, Pattern: []byte("AUTH"), Before: true, Action: servers.Stall})
	c := login()
	await(b.r.t, struck, "the login to reach the provider")
	b.add(name, c, before)
	delete(b.legs, name+", client")
	b.release = append(b.release, tap.Release)
	return c
}

func await(t testing.TB, struck <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-struck:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
}

// TestNever4 ends sessions in every way there is, in each of the states in
// which that is hardest, and measures when the sockets of both legs are gone.
func TestNever4(t *testing.T) {
	w := newRig(t, e2e.WorldOptions{Sealed: true})
	w.Dovecot.Fill(sales, "", 24, func(i int) []byte { return bulk(fmt.Sprintf("bulk-%d", i), 512<<10) })
	w.Postern.CLI("site", "add", siteName, "--network", "127.0.0.0/8")
	for _, e := range endings() {
		t.Run(e.name, func(t *testing.T) { endsAll(w.For(t), e) })
	}
	t.Run("logging in while the special folders are asked for", func(t *testing.T) { endsLearning(w.For(t)) })
	t.Run("a hundred sessions", func(t *testing.T) { endsHundred(w.For(t)) })
}

func endsAll(r *rig, e ending) {
	t := r.t
	s := r.Seat(sales)
	if e.name == "expiry" {
		expiring(r, s, 10*time.Second)
	}
	b := open(r, s)
	defer func() {
		for _, release := range b.release {
			release()
		}
	}()
	upstreams := 0
	for name := range b.legs {
		if strings.Contains(name, "upstream") {
			upstreams++
		}
	}
	if upstreams != 6 {
		t.Fatalf("%d upstream connections for 6 sessions: %v", upstreams, b.legs)
	}
	watch := servers.StartStopwatch(t)
	asked, answered := e.do(r, s)
	checkClosed(t, watch, e.name, asked, answered, b.legs)
	b.checkWords(e)
	for _, release := range b.release {
		release()
	}
	b.release = nil
	if got := r.settled(support, "half-"+s.Agent); got != 0 {
		t.Errorf("the half-sent message was delivered %d times", got)
	}
	if got := r.Dovecot.Messages(sales, "Drafts", "ALL"); len(got) != 0 {
		t.Errorf("the half-appended message was stored: %v", got)
	}
	r.noSessions()
	checkNextLogin(t, s, e)
	if e.undo != nil {
		e.undo(r, s)
		c, answer := tryLogin(t, s)
		wantPrefix(t, "a login after the lock was removed", answer, "OK ")
		c.OK("LOGOUT")
	}
}

// checkClosed fails unless every leg closed within a second of the answer.
func checkClosed(t testing.TB, watch *servers.Stopwatch, what string, asked, answered time.Time, legs map[string]leg) {
	t.Helper()
	at := closedAt(t, patience, legs)
	var latest time.Time
	slowest := ""
	for name, when := range at {
		watch.Took(t, what+": from the command's return until "+name+" closed", when.Sub(answered), second)
		if when.After(latest) {
			latest, slowest = when, name
		}
	}
	t.Logf("%s: %d sockets closed %v after it was asked for, %v after the answer; last: %s", what,
		len(legs), latest.Sub(asked).Round(time.Millisecond), latest.Sub(answered).Round(time.Millisecond), slowest)
}

// checkWords: whoever can be told is told why.
func (b *busySeat) checkWords(e ending) {
	t := b.r.t
	if said := b.idle.ExpectClosed(second); !strings.Contains(said, "* BYE ") {
		t.Errorf("the client in IDLE was told %q", said)
	}
	if said := b.data.ExpectClosed(second); !strings.HasPrefix(said, "421 ") {
		t.Errorf("the client in DATA was told %q", said)
	}
	if answer, err := b.imapLogin.TryLine(second); err != nil || !strings.HasPrefix(answer, "l NO [") {
		t.Errorf("the client that was logging in to IMAP was told %q, %v", answer, err)
	}
	if answer, err := b.smtpLogin.TryLine(second); err != nil || !strings.HasPrefix(answer, "535 ") && !strings.HasPrefix(answer, "454 ") {
		t.Errorf("the client that was logging in to submission was told %q, %v", answer, err)
	}
}

func checkNextLogin(t testing.TB, s *e2e.Seat, e ending) {
	t.Helper()
	c, answer := tryLogin(t, s)
	_, reply := tryAuth(t, s)
	if e.told == "" {
		wantPrefix(t, "the next login", answer, "OK ")
		wantPrefix(t, "the next login for submission", reply, "235 ")
		c.OK("LOGOUT")
		return
	}
	wantPrefix(t, "the next login", answer, "NO ["+e.code+"] "+e.told)
	if e.told == signInFailed {
		wantPrefix(t, "the next login for submission", reply, "535 5.7.8 ")
		return
	}
	wantPrefix(t, "the next login for submission", reply, "535 5.7.1 "+e.told)
}

// endsLearning ends a session whose credential was accepted, but which waits
// for the answer to a command of Postern's own.
func endsLearning(r *rig) {
	t := r.t
	s := r.Seat(sales, "list", "headers", "read")
	before := r.upstreamsNow()
	struck := r.imap.Arm(servers.Fault{Direction: servers.ToServer, Pattern: []byte(" LIST (SPECIAL-USE)"), Before: true, Action: servers.Stall})
	c := s.DialIMAP(t)
	c.Send("l LOGIN %s %s\r\n", s.Mailbox, s.Token)
	await(t, struck, "the question for special folders")
	defer r.imap.Release()
	legs := make(map[string]leg)
	for l := range r.upstreamsNow() {
		if !before[l] {
			legs[fmt.Sprintf("upstream %d", l.local)] = l
		}
	}
	watch := servers.StartStopwatch(t)
	asked := time.Now()
	r.Postern.CLI("assignment", "revoke", string(s.Assignment))
	checkClosed(t, watch, "asking for special folders", asked, time.Now(), legs)
	if answer, err := c.TryLine(second); err != nil || !strings.HasPrefix(answer, "l NO [AUTHORIZATIONFAILED] You are no longer assigned") {
		t.Errorf("the client was told %q, %v", answer, err)
	}
}

func endsHundred(r *rig) {
	t := r.t
	s := r.Seat(sales)
	legs := make(map[string]leg)
	before := r.upstreamsNow()
	for i := range 100 {
		var c *e2e.Conn
		if i%4 == 3 {
			c = s.Submission(t)
		} else {
			c = s.IMAP(t)
			c.Send("i IDLE\r\n")
			c.Expect(`\+ .*`)
		}
		legs[fmt.Sprintf("session %d", i)] = clientLeg(t, c)
	}
	for l := range r.upstreamsNow() {
		if !before[l] {
			legs[fmt.Sprintf("upstream %d", l.local)] = l
		}
	}
	if len(legs) != 200 {
		t.Fatalf("%d sockets for 100 sessions", len(legs))
	}
	watch := servers.StartStopwatch(t)
	asked := time.Now()
	r.Postern.CLI("lock", "add", "mailbox", sales)
	checkClosed(t, watch, "100 sessions", asked, time.Now(), legs)
	unlock(r, s)
}
