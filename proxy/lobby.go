// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"container/heap"
	"container/list"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Lobby holds the places of connections that are not authenticated yet. One
// lobby serves all listeners of a process.
//
// A newcomer always gets in, and when there is no place left another goes:
//
//   - the oldest of the newcomer's own, when they are too many for one owner;
//   - else the oldest of whoever holds the most, if that is more than a
//     quarter of what one may: a flood from few addresses pushes out itself;
//   - else the oldest of all: against a flood from many addresses, an office
//     full of agents behind one address must not count as the greediest.
//
// To refuse newcomers instead would let a stranger hold every place by saying
// nothing. This way an honest client, which needs its place only for the few
// round trips of a handshake, keeps it unless more strangers than there are
// places come in that time.
//
// There are four rooms, in which a connection counts one after the other, and
// in each against its like alone: who has not yet said enough to begin a
// handshake; who has, and waits for it to be computed; whose handshake was
// computed, at the pace that the processors allow; who has shown a verified
// certificate. So connections that say nothing, or an octet at a time, push out
// none that speaks, not even one from their own address.
type Lobby struct {
	limits  Limits
	metrics *metrics

	// turns are the handshakes' to compute.
	turns turns

	mu sync.Mutex
	// Those of the certified belong to their key, all others to their address.
	strangers, waiting, shaking, certified room
}

// LobbyConfig is what NewLobby needs.
type LobbyConfig struct {
	Limits     Limits
	Registerer prometheus.Registerer
}

// NewLobby makes a lobby. The error is the Registerer's.
func NewLobby(config LobbyConfig) (*Lobby, error) {
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, err
	}
	limits := config.Limits.withDefaults()
	return &Lobby{
		limits:    limits,
		metrics:   m,
		turns:     newTurns(runtime.GOMAXPROCS(0)),
		strangers: newRoom("stranger", limits.Pending, limits.PendingPerAddress),
		waiting:   newRoom("hello", limits.Pending, limits.PendingPerAddress),
		shaking:   newRoom("handshake", limits.Pending, limits.PendingPerAddress),
		certified: newRoom("certificate", limits.Pending, limits.PendingPerCertificate),
	}, nil
}

// place is one connection's in the lobby, guarded by Lobby.mu.
type place struct {
	// evict is called without the lock, once the place is gone.
	evict func(cause string)
	room  *room // nil: it left, or was evicted
	owner *owner
	// ofRoom and ofOwner are where it stands in their queues.
	ofRoom, ofOwner *list.Element
	order           uint64
}

// enter takes a place for a connection from addr, and evicts another if need
// be.
func (l *Lobby) enter(addr netip.Addr, evict func(cause string)) *place {
	p := &place{evict: evict}
	l.put(p, &l.strangers, addressOwner(addr))
	return p
}

// advance moves a place to a room of addresses; false: it was evicted
// meanwhile.
func (l *Lobby) advance(p *place, r *room, addr netip.Addr) bool {
	return l.move(p, r, addressOwner(addr))
}

// certify moves a place to those of its certificate; false: it was evicted
// meanwhile.
func (l *Lobby) certify(p *place, leaf *x509.Certificate) bool {
	return l.move(p, &l.certified, sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
}

func (l *Lobby) move(p *place, r *room, key any) bool {
	if !l.leave(p) {
		return false
	}
	l.put(p, r, key)
	return true
}

// leave gives a place up; false: it was given up or evicted before.
func (l *Lobby) leave(p *place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.room == nil {
		return false
	}
	l.remove(p)
	return true
}

// relieve evicts the connection that would be the next to go, to free what it
// holds. It reports whether there was one.
func (l *Lobby) relieve(cause string) bool {
	for _, r := range []*room{&l.strangers, &l.waiting, &l.shaking} {
		l.mu.Lock()
		victim := r.next()
		if victim != nil {
			l.remove(victim)
		}
		l.mu.Unlock()
		if victim != nil {
			l.evicted(victim, r.class, cause)
			return true
		}
	}
	return false
}

func (l *Lobby) put(p *place, r *room, key any) {
	l.mu.Lock()
	r.add(p, key)
	l.metrics.pending.WithLabelValues(r.class).Inc()
	victim, cause := r.excess(p.owner)
	if victim != nil {
		l.remove(victim)
	}
	l.mu.Unlock()
	l.evicted(victim, r.class, cause)
}

func (l *Lobby) evicted(victim *place, class, cause string) {
	if victim == nil {
		return
	}
	l.metrics.evicted.WithLabelValues(class, cause).Inc()
	victim.evict(cause)
}

// remove takes p out of its room; mu is held.
func (l *Lobby) remove(p *place) {
	l.metrics.pending.WithLabelValues(p.room.class).Dec()
	p.room.remove(p)
}

// addressOwner is whose connections from addr are: an IPv4 address by itself,
// an IPv6 address by its /64, since one host has all of that.
func addressOwner(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr = addr.Unmap(); addr.Is4() {
		bits = 32
	}
	p, err := addr.WithZone("").Prefix(bits)
	if err != nil { // the zero Addr: all that have no address are one
		return netip.Prefix{}
	}
	return p
}

// room is a class of places.
type room struct {
	class           string
	total, perOwner int

	arrivals  uint64
	queue     list.List // of *place, oldest first
	owners    map[any]*owner
	greediest ownerHeap
}

// owner is whoever holds places in a room.
type owner struct {
	key   any
	queue list.List // of *place, oldest first
	index int       // in the heap
}

func (o *owner) oldest() *place { return o.queue.Front().Value.(*place) }

func newRoom(class string, total, perOwner int) room {
	return room{class: class, total: total, perOwner: perOwner, owners: make(map[any]*owner)}
}

func (r *room) add(p *place, key any) {
	o := r.owners[key]
	isNew := o == nil
	if isNew {
		o = &owner{key: key}
		r.owners[key] = o
	}
	r.arrivals++
	p.room, p.owner, p.order = r, o, r.arrivals
	p.ofRoom, p.ofOwner = r.queue.PushBack(p), o.queue.PushBack(p)
	if isNew {
		heap.Push(&r.greediest, o)
	} else {
		heap.Fix(&r.greediest, o.index)
	}
}

func (r *room) remove(p *place) {
	o := p.owner
	o.queue.Remove(p.ofOwner)
	r.queue.Remove(p.ofRoom)
	p.room, p.owner, p.ofRoom, p.ofOwner = nil, nil, nil, nil
	if o.queue.Len() > 0 {
		heap.Fix(&r.greediest, o.index)
		return
	}
	heap.Remove(&r.greediest, o.index)
	delete(r.owners, o.key)
}

// excess returns who must go after o took a place, and why; nil: nobody.
func (r *room) excess(o *owner) (*place, string) {
	switch {
	case o.queue.Len() > r.perOwner:
		return o.oldest(), "owner-full"
	case r.queue.Len() > r.total:
		return r.next(), "full"
	}
	return nil, ""
}

// next is who goes when there are too many in all; nil: nobody is there.
func (r *room) next() *place {
	switch {
	case r.queue.Len() == 0:
		return nil
	case r.greediest[0].queue.Len() > r.perOwner/greedyShare:
		return r.greediest[0].oldest()
	}
	return r.queue.Front().Value.(*place)
}

// ownerHeap has on top whoever holds the most places and, among equals,
// whose oldest connection is the oldest.
type ownerHeap []*owner

func (h ownerHeap) Len() int { return len(h) }

func (h ownerHeap) Less(i, j int) bool {
	if a, b := h[i].queue.Len(), h[j].queue.Len(); a != b || a == 0 {
		return a > b
	}
	return h[i].oldest().order < h[j].oldest().order
}

func (h ownerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *ownerHeap) Push(x any) {
	o := x.(*owner)
	o.index = len(*h)
	*h = append(*h, o)
}

// Pop is heap.Interface's.
func (h *ownerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
