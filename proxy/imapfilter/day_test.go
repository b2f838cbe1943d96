// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// clientReIdles is when mail programs renew IDLE (RFC 2177), upstreamDrops
	// when servers end one that was not, and natForgets when a router forgets a
	// connection that says nothing (RFC 5382 §5 wants two hours; many are far
	// from it).
	clientReIdles = 29 * time.Minute
	upstreamDrops = 29 * time.Minute
	natForgets    = 5 * time.Minute
	// mailEvery is between new messages.
	mailEvery = 50 * time.Minute
)

// idlers is an upstream that answers, tells of new messages in IDLE, and says
// when an IDLE went on for too long.
type idlers struct {
	conn    net.Conn
	peer    *peer
	renewed int
	tooLong time.Duration
	told    int
}

// serve runs until the connection ends.
func (u *idlers) serve() {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for {
			s, err := u.peer.r.ReadString('\n')
			if err != nil {
				return
			}
			lines <- strings.TrimSuffix(s, "\r\n")
		}
	}()
	mail := time.NewTicker(mailEvery)
	defer mail.Stop()
	idling, began := "", time.Time{}
	for {
		select {
		case <-mail.C:
			if idling != "" {
				u.told++
				fmt.Fprintf(u.conn, "* %d EXISTS\r\n", u.told)
			}
		case line, ok := <-lines:
			if !ok {
				return
			}
			tag, rest, _ := strings.Cut(line, " ")
			switch {
			case rest == "IDLE":
				idling, began = tag, time.Now()
				u.renewed++
				fmt.Fprint(u.conn, "+ idling\r\n")
			case line == "DONE":
				u.tooLong = max(u.tooLong, time.Since(began))
				fmt.Fprintf(u.conn, "%s OK done\r\n", idling)
				idling = ""
			default:
				fmt.Fprintf(u.conn, "%s OK done\r\n", tag)
			}
		}
	}
}

// TestIdleAllDay: a client in IDLE for 24 hours, of a clock that is turned.
// The upstream never has a reason to drop it, no router to forget it; it is told
// of each message, and in the end holds what it held in the beginning.
func TestIdleAllDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &idlers{}
		near, far := net.Pipe()
		u.conn, u.peer = far, newPeer(t, far)
		served := make(chan struct{})
		go func() { defer close(served); u.serve() }()
		gate := &fakeGate{dial: func(context.Context) (*broker.IMAPConn, error) {
			return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "IDLE"}}, nil
		}}
		rig := newRig(t, gate)
		client, server := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer close(over)
			rig.filter.ServeConn(context.Background(), newServerConn(server))
			server.Close()
		}()
		c := newPeer(t, client)
		c.expect("* OK [CAPABILITY ")
		c.send("l LOGIN box@firm.example secret")
		c.expect("l OK [CAPABILITY ")

		heard := make(chan string)
		go func() {
			defer close(heard)
			_ = client.SetReadDeadline(time.Time{})
			for {
				s, err := c.r.ReadString('\n')
				if err != nil {
					return
				}
				heard <- s
			}
		}()
		_ = client.SetWriteDeadline(time.Time{})
		say := func(s string) {
			if _, err := io.WriteString(client, s); err != nil {
				t.Error(err)
			}
		}
		say("i IDLE\r\n")
		var early, late runtime.MemStats
		var goroutines int
		begin, last, told := time.Now(), time.Now(), 0
		reIdle := time.NewTicker(clientReIdles)
		defer reIdle.Stop()
		hour := time.NewTimer(time.Hour)
		for time.Since(begin) < 24*time.Hour {
			select {
			case s, ok := <-heard:
				if !ok {
					t.Fatalf("the session ended after %v: %v", time.Since(begin), gate.last().endReason())
				}
				if silent := time.Since(last); silent > natForgets {
					t.Errorf("the client heard nothing for %v", silent)
				}
				last = time.Now()
				if strings.HasSuffix(s, " EXISTS\r\n") {
					told++
				}
			case <-reIdle.C:
				go say("DONE\r\ni IDLE\r\n") // who reads meanwhile is this goroutine
			case <-hour.C:
				goroutines = runtime.NumGoroutine()
				runtime.GC()
				runtime.ReadMemStats(&early)
			}
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines, %d after an hour", n, goroutines)
		}
		runtime.GC()
		runtime.ReadMemStats(&late)
		if late.HeapAlloc > early.HeapAlloc+64<<10 {
			t.Errorf("%d octets of heap, %d after an hour", late.HeapAlloc, early.HeapAlloc)
		}
		client.Close()
		for range heard {
		}
		<-over
		<-served
		if u.tooLong >= upstreamDrops {
			t.Errorf("an IDLE went on for %v upstream", u.tooLong)
		}
		if told == 0 || told != u.told {
			t.Errorf("the client was told of %d messages, and there were %d", told, u.told)
		}
		t.Logf("IDLE was begun %d times upstream, the longest took %v; %d messages told", u.renewed, u.tooLong, told)
	})
}

// TestSilentClientIsEnded: one that says nothing in IDLE has 31 minutes.
func TestSilentClientIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		u := &idlers{conn: far, peer: newPeer(t, far)}
		served := make(chan struct{})
		go func() { defer close(served); u.serve() }()
		gate := &fakeGate{dial: func(context.Context) (*broker.IMAPConn, error) {
			return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "IDLE"}}, nil
		}}
		rig := newRig(t, gate)
		client, server := net.Pipe()
		over := make(chan struct{})
		go func() {
			defer close(over)
			rig.filter.ServeConn(context.Background(), newServerConn(server))
			server.Close()
		}()
		c := newPeer(t, client)
		c.expect("* OK [CAPABILITY ")
		c.send("l LOGIN box@firm.example secret")
		c.expect("l OK [CAPABILITY ")
		begin := time.Now()
		c.send("i IDLE")
		_ = client.SetReadDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, client)
		<-over
		<-served
		if took := time.Since(begin); took < silence || took > silence+time.Minute {
			t.Errorf("ended after %v", took)
		}
		if got := gate.last().endReason(); got != broker.EndIdle {
			t.Errorf("ended for %q", got)
		}
	})
}
