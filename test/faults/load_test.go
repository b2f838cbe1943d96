// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bufio"
	"bytes"
	"crypto/tls"
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

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

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

func newLoad(r *rig, s *e2e.Seat) *load {
	return &load{r: r, seat: s, sent: make(map[string]bool), tls: &tls.Config{
		RootCAs: r.Postern.Roots(), ServerName: "localhost", Certificates: []tls.Certificate{s.Certificate},
	}}
}

// killedUnderLoad kills the server at random instants, and holds what clients
// and the provider saw against the records that are left.
func killedUnderLoad(r *rig, s *e2e.Seat) {
	t := r.t
	l := newLoad(r, s)
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
	awaitFollowed(t, r.Postern, askSQLite(t, r.Postern))
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
