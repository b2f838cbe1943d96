// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// The soak is a day's work without its pauses. An agent's mail program holds
// an IMAP connection all day and opens it anew cyclesPerHour times an hour: a
// laptop that sleeps, a line that drops, another folder; with most of them goes
// a message to send. Agents times hours times that many cycles are what a day
// makes the server do; what takes time by itself (IDLE, leases) is tested with
// a clock that is turned.
const (
	soakAgents    = 20
	cyclesPerHour = 4
	// providerLost is in every such hour: the provider is killed, comes back,
	// and refuses a mailbox's credential for a while.
	providerLost = 6
	// shortHours are those of an ordinary run; SOAK_HOURS says otherwise.
	shortHours = 4
	// warmHours pass before anything is compared: caches fill.
	warmHours = 1

	// What the end may have more than the beginning: for sockets that the
	// kernel has not let go, and for what the collector has not looked at.
	soakDescriptors = 8
	soakGoroutines  = 16
	soakHeap        = 4 << 20
	soakResident    = 24 << 20
)

// soak counts what agents do in it.
type soak struct {
	*office
	cycles atomic.Int64
	mu     sync.Mutex
	did    map[string]int
}

// chore is one thing to do, so many times of a hundred.
type chore struct {
	weight int
	name   string
	do     func(s *soak, w *worker) error
}

var chores = []chore{
	{30, "a shift", func(_ *soak, w *worker) error { return w.shift(&timings{}) }},
	{20, "reading", (*soak).read},
	{10, "vanishing in IDLE", (*soak).vanish},
	{10, "vanishing in a literal", (*soak).halfAppend},
	{5, "vanishing in DATA", (*soak).halfSend},
	{5, "vanishing in a handshake", (*soak).halfHandshake},
	{5, "vanishing in a download", (*soak).halfRead},
	{5, "a wrong app password", (*soak).wrongPassword},
	{5, "sorting", (*soak).sort},
	{5, "being locked out", (*soak).lockedOut},
}

// TestSoak: descriptors, goroutines and memory are after hours of work what
// they were before. `make soak` runs a day.
func TestSoak(t *testing.T) {
	hours := shortHours
	n := soakAgents
	if v := os.Getenv("SOAK_HOURS"); v != "" {
		var err error
		if hours, err = strconv.Atoi(v); err != nil || hours <= warmHours+1 {
			t.Fatalf("SOAK_HOURS=%s: a number of hours, %d or more", v, warmHours+2)
		}
		n = agents
	}
	s := &soak{office: newOffice(t, n, "limits:\n  mailbox_connections: 100\n  mailbox_submissions: 100\n"), did: make(map[string]int)}
	p := s.world.Postern
	began := time.Now()
	var rests []usage
	for hour := range hours {
		s.hour(t, n)
		if hour%providerLost == 2 {
			s.world.Dovecot.Kill()
			s.refused(t)
			s.world.Dovecot.Restart()
			s.spoilt(t)
		}
		u := s.rest(t)
		rests = append(rests, u)
		t.Logf("hour %2d, after %5d cycles: %v", hour+1, s.cycles.Load(), u)
	}
	t.Logf("%d agents, %d hours: %d cycles in %v; %v", n, hours, s.cycles.Load(), time.Since(began).Round(time.Second), s.did)
	m := readMetrics(t, p)
	t.Logf("%v sessions, %v of them ended by a lock", m.sum("postern_session_opens_total", `outcome="opened"`), m.sum("postern_session_ends_total", `reason="locked"`))
	if live := m.sum("postern_sessions_live", ""); live != 0 {
		t.Errorf("%v sessions are live", live)
	}
	judge(t, rests[warmHours:])
}

// judge compares the first rest with the least of the last three: what grows
// has grown in each of them.
func judge(t *testing.T, rests []usage) {
	t.Helper()
	first, last := rests[0], rests[max(1, len(rests)-3):]
	for _, figure := range []struct {
		name string
		of   func(usage) int
		more int
	}{
		{"descriptors", func(u usage) int { return u.descriptors }, soakDescriptors},
		{"goroutines", func(u usage) int { return u.goroutines }, soakGoroutines},
		{"octets of heap", func(u usage) int { return u.heap }, soakHeap},
		{"octets resident", func(u usage) int { return u.resident }, soakResident},
	} {
		least := figure.of(slices.MinFunc(last, func(a, b usage) int { return figure.of(a) - figure.of(b) }))
		if least > figure.of(first)+figure.more {
			t.Errorf("%s grow: %d at first, at least %d in the end", figure.name, figure.of(first), least)
		}
	}
}

// hour has every agent do his cycles.
func (s *soak) hour(t *testing.T, n int) {
	t.Helper()
	var all sync.WaitGroup
	for _, w := range s.workers {
		all.Go(func() {
			for range cyclesPerHour {
				c := pick()
				if err := c.do(s, w); err != nil {
					t.Errorf("%s: %s: %v", w.name, c.name, err)
				}
				s.cycles.Add(1)
				s.mu.Lock()
				s.did[c.name]++
				s.mu.Unlock()
			}
		})
	}
	all.Wait()
}

func pick() chore {
	n := rand.IntN(100)
	for _, c := range chores {
		if n -= c.weight; n < 0 {
			return c
		}
	}
	return chores[0]
}

// rest waits until nobody is there, and has the collector run, which it does
// by itself every two minutes, or when a heap has doubled.
func (s *soak) rest(t *testing.T) usage {
	t.Helper()
	p := s.world.Postern
	servers.WaitFor(t, patience, func() bool {
		m := readMetrics(t, p)
		return m.sum("postern_sessions_live", "") == 0 && m.sum("postern_proxy_connections_open", "") == 0
	}, "everybody to leave")
	least := measure(t, p)
	collections := readMetrics(t, p)["go_gc_duration_seconds_count"]
	servers.WaitFor(t, 5*time.Minute, func() bool {
		// Asking makes garbage, and so brings the next collection about.
		u, m := measure(t, p), readMetrics(t, p)
		least.heap, least.resident = min(least.heap, u.heap), min(least.resident, u.resident)
		least.descriptors, least.goroutines = min(least.descriptors, u.descriptors), min(least.goroutines, u.goroutines)
		return m["go_gc_duration_seconds_count"] >= collections+2
	}, "garbage to be collected")
	return least
}

func (s *soak) read(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.imap(`LIST "" "*"`), c.imap("STATUS Sent (MESSAGES)"), c.imap("SELECT INBOX"), c.imap("UID SEARCH UNSEEN"),
		c.imap("UID FETCH 1:3 (UID FLAGS ENVELOPE)"), c.imap("UID FETCH 1:2 BODY.PEEK[]"), c.imap("NOOP"), c.logout())
}

func (s *soak) vanish(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.imap("SELECT INBOX"), c.idle())
}

func (s *soak) halfAppend(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.send("a APPEND Drafts {100000+}\r\nSubject: half\r\n\r\n")
}

func (s *soak) halfSend(w *worker) error {
	c, err := w.smtp()
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(c.smtp("250", "MAIL FROM:<%s>", w.mailbox), c.smtp("250", "RCPT TO:<%s>", w.mailbox),
		c.smtp("354", "DATA"), c.send("Subject: half\r\n"))
}

func (s *soak) halfHandshake(*worker) error {
	c, err := dialFrom("127.0.0.1", s.world.Postern.IMAPSPort)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte{22, 3, 1})
	return err
}

func (s *soak) halfRead(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	err = errors.Join(c.imap("SELECT INBOX"), c.send("a UID FETCH 1:3 BODY.PEEK[]\r\n"))
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, c.in, 5000)
	return err
}

func (s *soak) wrongPassword(w *worker) error {
	thief := *w
	thief.token = "wrong"
	c, err := thief.imap()
	if err == nil {
		c.Close()
		return errors.New("a wrong app password was let in")
	}
	return nil
}

func (s *soak) sort(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	m := message(w.mailbox, w.mailbox, "draft", "of a draft\r\n")
	err = c.send("a APPEND Drafts {%d+}\r\n%s\r\n", len(m), m)
	if err == nil {
		err = c.until("a OK")
	}
	return errors.Join(err, c.imap("SELECT Drafts"), c.imap(`STORE 1:* +FLAGS.SILENT (\Deleted)`), c.imap("EXPUNGE"), c.logout())
}

// lockedOut: a lock on him, for a moment, ends his session.
func (s *soak) lockedOut(w *worker) error {
	c, err := w.imap()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := errors.Join(c.imap("SELECT INBOX"), c.idle()); err != nil {
		return err
	}
	var added httpapi.LockAdded
	err = s.request(http.MethodPost, "locks", httpapi.LockInput{Target: broker.LockAgent, Name: w.name, Message: "A test."}, &added)
	if err != nil {
		return err
	}
	// On a busy machine it may be reset before it took its BYE.
	_, _ = io.Copy(io.Discard, c.in)
	return s.request(http.MethodDelete, "locks/"+string(added.Lock.ID), nil, nil)
}

// refused: while the provider is away, nobody gets in, and each is told so.
func (s *soak) refused(t *testing.T) {
	t.Helper()
	for _, w := range s.workers {
		if c, err := w.imap(); err == nil {
			c.Close()
			t.Errorf("%s got in without a provider", w.name)
		}
	}
}

// spoilt: the provider refuses a mailbox's credential for a while.
func (s *soak) spoilt(t *testing.T) {
	t.Helper()
	w := s.insider
	right := s.world.Password(w.mailbox)
	s.world.Dovecot.SetPassword(w.mailbox, "changed elsewhere")
	if c, err := w.imap(); err == nil {
		c.Close()
		t.Error("a refused credential opened the mailbox")
	}
	s.world.Dovecot.SetPassword(w.mailbox, right)
	if c, err := w.imap(); err != nil {
		t.Errorf("with the right password again: %v", err)
	} else if err := c.logout(); err != nil {
		t.Error(err)
	}
}
