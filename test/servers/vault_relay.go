// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// delayRelay passes TCP connections on to a target that may change or vanish,
// and can keep back what the target sends.
type delayRelay struct {
	listener net.Listener
	accepted atomic.Int64
	// cut breaks the next connection that would pass on an answer.
	cut atomic.Bool
	wg  sync.WaitGroup

	mu      sync.Mutex
	target  string
	delay   time.Duration
	changed chan struct{} // closed, and replaced, when delay changes
	open    map[net.Conn]bool
	closed  bool
}

func startDelayRelay(t testing.TB) *delayRelay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &delayRelay{listener: listener, changed: make(chan struct{}), open: make(map[net.Conn]bool)}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		listener.Close()
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		r.setTarget("")
		r.wg.Wait()
	})
	return r
}

func (r *delayRelay) addr() string { return r.listener.Addr().String() }

// setTarget changes where connections go; those open now are broken. ""
// breaks new ones too.
func (r *delayRelay) setTarget(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = addr
	for c := range r.open {
		c.Close()
	}
	r.wake(0)
}

func (r *delayRelay) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake(d)
}

func (r *delayRelay) wake(d time.Duration) {
	r.delay = d
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *delayRelay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		r.wg.Go(func() { r.serve(c) })
	}
}

// track notes a connection; false: the relay has closed, and so has it.
func (r *delayRelay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
		return false
	}
	r.open[c] = true
	return true
}

func (r *delayRelay) untrack(c net.Conn) {
	c.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

func (r *delayRelay) serve(client net.Conn) {
	if !r.track(client) {
		return
	}
	defer r.untrack(client)
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	if target == "" {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil || !r.track(server) {
		return
	}
	defer r.untrack(server)
	r.wg.Go(func() {
		defer client.Close()
		defer server.Close()
		r.pass(client, server, false)
	})
	r.pass(server, client, true)
}

// pass copies from one side to the other until either closes. Answers wait,
// and may be cut off instead.
func (r *delayRelay) pass(from, to net.Conn, answers bool) {
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			// Application data (type 23): no answer to a handshake on a new
			// connection is taken for one.
			if answers && buf[0] == 23 && r.cut.CompareAndSwap(true, false) {
				return
			}
			if answers {
				r.wait()
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait holds an answer back for as long as the delay is at the time.
func (r *delayRelay) wait() {
	start := time.Now()
	for {
		r.mu.Lock()
		left, changed := r.delay-time.Since(start), r.changed
		r.mu.Unlock()
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		}
	}
}
