// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"
	"sync"

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
	after int64
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
	if !sub.gone && c.Revision > sub.after {
		sub.f(c)
	}
}

// tell queues changes; it never waits for a subscriber.
func (n *notifier) tell(changes []broker.Change) {
	if len(changes) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = append(n.queue, changes...)
	n.last = changes[len(changes)-1].Revision
	n.wake.Signal()
}

func (n *notifier) subscribe(f func(broker.Change)) (cancel func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sub := &subscriber{f: f, after: n.last}
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

// Subscribe calls f after each commit of this process, from then on. f must
// call neither cancel nor anything that waits for another call of f. What
// other processes commit shows in PolicyRevision alone.
func (s *Store) Subscribe(f func(broker.Change)) (cancel func()) { return s.notifier.subscribe(f) }
