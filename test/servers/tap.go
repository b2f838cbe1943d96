// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// Direction is the way octets flow through a Tap.
type Direction int

// The directions.
const (
	// ToServer is from whoever connected to the Tap, to the server behind it.
	ToServer Direction = iota
	// ToClient is the way back.
	ToClient
)

// FaultAction is what a Tap does when a Fault strikes.
type FaultAction int

// The actions.
const (
	// Cut closes the connection on both sides; the client sees a reset, the
	// server still gets what had passed.
	Cut FaultAction = iota
	// Stall leaves both sides open and passes nothing more in either
	// direction, until Release or Close.
	Stall
)

// Fault is a failure that a Tap makes once, on the first connection where its
// condition comes true.
type Fault struct {
	// Direction whose octets are watched, from when the fault is armed.
	Direction Direction
	// Pattern strikes when these octets are seen; if empty, the fault strikes
	// once AfterOctets octets have passed on one connection.
	Pattern     []byte
	AfterOctets int
	// Before holds the pattern itself back; otherwise its last octet is the
	// last that passes.
	Before bool
	Action FaultAction
}

// Tap is a TCP proxy on loopback between Postern and a server: it keeps every
// octet of each direction, and fails on command.
type Tap struct {
	// Port is where it listens, on 127.0.0.1.
	Port uint16

	t        testing.TB
	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu          sync.Mutex
	closed      bool
	delay       time.Duration
	fault       *armedFault
	released    chan struct{} // closed when stalled connections may go on
	seen        [2]bytes.Buffer
	connections []*tapped
}

type armedFault struct {
	Fault
	struck chan struct{}
}

// tapped is one connection through the Tap.
type tapped struct {
	client, server net.Conn
	// passed counts the octets per direction since a fault was armed, and tail
	// holds the last of them, in which its pattern may have begun. Both are
	// guarded by the Tap's mutex, and so is stalled: nil, or closed on release.
	passed  [2]int
	tail    [2][]byte
	stalled chan struct{}
	dead    chan struct{}
	once    sync.Once
}

// NewTap listens on a free port and passes connections to target, a
// "host:port", until the test is over.
func NewTap(t testing.TB, target string) *Tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap := &Tap{
		Port: uint16(l.Addr().(*net.TCPAddr).Port), t: t, target: target, listener: l,
		released: make(chan struct{}),
	}
	tap.work.Add(1)
	go tap.accept()
	t.Cleanup(tap.Close)
	return tap
}

// Close stops listening and ends every connection.
func (tap *Tap) Close() {
	tap.mu.Lock()
	tap.closed = true
	tap.mu.Unlock()
	tap.listener.Close()
	tap.CutAll()
	tap.work.Wait()
}

// Arm sets the fault to make next, in place of any that has not struck. The
// returned channel is closed when it strikes.
func (tap *Tap) Arm(f Fault) <-chan struct{} {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.fault = &armedFault{Fault: f, struck: make(chan struct{})}
	for _, c := range tap.connections {
		c.passed, c.tail = [2]int{}, [2][]byte{}
	}
	return tap.fault.struck
}

// SetDelay holds every chunk of octets back for d, in both directions.
func (tap *Tap) SetDelay(d time.Duration) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	tap.delay = d
}

// Release lets stalled connections go on.
func (tap *Tap) Release() {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	close(tap.released)
	tap.released = make(chan struct{})
}

// CutAll cuts every connection now.
func (tap *Tap) CutAll() {
	tap.mu.Lock()
	connections := tap.connections
	tap.connections = nil
	tap.mu.Unlock()
	for _, c := range connections {
		c.cut()
	}
}

// Seen returns a copy of all octets that passed in a direction, over all
// connections in the order of their passing.
func (tap *Tap) Seen(d Direction) []byte {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return bytes.Clone(tap.seen[d].Bytes())
}

// Connections returns how many connections are open.
func (tap *Tap) Connections() int {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return len(tap.connections)
}

func (tap *Tap) accept() {
	defer tap.work.Done()
	for {
		client, err := tap.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.DialTimeout("tcp", tap.target, startTimeout)
		if err != nil {
			client.Close()
			continue
		}
		c := &tapped{client: client, server: server, dead: make(chan struct{})}
		tap.mu.Lock()
		if tap.closed {
			tap.mu.Unlock()
			c.cut()
			return
		}
		tap.connections = append(tap.connections, c)
		tap.mu.Unlock()
		tap.work.Add(1)
		go tap.relay(c)
	}
}

// relay passes octets both ways until either side is done with its own.
func (tap *Tap) relay(c *tapped) {
	defer tap.work.Done()
	var both sync.WaitGroup
	both.Go(func() { tap.pass(c, ToServer, c.server, c.client) })
	both.Go(func() { tap.pass(c, ToClient, c.client, c.server) })
	both.Wait()
	c.close()
	tap.mu.Lock()
	defer tap.mu.Unlock()
	for i, other := range tap.connections {
		if other == c {
			tap.connections = append(tap.connections[:i:i], tap.connections[i+1:]...)
			break
		}
	}
}

func (tap *Tap) pass(c *tapped, d Direction, to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !tap.passChunk(c, d, to, buffer[:n]) {
			return
		}
		if err != nil {
			break
		}
	}
	// The other direction may still have something to say.
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// passChunk reports whether the connection still lives.
func (tap *Tap) passChunk(c *tapped, d Direction, to net.Conn, chunk []byte) bool {
	tap.mu.Lock()
	delay := tap.delay
	tap.mu.Unlock()
	if delay > 0 && !c.wait(time.After(delay)) {
		return false
	}
	if !tap.waitStalled(c) {
		return false
	}
	tap.mu.Lock()
	passing, fault := tap.judge(c, d, chunk)
	tap.seen[d].Write(chunk[:passing])
	tap.mu.Unlock()
	if _, err := to.Write(chunk[:passing]); err != nil {
		c.close()
		return false
	}
	if fault == nil {
		return true
	}
	close(fault.struck)
	if fault.Action == Cut {
		c.cut()
		return false
	}
	if !tap.waitStalled(c) {
		return false
	}
	return tap.passChunk(c, d, to, chunk[passing:])
}

// judge says how many octets of the chunk may pass before the armed fault
// strikes, if it does; a fault that strikes is disarmed. The mutex is held.
func (tap *Tap) judge(c *tapped, d Direction, chunk []byte) (passing int, struck *armedFault) {
	f := tap.fault
	if f == nil || f.Direction != d {
		return len(chunk), nil
	}
	end := f.AfterOctets - c.passed[d]
	if len(f.Pattern) > 0 {
		end = f.find(c.tail[d], chunk)
	}
	if end < 0 || end > len(chunk) {
		c.passed[d] += len(chunk)
		c.tail[d] = lastOctets(append(c.tail[d], chunk...), len(f.Pattern)-1)
		return len(chunk), nil
	}
	tap.fault = nil
	if f.Action == Stall {
		c.stalled = tap.released
	}
	return end, f
}

// find returns how much of the chunk passes before a pattern strikes that may
// have begun in tail; negative: there is none. Of a pattern that is held back
// what was in earlier chunks has passed already.
func (f *Fault) find(tail, chunk []byte) int {
	at := bytes.Index(append(bytes.Clone(tail), chunk...), f.Pattern)
	if at < 0 {
		return -1
	}
	if f.Before {
		return max(at-len(tail), 0)
	}
	return at + len(f.Pattern) - len(tail)
}

func lastOctets(b []byte, n int) []byte { return b[max(len(b)-max(n, 0), 0):] }

// waitStalled waits while the connection is stalled, and reports whether it
// still lives.
func (tap *Tap) waitStalled(c *tapped) bool {
	tap.mu.Lock()
	stalled := c.stalled
	tap.mu.Unlock()
	if stalled == nil {
		return true
	}
	select {
	case <-stalled:
		return true
	case <-c.dead:
		return false
	}
}

func (c *tapped) wait(when <-chan time.Time) bool {
	select {
	case <-when:
		return true
	case <-c.dead:
		return false
	}
}

func (c *tapped) close() {
	c.once.Do(func() { close(c.dead) })
	c.client.Close()
	c.server.Close()
}

// cut resets the client's side; the server's is closed in order, so that it
// reads everything that had passed.
func (c *tapped) cut() {
	if tcp, ok := c.client.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.close()
}

// Address returns where the Tap listens, as "127.0.0.1:port".
func (tap *Tap) Address() string { return fmt.Sprintf("127.0.0.1:%d", tap.Port) }
