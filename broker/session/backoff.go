// SPDX-License-Identifier: Apache-2.0

package session

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// backoff counts failures by where they came from: the certificate if there
// was one, else the address, of which IPv6 counts by /64 since every host has
// that many; and refusals by the agent, who is known. It delays the answer to
// a failed attempt and nothing else, so
// nobody's failures can keep out a valid token. The table is bounded: the
// source that failed longest ago is forgotten first.
type backoff struct {
	mu      sync.Mutex
	sources map[string]*list.Element
	recent  *list.List // of *source, the last to fail first
}

type source struct {
	key      string
	failures int
	last     time.Time
}

func newBackoff() *backoff {
	return &backoff{sources: make(map[string]*list.Element), recent: list.New()}
}

// sourceOf names where an attempt came from.
func sourceOf(pin string, addr netip.Addr) string {
	if pin != "" {
		return pin
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if prefix, err := addr.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return addr.String()
}

// fail counts a failure and returns how long its answer is to be delayed. One
// failure is forgotten for every forgetInterval without one.
func (b *backoff) fail(key string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.sources[key]
	if e == nil {
		e = b.recent.PushFront(&source{key: key})
		b.sources[key] = e
		if len(b.sources) > maxSources {
			oldest := b.recent.Back()
			delete(b.sources, b.recent.Remove(oldest).(*source).key)
		}
	}
	b.recent.MoveToFront(e)
	s := e.Value.(*source)
	if quiet := now.Sub(s.last); quiet > 0 {
		s.failures = max(0, s.failures-int(min(quiet/forgetInterval, maxSources)))
	}
	s.last = now
	delay := firstDelay << min(s.failures, 10)
	if delay >= longestDelay {
		// More failures would only take longer to forget.
		return longestDelay
	}
	s.failures++
	return delay
}
