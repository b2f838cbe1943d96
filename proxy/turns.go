// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// turns lets few handshakes compute at a time, since a handshake's server
// computes a hundred times what its client needs to ask for one. Unbounded, a
// flood of them would share the processors with the sessions that live, and
// each would take so long that none is done before its connection is pushed
// out.
//
// Addresses take turns, so that a flood delays its own address alone.
//
// A turn is held while the server computes, never while it waits for a client.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting map[netip.Prefix]*queue
	order   []*queue // whose turn is next
}

// queue is who waits at one address, in the order of arrival.
type queue struct {
	address netip.Prefix
	calls   []chan struct{}
}

func newTurns(n int) turns { return turns{free: n, waiting: make(map[netip.Prefix]*queue)} }

// take returns when it is the turn of a handshake from addr, or, at the limit at
// the latest, with ctx's error. A turn that was taken must be given back.
func (t *turns) take(ctx context.Context, limit time.Time, addr netip.Addr) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	call := make(chan struct{})
	t.enqueue(addressOwner(addr), call)
	t.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	select {
	case <-call:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	left := t.dequeue(addressOwner(addr), call)
	t.mu.Unlock()
	if !left { // it was called meanwhile
		t.give()
	}
	return context.Cause(ctx)
}

// give hands a turn on.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.free++
		return
	}
	q := t.order[0]
	t.order = t.order[1:]
	close(q.calls[0])
	if q.calls = q.calls[1:]; len(q.calls) > 0 {
		t.order = append(t.order, q)
	} else {
		delete(t.waiting, q.address)
	}
}

func (t *turns) enqueue(address netip.Prefix, call chan struct{}) {
	q := t.waiting[address]
	if q == nil {
		q = &queue{address: address}
		t.waiting[address] = q
		t.order = append(t.order, q)
	}
	q.calls = append(q.calls, call)
}

// dequeue reports whether call still waited.
func (t *turns) dequeue(address netip.Prefix, call chan struct{}) bool {
	q := t.waiting[address]
	if q == nil {
		return false
	}
	i := slices.Index(q.calls, call)
	if i < 0 {
		return false
	}
	if q.calls = slices.Delete(q.calls, i, i+1); len(q.calls) == 0 {
		delete(t.waiting, address)
		t.order = slices.DeleteFunc(t.order, func(o *queue) bool { return o == q })
	}
	return true
}
