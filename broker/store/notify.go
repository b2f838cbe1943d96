// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/broker"
)

// notifier calls the subscribers on one goroutine, in the order of tell.
type notifier struct {
	mu     sync.Mutex
	wake   *sync.Cond
	queue  []broker.Change
	last   int64 // the last revision that tell was given
	subs   []*subscriber
	closed bool
	done   chan struct{}
}

type subscriber struct {
	f func(broker.Change)
	// after is the revision at the time of Subscribe.
	after atomic.Int64
	// mu is held while f runs, so that cancel can wait for it.
	mu   sync.Mutex
	gone bool
}

func newNotifier() *notifier {
	n := &notifier{done: make(chan struct{})}
	n.wake = sync.NewCond(&n.mu)
	go n.run()
	return n
}

func (n *notifier) run() {
	defer close(n.done)
	for {
		n.mu.Lock()
		for len(n.queue) == 0 && !n.closed {
			n.wake.Wait()
		}
		changes, subs := n.queue, slices.Clone(n.subs)
		n.queue = nil
		closed := n.closed && len(changes) == 0
		n.mu.Unlock()
		if closed {
			return
		}
		for _, c := range changes {
			for _, sub := range subs {
				sub.call(c)
			}
		}
	}
}

func (sub *subscriber) call(c broker.Change) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if !sub.gone && c.Revision > sub.after.Load() {
		sub.f(c)
	}
}

// tell queues changes that were not told yet; it never waits for a subscriber.
// One that comes later than a younger one is left out: the younger one showed
// a gap, and whoever is told of it looks for himself.
func (n *notifier) tell(changes []broker.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range changes {
		if c.Revision > n.last {
			n.queue = append(n.queue, c)
			n.last = c.Revision
		}
	}
	n.wake.Signal()
}

// reached notes the revision that the policy has after notices were lost, and
// tells that something may have changed up to there. A lower one than before is
// that of another state, put in the place of the first.
func (n *notifier) reached(revision int64, at time.Time) {
	n.mu.Lock()
	if revision < n.last {
		n.last = revision - 1
		for _, sub := range n.subs {
			sub.after.Store(min(sub.after.Load(), n.last))
		}
	}
	n.mu.Unlock()
	n.tell([]broker.Change{{Revision: revision, At: at}})
}

func (n *notifier) subscribe(f func(broker.Change)) (cancel func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sub := &subscriber{f: f}
	sub.after.Store(n.last)
	n.subs = append(n.subs, sub)
	return func() {
		n.mu.Lock()
		n.subs = slices.DeleteFunc(n.subs, func(other *subscriber) bool { return other == sub })
		n.mu.Unlock()
		sub.mu.Lock()
		sub.gone = true
		sub.mu.Unlock()
	}
}

// close returns when everything queued was told.
func (n *notifier) close() {
	n.mu.Lock()
	n.closed = true
	n.wake.Signal()
	n.mu.Unlock()
	<-n.done
}

// Subscribe calls f after each commit, from then on: of this process, and with
// PostgreSQL of the other nodes. f must call neither cancel nor anything that
// waits for another call of f. What other processes commit to an SQLite file
// shows in PolicyRevision alone.
func (s *Store) Subscribe(f func(broker.Change)) (cancel func()) { return s.notifier.subscribe(f) }
