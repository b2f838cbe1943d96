// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
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
// ahead of it; a message sent without its intent. See also TestDiskFull.
func TestNever3(t *testing.T) {
	w := newRig(t, e2e.WorldOptions{Sealed: true})
	w.Dovecot.Fill(sales, "", 60, func(i int) []byte { return bulk(fmt.Sprintf("bulk-%d", i), bulkSize) })
	s := w.Seat(sales)
	t.Run("killed under load", func(t *testing.T) { killedUnderLoad(w.For(t), s) })
	t.Run("database held for a moment", func(t *testing.T) { heldForAMoment(w.For(t), s) })
	t.Run("database held for too long", func(t *testing.T) { heldForTooLong(w.For(t), s) })
}

const (
	bulkSize = 100 << 10
	kills    = 12
)

// reader is a client that fetches bodies and keeps what it got of each.
type reader struct {
	remote string // its address, as session.open tells it
	got    map[uint32]int
}

// load is a number of clients that go on until the server is gone.
type load struct {
	r    *rig
	seat *e2e.Seat
	tls  *tls.Config

	mu      sync.Mutex
	readers []*reader
	sent    map[string]bool // by id: whether the client was told 250
	logins  int             // how many were answered OK
	next    atomic.Int64
}

// killedUnderLoad kills the server at random instants, and holds what clients
// and the provider saw against the records that are left.
func killedUnderLoad(r *rig, s *e2e.Seat) {
	t := r.t
	l := &load{r: r, seat: s, sent: make(map[string]bool)}
	l.tls = &tls.Config{RootCAs: r.Postern.Roots(), ServerName: "localhost", Certificates: []tls.Certificate{s.Certificate}}
	loginsBefore := upstreamLogins(r)
	opensBefore := len(s.Events(broker.EventSessionOpen))
	for range kills {
		var clients sync.WaitGroup
		stop := make(chan struct{})
		for range 3 {
			clients.Go(func() { l.repeat(stop, l.read) })
		}
		for range 2 {
			clients.Go(func() { l.repeat(stop, l.send) })
		}
		progressed := l.next.Load() + 2
		servers.WaitFor(t, patience, func() bool { return l.next.Load() > progressed }, "the load to begin")
		time.Sleep(rand.N(150 * time.Millisecond)) // the instant is random
		r.Postern.Kill()
		close(stop)
		clients.Wait()
		r.Postern.Restart()
	}
	l.check(loginsBefore, opensBefore)
}

func (l *load) repeat(stop <-chan struct{}, f func() error) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if f() != nil {
			<-stop // the server was killed
			return
		}
	}
}

// dial speaks without the harness, whose connections fail the test when the
// server goes.
func (l *load) dial(port uint16) (*tls.Conn, *bufio.Reader, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", fmt.Sprintf("127.0.0.1:%d", port), l.tls)
	if err != nil {
		return nil, nil, err
	}
	return c, bufio.NewReader(c), c.SetDeadline(time.Now().Add(patience))
}

// read logs in and fetches everything, one command for all.
func (l *load) read() error {
	c, in, err := l.dial(l.r.Postern.IMAPSPort)
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Fprintf(c, "a LOGIN %s %s\r\n", l.seat.Mailbox, l.seat.Token)
	if err := until(in, "a OK"); err != nil {
		return err
	}
	me := &reader{remote: c.LocalAddr().String(), got: make(map[uint32]int)}
	l.mu.Lock()
	l.readers = append(l.readers, me)
	l.logins++
	l.mu.Unlock()
	l.next.Add(1)
	fmt.Fprintf(c, "b SELECT INBOX\r\nc UID FETCH 1:* (UID BODY.PEEK[])\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "c OK") {
			break
		}
		var seq, uid uint32
		var size int
		if n, _ := fmt.Sscanf(line, "* %d FETCH (UID %d BODY[] {%d}", &seq, &uid, &size); n != 3 {
			continue
		}
		n, err := io.CopyN(io.Discard, in, int64(size))
		l.mu.Lock()
		me.got[uid] += int(n)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(c, "d LOGOUT\r\n")
	return until(in, "d OK")
}

// until reads lines up to one that begins so.
func until(in *bufio.Reader, prefix string) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, prefix) {
			return nil
		}
		if tag, _, _ := strings.Cut(prefix, " "); strings.HasPrefix(line, tag+" ") {
			return errors.New(line)
		}
	}
}

// send logs in and sends one message, once.
func (l *load) send() error {
	id := fmt.Sprintf("load-%d-%s", l.next.Add(1), mark(l.r.t))
	c, in, err := l.dial(l.r.Postern.SubmissionsPort)
	if err != nil {
		return err
	}
	defer c.Close()
	ask := func(code, format string, args ...any) error {
		if format != "" {
			fmt.Fprintf(c, format+"\r\n", args...)
		}
		for {
			line, err := in.ReadString('\n')
			switch {
			case err != nil:
				return err
			case !strings.HasPrefix(line, code):
				return errors.New(line)
			case line[3] == ' ':
				return nil
			}
		}
	}
	err = errors.Join(ask("220", ""), ask("250", "EHLO client.example"), ask("235", "AUTH PLAIN %s", l.seat.SASLPlain()))
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.logins++
	l.sent[id] = false
	l.mu.Unlock()
	err = errors.Join(ask("250", "MAIL FROM:<%s>", sales), ask("250", "RCPT TO:<%s>", support), ask("354", "DATA"))
	if err != nil {
		return err
	}
	if err := ask("250", "%s.", message(sales, support, id, strings.Repeat("load\r\n", 1000))); err != nil {
		return err
	}
	l.mu.Lock()
	l.sent[id] = true
	l.mu.Unlock()
	return ask("221", "QUIT")
}

// upstreamLogins counts the logins that went upstream.
func upstreamLogins(r *rig) int {
	return bytes.Count(r.imap.Seen(servers.ToServer), []byte(" AUTHENTICATE ")) + bytes.Count(r.smtp.Seen(servers.ToServer), []byte("\r\nAUTH "))
}

func (l *load) check(loginsBefore, opensBefore int) {
	r, t := l.r, l.r.t
	servers.WaitFor(t, patience, func() bool { return r.queued() == 0 }, "Postfix to deliver what it has")
	events := l.seat.Events()
	opens := l.sessionsOpened(events) - opensBefore
	logins := upstreamLogins(r) - loginsBefore
	if logins > opens {
		t.Errorf("%d logins upstream for %d recorded sessions", logins, opens)
	}
	if l.logins > opens {
		t.Errorf("%d clients were let in for %d recorded sessions", l.logins, opens)
	}
	l.checkSent(events)
	l.checkOpened(events)
	checkSequence(t, r.Postern.Events(e2e.FirmName))
	if live := r.sessions(); len(live) != 0 {
		t.Errorf("%d sessions of dead processes are listed as live", len(live))
	}
	t.Logf("%d kills: %d sessions recorded, %d logins upstream, %d clients let in", kills, opens, logins, l.logins)
}

func (l *load) sessionsOpened(events []e2e.Event) int {
	n := 0
	for _, e := range events {
		if e.Type == broker.EventSessionOpen {
			n++
		}
	}
	return n
}

func (l *load) checkSent(events []e2e.Event) {
	t := l.r.t
	intents := make(map[string]int)
	for _, e := range events {
		if e.Type == broker.EventSendIntent {
			intents[e2e.Decode[broker.SendIntent](t, e).MessageID]++
		}
	}
	delivered := make(map[string]int)
	for _, line := range strings.Split(l.r.Dovecot.Doveadm("-f", "tab", "fetch", "-u", support, "hdr.message-id", "mailbox", "INBOX", "ALL"), "\n") {
		delivered[strings.TrimSpace(line)]++
	}
	told, there, lost := 0, 0, 0
	for id, accepted := range l.sent {
		id = "<" + id + "@client.example>"
		n := delivered[id]
		switch {
		case n > 1:
			t.Errorf("%s was delivered %d times and sent once", id, n)
		case accepted && n == 0:
			t.Errorf("%s was accepted and is not delivered", id)
		case n == 1 && intents[id] == 0:
			t.Errorf("%s was delivered without its intent", id)
		}
		if accepted {
			told++
		}
		if there += n; intents[id] > 0 && n == 0 {
			lost++
		}
	}
	t.Logf("%d messages begun, %d accepted, %d delivered, %d with an intent and no dot", len(l.sent), told, there, lost)
}

// checkOpened: what each client got of bodies that no event tells of.
func (l *load) checkOpened(events []e2e.Event) {
	t := l.r.t
	session := make(map[string]broker.ID)
	opened := make(map[broker.ID]map[uint32]bool)
	for _, e := range events {
		switch e.Type {
		case broker.EventSessionOpen:
			session[e2e.Decode[broker.SessionOpen](t, e).Session.RemoteAddr] = e.SessionID
			opened[e.SessionID] = make(map[uint32]bool)
		case broker.EventMessageOpen:
			for _, m := range e2e.Decode[broker.MessageOpen](t, e).Messages {
				if m.UID == 0 {
					t.Errorf("an opening without a UID, which was told before the octets: %+v", m)
				}
				opened[e.SessionID][m.UID] = true
			}
		}
	}
	most, total, recorded := 0, 0, 0
	for _, c := range l.readers {
		id, ok := session[c.remote]
		if !ok {
			t.Errorf("the client at %s was let in without a record", c.remote)
		}
		ahead := 0
		for uid, n := range c.got {
			total += n
			if opened[id][uid] {
				recorded += n
			} else {
				ahead += n
			}
		}
		if ahead > aheadOfRecord {
			t.Errorf("%d octets of bodies had passed that no event tells of", ahead)
		}
		most = max(most, ahead)
	}
	if recorded == 0 {
		t.Error("nothing was opened")
	}
	t.Logf("%d clients got %d MB of bodies; at most %d octets of a client's are in no event", len(l.readers), total>>20, most)
}

// checkSequence: a firm's log has no gap and no fork.
func checkSequence(t testing.TB, events []e2e.Event) {
	t.Helper()
	for i := 1; i < len(events); i++ {
		if events[i].Seq != events[i-1].Seq+1 {
			t.Errorf("event %d follows event %d", events[i].Seq, events[i-1].Seq)
		}
	}
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
	release := hold(t, r.Postern)
	logins := upstreamLogins(r)
	began := time.Now()

	sending.Send("%s.\r\n", message(sales, support, id, "held back\r\n"))
	entering := s.DialIMAP(t)
	entering.Send("e LOGIN %s %s\r\n", s.Mailbox, s.Token)
	fetching.Send("f UID FETCH 1:* (UID BODY.PEEK[])\r\n")
	before := len(fetching.Seen())
	ended := fetching.ExpectClosed(patience)
	passed := len(fetching.Seen()) - before
	if passed > aheadOfRecord+(64<<10) {
		t.Errorf("%d octets passed while nothing could be recorded", passed)
	}
	t.Logf("the reading client was cut off after %v and %d octets: %q", time.Since(began).Round(time.Millisecond), passed, ended[max(0, len(ended)-80):])
	wantPrefix(t, "the message", sending.Reply(), "451 4.3.0 the record cannot be written, so nothing was sent")
	_, answer := entering.Answer("e")
	wantPrefix(t, "the login", answer, "NO [UNAVAILABLE] ")
	t.Logf("the sending and the entering client were refused after %v", time.Since(began).Round(time.Millisecond))
	idle.OK("NOOP")
	if n := upstreamLogins(r) - logins; n != 0 {
		t.Errorf("%d logins upstream while no session could be recorded", n)
	}
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
