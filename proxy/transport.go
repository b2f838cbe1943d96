// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// transport sits between the accepted connection and TLS. It gives back the
// octets that were read together with the PROXY header, keeps deadlines from
// reaching past the limit that holds before authentication, and joins TLS
// records into one write while it is corked.
type transport struct {
	net.Conn // as accepted
	remote   net.Addr
	buffers  *sync.Pool // of *[]byte with capacity corkedOctets

	// rest is used by the reading goroutine alone.
	rest []byte

	// hello is called when the client has begun a handshake, and what it sets
	// beforeWrite to, when the server's part is computed. Both belong to the
	// goroutine of the handshake, and are nil otherwise.
	hello       func(ctx context.Context) error
	beforeWrite func()

	// mu guards the deadlines. It is never held during I/O.
	mu                        sync.Mutex
	readBy, writeBy, limit    time.Time
	readTimeout, writeTimeout time.Duration

	// sending is since when a write to the socket is under way, in Unix
	// nanoseconds; 0: none is.
	sending atomic.Int64

	// wmu keeps writes in order: crypto/tls serialises its own, but Uncork
	// comes from outside. A write to a slow client holds it, so nothing that
	// must not wait takes it.
	wmu    sync.Mutex
	corked *[]byte
}

func newBufferPool() *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, 0, corkedOctets)
		return &b
	}}
}

func (t *transport) RemoteAddr() net.Addr { return t.remote }

func (t *transport) Read(b []byte) (int, error) {
	if len(t.rest) > 0 {
		n := copy(b, t.rest)
		t.rest = t.rest[n:]
		if len(t.rest) == 0 {
			t.rest = nil
		}
		return n, nil
	}
	t.mu.Lock()
	if t.readTimeout > 0 {
		t.readBy = time.Now().Add(t.readTimeout)
		_ = t.Conn.SetReadDeadline(earlier(t.readBy, t.limit)) // a closed connection fails the read
	}
	t.mu.Unlock()
	return t.Conn.Read(b)
}

func (t *transport) Write(b []byte) (int, error) {
	if f := t.beforeWrite; f != nil {
		f()
	}
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if t.corked == nil {
		return t.send(b)
	}
	if len(*t.corked)+len(b) > cap(*t.corked) {
		if err := t.flush(); err != nil {
			return 0, err
		}
		if len(b) > cap(*t.corked) {
			return t.send(b)
		}
	}
	*t.corked = append(*t.corked, b...)
	return len(b), nil
}

func (t *transport) cork() {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if t.corked == nil {
		t.corked = t.buffers.Get().(*[]byte)
	}
}

func (t *transport) uncork() error {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	if t.corked == nil {
		return nil
	}
	err := t.flush()
	t.giveBack()
	return err
}

// giveBack ends the corking; wmu is held.
func (t *transport) giveBack() {
	t.buffers.Put(t.corked)
	t.corked = nil
}

// finish sends what is corked and then TCP's FIN.
func (t *transport) finish() error {
	t.wmu.Lock()
	defer t.wmu.Unlock()
	tcp, ok := t.Conn.(*net.TCPConn)
	if t.corked != nil {
		b := *t.corked
		*t.corked = b[:0]
		var err error
		if ok {
			err = writeMore(tcp, b)
		} else if len(b) > 0 {
			_, err = t.Conn.Write(b)
		}
		t.giveBack()
		if err != nil {
			return err
		}
	}
	if h, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// flush sends what is corked; wmu is held.
func (t *transport) flush() error {
	b := *t.corked
	*t.corked = b[:0]
	if len(b) == 0 {
		return nil
	}
	_, err := t.send(b)
	return err
}

func (t *transport) send(b []byte) (int, error) {
	now := time.Now()
	t.mu.Lock()
	if t.writeTimeout > 0 {
		t.writeBy = now.Add(t.writeTimeout)
		_ = t.Conn.SetWriteDeadline(t.writeDeadline()) // as in Read
	}
	t.mu.Unlock()
	t.sending.Store(now.UnixNano())
	defer t.sending.Store(0)
	return t.Conn.Write(b)
}

func (t *transport) SetDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readBy, t.writeBy = at, at
	return t.apply()
}

func (t *transport) SetReadDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readBy = at
	return t.Conn.SetReadDeadline(earlier(at, t.limit))
}

func (t *transport) SetWriteDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writeBy = at
	return t.Conn.SetWriteDeadline(t.writeDeadline())
}

// setTimeouts makes each read and each write have a deadline of its own; a
// timeout of 0 leaves that direction to the deadlines that are set by hand.
func (t *transport) setTimeouts(read, write time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readTimeout, t.writeTimeout = read, write
}

// setLimit sets the instant that no deadline reaches past; zero: none.
func (t *transport) setLimit(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = at
	_ = t.apply() // as in Read
}

// apply puts the deadlines into force; mu is held.
func (t *transport) apply() error {
	if err := t.Conn.SetReadDeadline(earlier(t.readBy, t.limit)); err != nil {
		return err
	}
	return t.Conn.SetWriteDeadline(t.writeDeadline())
}

// writeDeadline leaves time to say goodbye when the limit has ended a read;
// mu is held.
func (t *transport) writeDeadline() time.Time {
	if t.limit.IsZero() {
		return t.writeBy
	}
	return earlier(t.writeBy, t.limit.Add(killGrace))
}

// earlier returns the earlier of two deadlines, where zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
