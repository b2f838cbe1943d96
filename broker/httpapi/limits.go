// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Limits of the TLS listener. The Unix socket, behind which are root and the
// server's user, has none.
const (
	// maxConnections and maxConnectionsPerAddress bound open connections; an
	// address is an IPv4 address or an IPv6 /64.
	maxConnections           = 1024
	maxConnectionsPerAddress = 64
	// Before a token is looked at, an address may make this many requests a
	// second, after a burst.
	addressRate, addressBurst = 50, 200
	// failureRate is how many unknown tokens a minute an address may show,
	// after a burst. A good token is looked at first, so that it never pays for
	// another's failures.
	failureRate, failureBurst = 10.0 / 60, 20
	// personRate is what one person may do a second, after a burst.
	personRate, personBurst = 20, 200
	// renewalRate is how many certificates a second may be renewed for
	// one key, after a burst: each is signed, and on record.
	renewalRate, renewalBurst = 1.0 / 60 / 6, 20
	// maxLimited bounds how many keys a limiter remembers.
	maxLimited = 1 << 16
)

// limiter lets each key take its turns at a rate, after a burst: the generic
// cell rate algorithm (ITU-T I.371), which needs one instant for each.
type limiter struct {
	every, burst time.Duration

	mu sync.Mutex
	// due is when a key's turns that were taken would have been due.
	due map[string]time.Time
}

// newLimiter returns a limiter of rate turns a second.
func newLimiter(rate float64, burst int) *limiter {
	every := time.Duration(float64(time.Second) / rate)
	return &limiter{every: every, burst: every * time.Duration(burst), due: map[string]time.Time{}}
}

// take takes a turn, and returns 0, or else how long to wait for the next. The
// empty key is not limited.
func (l *limiter) take(key string, now time.Time) time.Duration {
	if l == nil || key == "" {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	due, known := l.due[key]
	if !known && len(l.due) >= maxLimited {
		l.forget(now)
	}
	if due.Before(now) {
		due = now
	}
	due = due.Add(l.every)
	if over := due.Sub(now) - l.burst; over > 0 {
		return over
	}
	l.due[key] = due
	return 0
}

// forget drops the keys that have all their turns again; when none has, all:
// a limiter that grows without bound would be worse than one that forgets.
func (l *limiter) forget(now time.Time) {
	for key, due := range l.due {
		if !due.After(now) {
			delete(l.due, key)
		}
	}
	if len(l.due) >= maxLimited {
		clear(l.due)
	}
}

// waitError is a limit's refusal, with how long it lasts.
type waitError struct {
	refusal *broker.Error
	wait    time.Duration
}

// Error returns the refusal's text.
func (e *waitError) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e *waitError) Unwrap() error { return e.refusal }

func tooMany(wait time.Duration) error {
	return &waitError{broker.Errorf(broker.Limit, "too many requests: try again in %s", wait.Round(time.Second)+time.Second), wait}
}

// addressOf is the key under which a client's address is limited.
func addressOf(addr net.Addr) string {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return addr.String()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}

// LimitConnections returns a listener that holds no more connections than this
// package allows, in all and from one address; those beyond are closed at once.
func LimitConnections(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, open: map[string]int{}}
}

type limitedListener struct {
	net.Listener
	mu   sync.Mutex
	all  int
	open map[string]int
}

// Accept returns the next connection within the limits.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		address := addressOf(c.RemoteAddr())
		if l.enter(address) {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(address) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limitedListener) enter(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConnections || l.open[address] >= maxConnectionsPerAddress {
		return false
	}
	l.all++
	l.open[address]++
	return true
}

func (l *limitedListener) leave(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[address]--; l.open[address] == 0 {
		delete(l.open, address)
	}
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
