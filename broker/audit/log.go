// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Limits and times.
const (
	// defaultQueue and defaultBatch are in events. A batch of 500 takes about
	// 15 ms, which is what an event waits at most while the store is well.
	defaultQueue = 32768
	defaultBatch = 500
	// maxKept is how many octets an idle encoder may hold on to, maxKeptBatch
	// an empty batch.
	maxKept      = 64 << 10
	maxKeptBatch = 256 << 10
	// busyFor is how long after a commit the log counts as busy.
	busyFor = 50 * time.Millisecond
	// stalledAfter is how long a commit may take before the log is unhealthy.
	stalledAfter = 5 * time.Second
	// unhealthyFor is how long a failure shows, if no success ends it. Were it
	// for ever, a node that is sent no sessions could not recover.
	unhealthyFor = 10 * time.Second
)

var _ broker.EventLog = (*Log)(nil)

// Config is what New needs.
type Config struct {
	// Store makes batches durable; required. It must not keep the events.
	Store broker.EventStore
	// Logger is required.
	Logger *zap.Logger
	// Registerer takes the metrics; nil: there are none to see.
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// QueueSize is how many events may wait; 0: 32768.
	QueueSize int
	// BatchSize is how many events one transaction holds at most; 0: 500.
	BatchSize int
	// MaxDelay lets a batch that is not full wait for more while the log is
	// busy; 0: none, since a batch gathers while the one before is committed.
	MaxDelay time.Duration
}

// Log batches events. Its methods may be called from any goroutine.
type Log struct {
	cfg     Config
	log     *zap.Logger
	kinds   map[broker.EventType]kind
	metrics *metrics
	encoded sync.Pool // of *encoder

	// committed is when the last commit ended; it belongs to Run's goroutine.
	committed time.Time

	// wake has room for one token: something was queued.
	wake chan struct{}

	mu      sync.Mutex
	queue   []*batch
	free    *batch          // one that is done with; nil: none
	queued  int             // events in queue
	last    *broker.Receipt // of the batch that took the last event; nil: none did
	room    chan struct{}   // closed and replaced when a batch leaves the queue
	muted   bool            // a refusal was logged since a batch last left the queue
	running bool
	closed  bool
	health  health
}

// health is what Healthy tells.
type health struct {
	committing time.Time // when the commit under way began; zero: none is
	failed     time.Time // when the last one failed; zero: it did not
	cause      error
}

// batch is what one transaction will hold.
type batch struct {
	receipt *broker.Receipt
	settle  func(error)
	// events are copies, with their data encoded in data up to ends[i]; owners
	// are what the producers gave, to tell them Seq.
	events []broker.Event
	owners []*broker.Event
	data   []byte
	ends   []int
	filled chan struct{} // closed when it has as many events as it may
	// raw and refs are commit's.
	raw  []json.RawMessage
	refs []*broker.Event
}

// newBatch returns an empty batch, with the memory of an earlier one if there
// is one. l.mu is held.
func (l *Log) newBatch() *batch {
	b := l.free
	if l.free = nil; b == nil {
		b = new(batch)
	}
	b.receipt, b.settle = broker.NewReceipt()
	b.filled = make(chan struct{})
	return b
}

// keep lets a batch that was settled be used again, unless it has grown large.
// The store keeps nothing of it.
func (l *Log) keep(b *batch) {
	if cap(b.data) > maxKeptBatch {
		return
	}
	clear(b.events)
	clear(b.owners)
	clear(b.raw)
	clear(b.refs)
	*b = batch{
		events: b.events[:0], owners: b.owners[:0], data: b.data[:0], ends: b.ends[:0], raw: b.raw[:0], refs: b.refs[:0],
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = b
}

// New makes a Log. It does nothing until Run is called: events queue up.
func New(cfg Config) (*Log, error) {
	if cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("audit: a store and a logger are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.QueueSize == 0 {
		cfg.QueueSize = defaultQueue
	}
	if cfg.BatchSize == 0 {
		cfg.BatchSize = defaultBatch
	}
	if cfg.QueueSize < 1 || cfg.BatchSize < 1 || cfg.MaxDelay < 0 {
		return nil, errors.New("audit: the queue and the batch hold at least one event, and a delay is not negative")
	}
	l := &Log{
		cfg:   cfg,
		log:   cfg.Logger,
		kinds: kinds(),
		wake:  make(chan struct{}, 1),
		room:  make(chan struct{}),
	}
	l.encoded.New = func() any { return newEncoder() }
	var err error
	l.metrics, err = newMetrics(cfg.Registerer, func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.queued)
	})
	return l, err
}

// Submit queues an event and returns at once. The event gets its ID and its
// Time here unless it has them; it belongs to the log until the receipt has
// settled, and then has its Seq.
//
// The receipt has failed already when the queue is full or the log was closed
// (Unavailable), and when the event cannot be recorded (Invalid).
func (l *Log) Submit(e *broker.Event) *broker.Receipt {
	enc := l.encoded.Get().(*encoder)
	defer l.release(enc)
	if err := l.encode(enc, e); err != nil {
		return failed(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(1); err != nil {
		l.refuse(err, 1)
		return failed(err)
	}
	return l.add(e, enc.octets(0)).receipt
}

// Append returns nil when the events are durable. They keep their order, and
// are next to each other in the queue; a batch may end between two of them.
// When the queue is full it waits for room until ctx ends: Unavailable. If any
// of the events cannot be recorded none is queued: Invalid.
//
// When ctx ends later, the events may be stored all the same.
func (l *Log) Append(ctx context.Context, events ...*broker.Event) error {
	if len(events) == 0 {
		return nil
	}
	if len(events) > l.cfg.QueueSize {
		return broker.InvalidField("events", "more than the queue holds")
	}
	enc := l.encoded.Get().(*encoder)
	defer l.release(enc)
	if err := l.encode(enc, events...); err != nil {
		return err
	}
	receipts, err := l.enqueue(ctx, enc, events)
	if err != nil {
		return err
	}
	for _, r := range receipts {
		if err := r.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Flush returns when whatever was submitted before it is durable or has failed,
// or when ctx ends.
func (l *Log) Flush(ctx context.Context) {
	l.mu.Lock()
	last := l.last
	l.mu.Unlock()
	if last == nil {
		return
	}
	select { // batches are committed in their order
	case <-last.Done():
	case <-ctx.Done():
	}
}

// enqueue waits for room, and returns the receipts that the events share.
func (l *Log) enqueue(ctx context.Context, enc *encoder, events []*broker.Event) ([]*broker.Receipt, error) {
	for {
		l.mu.Lock()
		err := l.admit(len(events))
		if err == nil {
			var receipts []*broker.Receipt
			for i, e := range events {
				if r := l.add(e, enc.octets(i)).receipt; len(receipts) == 0 || receipts[len(receipts)-1] != r {
					receipts = append(receipts, r)
				}
			}
			l.mu.Unlock()
			return receipts, nil
		}
		closed, room := l.closed, l.room
		if closed {
			l.refuse(err, len(events))
		}
		l.mu.Unlock()
		if closed {
			return nil, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			l.mu.Lock()
			l.refuse(err, len(events))
			l.mu.Unlock()
			return nil, err
		}
	}
}

// release gives an encoder back, unless it has grown large for one event.
func (l *Log) release(enc *encoder) {
	if enc.buf.Cap() <= maxKept {
		l.encoded.Put(enc)
	}
}

// admit says whether n events may be queued. l.mu is held.
func (l *Log) admit(n int) *broker.Error {
	switch {
	case l.closed:
		e := broker.Errorf(broker.Unavailable, "the audit log is closed")
		e.Reason = reasonClosed
		return e
	case l.queued+n > l.cfg.QueueSize:
		e := broker.Errorf(broker.Unavailable, "the audit log cannot keep up")
		e.Reason = reasonFull
		return e
	}
	return nil
}

// refuse counts events that were not queued, and logs the first of a row.
// l.mu is held.
func (l *Log) refuse(err *broker.Error, n int) {
	l.metrics.lost(err.Reason, n)
	if !l.muted {
		l.muted = true
		l.log.Error("an event was not recorded; more may follow, which are only counted", zap.Error(err))
	}
}

// add puts an event into the last batch, or begins one. l.mu is held.
func (l *Log) add(e *broker.Event, data []byte) *batch {
	var b *batch
	if n := len(l.queue); n > 0 && len(l.queue[n-1].events) < l.cfg.BatchSize {
		b = l.queue[n-1]
	} else {
		b = l.newBatch()
		l.queue = append(l.queue, b)
	}
	if e.Time.IsZero() {
		// Under the lock, so that times do not go back along the queue.
		e.Time = l.cfg.Now().UTC().Truncate(time.Microsecond)
	}
	b.events = append(b.events, *e)
	b.owners = append(b.owners, e)
	b.data = append(b.data, data...)
	b.ends = append(b.ends, len(b.data))
	if len(b.events) == l.cfg.BatchSize {
		close(b.filled)
	}
	l.queued++
	l.last = b.receipt
	select {
	case l.wake <- struct{}{}:
	default: // it is awake already
	}
	return b
}

// failed returns a receipt that has settled.
func failed(err error) *broker.Receipt {
	r, settle := broker.NewReceipt()
	settle(err)
	return r
}

// Healthy returns nil when events are being recorded; else Unavailable, with
// the cause: the last commit failed a moment ago, one is taking too long, or
// Run has ended.
func (l *Log) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	h := l.health
	switch {
	case l.closed:
		return l.admit(0)
	case !h.committing.IsZero() && now.Sub(h.committing) > stalledAfter:
		return broker.Errorf(broker.Unavailable, "the audit log is stalled")
	case !h.failed.IsZero() && now.Sub(h.failed) < unhealthyFor:
		return broker.Errorf(broker.Unavailable, "the audit log cannot be written").WithCause(h.cause)
	}
	return nil
}
