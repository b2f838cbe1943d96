// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"time"

	"github.com/postern-mail/postern/broker"
	"go.uber.org/zap"
)

// Run commits what is queued, until ctx ends; then it refuses whatever is
// submitted from then on, commits what is still queued, and returns nil.
// Producers must be done before, or their last events are refused. It is
// called once.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	again := l.running || l.closed
	l.running = true
	l.mu.Unlock()
	if again {
		return errors.New("audit: Run was called twice")
	}
	for ctx.Err() == nil {
		b := l.take()
		if b == nil {
			select {
			case <-l.wake:
			case <-ctx.Done():
			}
			continue
		}
		l.commit(b)
	}
	l.close()
	for b := l.take(); b != nil; b = l.take() {
		l.commit(b)
	}
	return nil
}

// close refuses all submissions from now on.
func (l *Log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.makeRoom() // those who wait for it learn that there will be none
}

// makeRoom wakes those who wait for room. l.mu is held.
func (l *Log) makeRoom() {
	close(l.room)
	l.room = make(chan struct{})
	l.muted = false
}

// take removes the first batch from the queue; nil when there is none.
func (l *Log) take() *batch {
	l.gather()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	b := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.queued -= len(b.events)
	l.makeRoom()
	l.health.committing = l.cfg.Now()
	return b
}

// gather waits for the first batch to fill up, for MaxDelay at most, while the
// log is busy: a commit costs as much for one event as for many. An event that
// comes alone is committed at once.
func (l *Log) gather() {
	if l.cfg.MaxDelay == 0 || time.Since(l.committed) > busyFor {
		return
	}
	l.mu.Lock()
	if len(l.queue) == 0 || l.closed {
		l.mu.Unlock()
		return
	}
	filled := l.queue[0].filled
	l.mu.Unlock()
	timer := time.NewTimer(l.cfg.MaxDelay)
	defer timer.Stop()
	select {
	case <-filled:
	case <-timer.C:
	}
}

// commit makes a batch durable and settles its receipt.
func (l *Log) commit(b *batch) {
	start := 0
	for _, end := range b.ends {
		b.raw = append(b.raw, b.data[start:end:end])
		start = end
	}
	for i := range b.events {
		b.events[i].Data = &b.raw[i]
		b.refs = append(b.refs, &b.events[i])
	}
	events := b.refs
	defer l.keep(b)
	began := time.Now()
	// Not Run's context: what was queued before the end is still committed.
	// The store bounds its own time.
	err := l.cfg.Store.AppendEvents(context.Background(), events)
	if broker.CodeOf(err) == broker.Invalid && len(events) > 1 {
		err = l.rescue(events)
	}
	l.committed = time.Now()
	l.metrics.committed(len(events), l.committed.Sub(began), err)
	l.judge(err)
	if err != nil {
		l.log.Error("events were not recorded", zap.Int("events", len(events)),
			zap.String("first_id", string(events[0].ID)), zap.Error(err))
		b.settle(err)
		return
	}
	for i, owner := range b.owners {
		owner.Seq, owner.PolicyRevision = events[i].Seq, events[i].PolicyRevision
	}
	b.settle(nil)
}

// rescue stores, one by one, the events of a batch in which the store found
// one that it cannot store. What Submit lets pass the store should take, so
// this is a fault of Postern's, which must not cost the others their record.
// The whole batch shares a receipt, so its error goes to all.
func (l *Log) rescue(events []*broker.Event) error {
	var errs []error
	for _, e := range events {
		if err := l.cfg.Store.AppendEvents(context.Background(), []*broker.Event{e}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// judge keeps what Healthy tells.
func (l *Log) judge(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.health = health{}
	if err != nil {
		l.health.failed, l.health.cause = l.cfg.Now(), err
	}
}
