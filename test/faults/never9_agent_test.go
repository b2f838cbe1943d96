// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/test/servers"
)

const (
	// budget is of a mailbox's connections, by default, without the one that
	// is reserved; fair is what one of two agents has of it.
	budget = 9
	fair   = budget / 2
	// gluttonSize is of each message that a glutton asks for: all of them
	// together are far more than the buffers between hold.
	gluttonSize = 8 << 20
	// most is what a login may take while others misbehave.
	most = 10 * time.Second
)

// TestNever9OneAgentStarvesNobody: one agent's failures delay him alone, and
// whatever he does with a mailbox's connections, his colleagues get their share
// of it, and other mailboxes are as they were.
func TestNever9OneAgentStarvesNobody(t *testing.T) {
	o := newOffice(t, 2*mailboxCount, "")
	shared := o.insider.mailbox
	o.world.Dovecot.Fill(shared, "Archive", 4, func(i int) []byte { return bulk(fmt.Sprintf("huge-%d", i), gluttonSize) })
	o.work(t, 1)
	calm := o.work(t, 1)
	t.Run("failures", func(t *testing.T) { o.failures(t, calm) })
	for name, excess := range map[string]func(ctx context.Context, c *line){
		"not reading": func(ctx context.Context, c *line) {
			_ = c.send("a SELECT Archive\r\nb FETCH 1:* BODY.PEEK[]\r\nc CLOSE\r\n") // CLOSE waits for the answers
			<-ctx.Done()
		},
		"reading slowly": func(ctx context.Context, c *line) {
			_ = c.send("a SELECT Archive\r\nb FETCH 1:* BODY.PEEK[]\r\nc CLOSE\r\n")
			b := make([]byte, 1024)
			for ctx.Err() == nil {
				if _, err := c.in.Read(b); err != nil {
					return
				}
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		},
		"reading all there is": func(ctx context.Context, c *line) {
			if c.imap("SELECT Archive") != nil {
				return
			}
			for ctx.Err() == nil && c.imap("FETCH 1:* BODY.PEEK[]") == nil {
			}
		},
		"an endless literal": func(ctx context.Context, c *line) {
			_ = c.send("a APPEND Drafts {1000000+}\r\nSubject: ")
			for ctx.Err() == nil && c.send("x") == nil {
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) { o.gluttony(t, calm, excess) })
	}
	t.Run("half-sent messages", o.hoarding)
	m := readMetrics(t, o.world.Postern)
	if n := m.sum("postern_session_ends_total", `reason="budget"`); n == 0 {
		t.Error("no session made room for another, by the metrics")
	}
}

// failures: a hostile agent tries wrong app passwords at both services, on as
// many connections as he may have.
func (o *office) failures(t *testing.T, calm *timings) {
	ctx, cancel := context.WithCancel(t.Context())
	var attack sync.WaitGroup
	var tried atomic.Int64
	var slowest atomic.Int64
	thief := *o.insider
	thief.token = strings.Repeat("x", len(thief.token))
	for i := range 40 {
		attack.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				login := thief.imap
				if i%2 == 0 {
					login = thief.smtp
				}
				if c, err := login(); err == nil {
					c.Close()
					t.Error("a wrong app password was let in")
					return
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(began))))
				tried.Add(1)
			}
		})
	}
	servers.WaitFor(t, patience, func() bool { return time.Duration(slowest.Load()) > 3*time.Second }, "the failures to be slowed down")
	o.work(t, 2).compare(t, calm)
	// The hostile agent's own, right token is not delayed either: somebody who
	// has his workstation must not lock him out.
	began := time.Now()
	c, err := o.insider.imap()
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > most/2 {
		t.Errorf("a valid token waited %v", took)
	}
	if err := c.logout(); err != nil {
		t.Error(err)
	}
	m := readMetrics(t, o.world.Postern)
	if n := m.sum("postern_auth_failures_total", ""); n == 0 {
		t.Error("the metrics tell of no failure")
	}
	cancel()
	attack.Wait()
	t.Logf("%d failures; the slowest answer took %v", tried.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
}

// gluttony: a hostile agent takes all connections that a mailbox may have, and
// keeps each busy.
func (o *office) gluttony(t *testing.T, calm *timings, excess func(context.Context, *line)) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var attack sync.WaitGroup
	defer attack.Wait()
	defer cancel()
	before := measure(t, o.world.Postern)
	for i := range budget {
		c, err := o.insider.imap()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		attack.Go(func() { excess(ctx, c) })
	}
	o.share(t, (*worker).imap)
	o.work(t, 1).compare(t, calm)
	after := measure(t, o.world.Postern)
	t.Logf("before: %v; during: %v", before, after)
	if grown := after.resident - before.resident; grown > budget*gluttonSize {
		t.Errorf("the server grew by %d octets: it holds what nobody reads", grown)
	}
}

// hoarding: a hostile agent takes all connections for sending, and leaves a
// message half sent on each.
func (o *office) hoarding(t *testing.T) {
	for i := range budget + 1 {
		c, err := o.insider.smtp()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		for _, step := range []struct{ code, text string }{
			{"250", "MAIL FROM:<" + o.insider.mailbox + ">"}, {"250", "RCPT TO:<" + o.insider.mailbox + ">"}, {"354", "DATA"},
		} {
			if err := c.smtp(step.code, "%s", step.text); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.send("Subject: half\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	o.share(t, (*worker).smtp)
}

// share has a colleague on the same mailbox take his part of it.
func (o *office) share(t *testing.T, login func(*worker) (*line, error)) {
	t.Helper()
	colleague := o.workers[0]
	if colleague.mailbox != o.insider.mailbox {
		t.Fatal("he is on another mailbox")
	}
	for i := range fair {
		began := time.Now()
		c, err := login(colleague)
		if err != nil {
			t.Fatalf("the colleague got %d connections, and then: %v", i, err)
		}
		defer c.Close()
		if took := time.Since(began); took > most {
			t.Errorf("his connection %d took %v", i, took)
		}
	}
}

// TestNever9FloodOfHandshakes: strangers who begin handshakes as fast as they
// can, and leave them half done, from the agents' own address as well.
func TestNever9FloodOfHandshakes(t *testing.T) {
	const places = 200
	o := newOffice(t, 2*mailboxCount, "")
	o.work(t, 1)
	calm := o.work(t, 2)
	before := measure(t, o.world.Postern)
	hello := clientHello(t, o.staff)
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var begun atomic.Int64
	for i := range places {
		from := fmt.Sprintf("127.0.0.%d", 1+i%4)
		flood.Go(func() {
			for ctx.Err() == nil {
				c, err := dialFrom(from, o.world.Postern.IMAPSPort)
				if err != nil {
					continue // its place went before it was connected
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				if _, err := c.Write(hello); err == nil {
					begun.Add(1)
					// Half of them end what the server computed for.
					_, _ = io.ReadFull(c, make([]byte, 1))
					if i%2 == 0 {
						_ = c.SetReadDeadline(time.Now().Add(time.Second))
						_, _ = io.Copy(io.Discard, c)
					}
				}
				stop()
				c.Close()
			}
		})
	}
	servers.WaitFor(t, patience, func() bool { return begun.Load() > 5*places }, "the flood to rise")
	began, handshakes := time.Now(), begun.Load()
	o.work(t, 2).compare(t, calm)
	rate := float64(begun.Load()-handshakes) / time.Since(began).Seconds()
	cancel()
	flood.Wait()
	t.Logf("%.0f handshakes begun a second", rate)
	o.rested(t, before)
}

// TestNever9OutOfDescriptors: a process that has no descriptors left serves
// those who are in, and lets agents in when strangers have gone.
func TestNever9OutOfDescriptors(t *testing.T) {
	o := newOffice(t, mailboxCount, "")
	p := o.world.Postern
	live, err := o.workers[0].imap()
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	before := measure(t, p)
	var limit unix.Rlimit
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(before.descriptors + 20), Max: limit.Max}, nil); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		c, err := dialFrom("127.0.0.2", p.IMAPSPort)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// Nothing tells from outside but the log: a request for metrics takes a
	// descriptor.
	servers.WaitFor(t, patience, func() bool { return strings.Contains(string(p.Logs()), "accept failed") }, "the descriptors to run out")
	if err := live.imap("SELECT INBOX"); err != nil {
		t.Errorf("a live session: %v", err)
	}
	if err := live.imap("UID FETCH 1:3 (BODY.PEEK[])"); err != nil {
		t.Errorf("a live session: %v", err)
	}
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	o.work(t, 1)
	m := readMetrics(t, p)
	if m.sum("postern_proxy_accept_failures_total", "") == 0 {
		t.Error("the metrics tell of no failure to accept")
	}
	if m.sum("postern_proxy_connections_evicted_total", `cause="accept-failed"`) == 0 {
		t.Error("no stranger made room")
	}
	if err := live.logout(); err != nil {
		t.Error(err)
	}
}
