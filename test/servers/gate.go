// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// Hold keeps what comes to a gate waiting, until Release or Drop.
type Hold struct {
	mu                sync.Mutex
	waiting, crossing int
	dropped           bool
	over              chan struct{}
}

func newHold() *Hold { return &Hold{over: make(chan struct{})} }

// Waiting counts what waits.
func (h *Hold) Waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting
}

// Crossing counts what was released and has not ended yet.
func (h *Hold) Crossing() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.crossing
}

// Release lets go on what waits, and whatever comes from now on.
func (h *Hold) Release() { h.end(false) }

// Drop breaks the connections of what waits, unless it was released; whatever
// comes from now on passes.
func (h *Hold) Drop() { h.end(true) }

func (h *Hold) end(dropped bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.over:
		return
	default:
	}
	h.dropped = dropped
	if !dropped {
		h.crossing = h.waiting
	}
	close(h.over)
}

// wait waits until the hold is over or the client gives up, and reports whether
// to go on. Then ended is to be called.
func (h *Hold) wait(gaveUp <-chan struct{}) (goOn bool) {
	h.mu.Lock()
	select {
	case <-h.over: // it came too late to be kept
		h.crossing++
		h.mu.Unlock()
		return true
	default:
	}
	h.waiting++
	h.mu.Unlock()
	select {
	case <-h.over:
		h.mu.Lock()
		defer h.mu.Unlock()
		return !h.dropped
	case <-gaveUp:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting--
	select {
	case <-h.over:
		if !h.dropped {
			h.crossing--
		}
	default:
	}
	return false
}

func (h *Hold) ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crossing--
}

// Gate is a TCP proxy on loopback before a server that can keep connections
// waiting, of which the server knows nothing yet.
type Gate struct {
	// Port is where it listens, on 127.0.0.1.
	Port uint16

	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
	// clients are those who wait or were let through, most the most at once.
	clients, most int
	hold          *Hold
	when          func() bool
}

// NewGate listens on a free port and passes connections on to a port of
// 127.0.0.1, until the test is over.
func NewGate(t testing.TB, target uint16) *Gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{
		Port: uint16(l.Addr().(*net.TCPAddr).Port), target: fmt.Sprintf("127.0.0.1:%d", target),
		listener: l, open: make(map[net.Conn]bool),
	}
	g.work.Go(g.accept)
	t.Cleanup(g.close)
	return g
}

func (g *Gate) close() {
	g.listener.Close()
	g.mu.Lock()
	g.closed = true
	for c := range g.open {
		c.Close()
	}
	hold := g.hold
	g.mu.Unlock()
	if hold != nil {
		hold.Drop()
	}
	g.work.Wait()
}

// Hold keeps new connections waiting for which when holds; nil: all. It takes
// the place of the hold before, whose connections wait on.
func (g *Gate) Hold(when func() bool) *Hold {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.when = newHold(), when
	return g.hold
}

// Most is how many clients there were at once, at most.
func (g *Gate) Most() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.most
}

func (g *Gate) accept() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		g.work.Go(func() { g.serve(c) })
	}
}

func (g *Gate) track(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		c.Close()
		return false
	}
	g.open[c] = true
	return true
}

func (g *Gate) untrack(c net.Conn) {
	c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, c)
}

func (g *Gate) serve(client net.Conn) {
	if !g.track(client) {
		return
	}
	defer g.untrack(client)
	g.mu.Lock()
	hold, when := g.hold, g.when
	g.clients++
	g.most = max(g.most, g.clients)
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.clients--
		g.mu.Unlock()
	}()
	var early []byte
	if hold != nil && (when == nil || when()) {
		var goOn bool
		if early, goOn = keep(client, hold); !goOn {
			return
		}
		defer hold.ended()
	}
	server, err := net.Dial("tcp", g.target)
	if err != nil || !g.track(server) {
		return
	}
	defer g.untrack(server)
	if _, err := server.Write(early); err != nil {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server)
		client.Close()
	}()
	_, _ = io.Copy(server, client)
	server.Close()
	<-back
}

// keep keeps a client waiting, and returns what it has said meanwhile. One that
// closes its connection waits no longer.
func keep(client net.Conn, hold *Hold) (early []byte, goOn bool) {
	gone, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4<<10)
		for {
			n, err := client.Read(b)
			early = append(early, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil {
				close(gone)
				return
			}
		}
	}()
	goOn = hold.wait(gone)
	_ = client.SetReadDeadline(time.Now()) // a closed one needs none
	<-read
	_ = client.SetReadDeadline(time.Time{})
	return early, goOn
}
