// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// aheadOfRecord is how many octets of bodies may have passed that no durable
// event tells of.
const aheadOfRecord = 1 << 20

// TestNever3: a session without its durable record; an opening more than 1 MiB
// ahead of it; a message sent without its intent. See also TestNever3DiskFull.
func TestNever3(t *testing.T) {
	w := newRig(t, e2e.WorldOptions{Sealed: true})
	w.Dovecot.Fill(sales, "", 60, func(i int) []byte { return bulk(fmt.Sprintf("bulk-%d", i), bulkSize) })
	s := w.Seat(sales)
	t.Run("killed under load", func(t *testing.T) { killedUnderLoad(w.For(t), s) })
	t.Run("database held for a moment", func(t *testing.T) { heldForAMoment(w.For(t), s) })
	t.Run("database held for too long", func(t *testing.T) { heldForTooLong(w.For(t), s) })
}

// hold takes the database's write lock as another process, and returns what
// gives it back.
func hold(t testing.TB, p *e2e.Postern) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+p.StorePath()+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	release = func() {
		once.Do(func() {
			if _, err := db.Exec("ROLLBACK"); err != nil {
				t.Error(err)
			}
			db.Close()
		})
	}
	t.Cleanup(release)
	return release
}

// heldForAMoment: everything waits, and goes on.
func heldForAMoment(r *rig, s *e2e.Seat) {
	t := r.t
	idle, fetching, sending := s.IMAP(t), s.IMAP(t), s.Submission(t)
	idle.OK("SELECT INBOX")
	fetching.OK("SELECT INBOX")
	id := "held-" + mark(t)
	sending.Ask(250, "MAIL FROM:<%s>", sales)
	sending.Ask(250, "RCPT TO:<%s>", support)
	sending.Ask(354, "DATA")
	release := hold(t, r.Postern)
	logins, from := upstreamLogins(r), len(r.smtp.Seen(servers.ToServer))

	sending.Send("%s.\r\n", message(sales, support, id, "held back\r\n"))
	entering := s.DialIMAP(t)
	entering.Send("e LOGIN %s %s\r\n", s.Mailbox, s.Token)
	fetching.Send("f UID FETCH 1:* (UID BODY.PEEK[])\r\n")
	passed := passedWithin(t, fetching, second)
	if passed > aheadOfRecord+(64<<10) { // what surrounds bodies is not counted
		t.Errorf("%d octets passed while nothing could be recorded", passed)
	}
	idle.OK("NOOP") // what needs no record goes on
	if n := upstreamLogins(r) - logins; n != 0 {
		t.Errorf("%d logins upstream while no session could be recorded", n)
	}
	if n := count(r.smtp, servers.ToServer, from, "\r\n.\r\n"); n != 0 {
		t.Errorf("the final dot went upstream while no intent could be recorded")
	}
	if len(said(r.smtp, from)) == 0 {
		t.Error("the message did not even begin to pass")
	}
	release()
	if _, answer := entering.Answer("e"); !strings.HasPrefix(answer, "OK ") {
		t.Errorf("the login that waited: %s", answer)
	}
	if _, answer := fetching.Answer("f"); !strings.HasPrefix(answer, "OK ") {
		t.Errorf("the FETCH that waited: %s", answer)
	}
	sending.Want(250)
	if n := r.settled(support, id); n != 1 {
		t.Errorf("delivered %d times", n)
	}
	t.Logf("%d octets passed ahead of the record", passed)
	for _, c := range []*e2e.Conn{idle, fetching, entering} {
		c.OK("LOGOUT")
	}
	sending.Ask(221, "QUIT")
	r.noSessions()
}

// passedWithin counts what a client is sent, without taking it for answers
// that would be wanted later: it keeps to what the connection has seen.
func passedWithin(t testing.TB, c *e2e.Conn, within time.Duration) int {
	t.Helper()
	before := len(c.Seen())
	for {
		if _, err := c.TryLine(within); err != nil {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Fatalf("the connection ended: %v", err)
			}
			return len(c.Seen()) - before
		}
	}
}

const (
	// crowdSize is how many clients read at once while nothing can be recorded, and
	// crowdMemory what the server may need for them, in octets: far less than they
	// ask for.
	crowdSize   = 20
	crowdMemory = 64 << 20
)

// crowd are clients that are about to read everything.
type crowd struct {
	conns  []*tls.Conn
	in     []*bufio.Reader
	passed []int64 // what each was sent
	done   sync.WaitGroup
}

func newCrowd(r *rig, s *e2e.Seat) *crowd {
	c := &crowd{passed: make([]int64, crowdSize)}
	l := newLoad(r, s)
	for range crowdSize {
		conn, in, err := l.dial(r.Postern.IMAPSPort)
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "a LOGIN %s %s\r\nb SELECT INBOX\r\n", s.Mailbox, s.Token)
		if err := until(in, "b OK"); err != nil {
			r.t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(3 * patience)); err != nil {
			r.t.Fatal(err)
		}
		c.conns, c.in = append(c.conns, conn), append(c.in, in)
	}
	return c
}

// read has all of them ask for everything, and take what they are sent until they
// are cut off.
func (c *crowd) read() {
	for i, conn := range c.conns {
		c.done.Go(func() {
			fmt.Fprintf(conn, "c UID FETCH 1:* (UID BODY.PEEK[])\r\n")
			c.passed[i], _ = io.Copy(io.Discard, c.in[i])
		})
	}
}

// check fails where one got more than the bound, or was not cut off.
func (c *crowd) check(t testing.TB) {
	t.Helper()
	c.done.Wait()
	most := int64(0)
	for _, n := range c.passed {
		most = max(most, n)
	}
	if most > aheadOfRecord+(64<<10) || most == 0 {
		t.Errorf("one of %d clients was sent %d octets while nothing could be recorded", crowdSize, most)
	}
}

// heldForTooLong: nothing is done without its record, and all recovers.
func heldForTooLong(r *rig, s *e2e.Seat) {
	t := r.t
	idle, fetching, sending := s.IMAP(t), s.IMAP(t), s.Submission(t)
	idle.OK("SELECT INBOX")
	fetching.OK("SELECT INBOX")
	id := "held-" + mark(t)
	sending.Ask(250, "MAIL FROM:<%s>", sales)
	sending.Ask(250, "RCPT TO:<%s>", support)
	sending.Ask(354, "DATA")
	many, before := newCrowd(r, s), peak(t, r.Postern)
	release := hold(t, r.Postern)
	logins := upstreamLogins(r)
	many.read()
	began := time.Now()

	sending.Send("%s.\r\n", message(sales, support, id, "held back\r\n"))
	entering := s.DialIMAP(t)
	entering.Send("e LOGIN %s %s\r\n", s.Mailbox, s.Token)
	fetching.Send("f UID FETCH 1:* (UID BODY.PEEK[])\r\n")
	seen := len(fetching.Seen())
	ended := fetching.ExpectClosed(2 * patience)
	passed := len(fetching.Seen()) - seen
	if passed > aheadOfRecord+(64<<10) {
		t.Errorf("%d octets passed while nothing could be recorded", passed)
	}
	t.Logf("the reading client was cut off after %v and %d octets: %q", time.Since(began).Round(time.Millisecond), passed, ended[max(0, len(ended)-80):])
	wantPrefix(t, "the message", sending.Reply(), "451 4.3.0 the record cannot be written, so nothing was sent")
	_, answer := entering.Answer("e")
	wantPrefix(t, "the login", answer, "NO [UNAVAILABLE] ")
	t.Logf("the sending and the entering client were refused after %v", time.Since(began).Round(time.Millisecond))
	many.check(t)
	idle.OK("NOOP")
	if n := upstreamLogins(r) - logins; n != 0 {
		t.Errorf("%d logins upstream while no session could be recorded", n)
	}
	after := peak(t, r.Postern)
	if after > before+crowdMemory {
		t.Errorf("while nothing could be recorded the server grew to %d octets, from %d", after, before)
	}
	t.Logf("%d clients read while nothing was recorded for %v: at most %.1f MB resident, before %.1f MB",
		crowdSize, time.Since(began).Round(time.Second), float64(after)/1e6, float64(before)/1e6)
	release()
	servers.WaitFor(t, patience, func() bool { ok, _ := r.Postern.Ready(); return ok }, "the server to be ready again")
	if n := r.settled(support, id); n != 0 {
		t.Errorf("delivered %d times", n)
	}
	wantPrefix(t, "the message again", submit(t, s, message(sales, support, id, "held back\r\n")), "250")
	if n := r.settled(support, id); n != 1 {
		t.Errorf("delivered %d times in all", n)
	}
	c, answer := tryLogin(t, s)
	wantPrefix(t, "the next login", answer, "OK ")
	c.OK("LOGOUT")
	idle.OK("LOGOUT")
	sending.Ask(221, "QUIT")
	r.noSessions()
	checkEnds(t, s)
	awaitFollowed(t, r.Postern, askSQLite(t, r.Postern))
}

// checkEnds: every session that was opened has its end, and none has two.
func checkEnds(t testing.TB, s *e2e.Seat) {
	t.Helper()
	servers.WaitFor(t, patience, func() bool {
		open := make(map[broker.ID]int)
		for _, e := range s.Events(broker.EventSessionOpen, broker.EventSessionEnd) {
			if e.Type == broker.EventSessionOpen {
				open[e.SessionID]++
			} else {
				open[e.SessionID]--
			}
		}
		for _, n := range open {
			if n > 0 {
				return false
			}
		}
		return true
	}, "the ends of all sessions to be recorded")
}
