// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// TestType is the type of the event that 'postern sink test' delivers.
const TestType broker.EventType = "sink.test"

// testEvent makes an event for one log's sinks that stands in none.
func testEvent(firm *broker.ID, by broker.Actor, now time.Time) (*Event, error) {
	e := broker.Event{
		ID: broker.NewID(), Time: now.UTC().Truncate(time.Microsecond), Seq: -1, Type: TestType, Version: 1, Actor: by,
	}
	if firm != nil {
		e.FirmID = *firm
	}
	record, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return &Event{Event: e, Record: record, Severity: broker.SeverityInfo}, nil
}

// batch is what is due next, in the order of each log.
type batch struct {
	events []*Event
	octets int
	// ends is up to where logs were read of which there are events.
	ends map[broker.ID]int64
	// last is the log that was read last.
	last broker.ID
}

func (b *batch) full() bool { return len(b.events) >= batchEvents || b.octets >= batchOctets }

// gather reads what is due, of each log in turn; nil: nothing that the sink
// wants. What it does not want it passes.
func (r *runner) gather(ctx context.Context) (*batch, error) {
	b := &batch{ends: make(map[broker.ID]int64)}
	logs := slices.Sorted(maps.Keys(r.due))
	first, _ := slices.BinarySearch(logs, r.cursor)
	for _, log := range slices.Concat(logs[first:], logs[:first]) {
		if b.full() || ctx.Err() != nil {
			break
		}
		if err := r.read(ctx, b, log); err != nil {
			return nil, err
		}
	}
	if len(b.events) == 0 {
		return nil, nil
	}
	return b, nil
}

// read adds what is due of one log, until the batch is full.
func (r *runner) read(ctx context.Context, b *batch, log broker.ID) error {
	next, before := r.next[log], len(b.events)
	for !b.full() && ctx.Err() == nil {
		entries, err := r.entries(ctx, log, next)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			if len(b.events) == before {
				delete(r.due, log)
			}
			return nil
		}
		next = r.take(b, log, entries)
		b.last = log
		if len(b.events) > before {
			b.ends[log] = next
			continue
		}
		r.move(log, next)
		// Much may be read that it does not want.
		if err := r.keepIfDue(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) entries(ctx context.Context, log broker.ID, first int64) ([]*broker.LogEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return r.all.cfg.Store.LogEntries(ctx, log, first, batchEvents)
}

func (r *runner) keepIfDue(ctx context.Context) error {
	if r.keepDue(r.all.cfg.Now()) {
		return r.keep(ctx)
	}
	return nil
}

// take adds what the sink wants of a log's entries while there is room, and
// returns the Seq that is to be read next.
func (r *runner) take(b *batch, log broker.ID, entries []*broker.LogEntry) (next int64) {
	for _, entry := range entries {
		if b.full() {
			return next
		}
		next = entry.Seq + 1
		if entry.Record == nil { // it was pruned before it could be delivered
			r.counts.pruned.Add(1)
			continue
		}
		e, err := parse(entry)
		if err != nil {
			r.log.Error("a record is not an event; it is passed over", zap.String("firm", string(log)), zap.Error(err))
			r.counts.skipped.Add(1)
			continue
		}
		e.FirmID = log // whatever a record says
		if r.Filter.wants(e) {
			b.events = append(b.events, e)
			b.octets += len(e.Record)
		}
	}
	return next
}

// refusal is one event that the receiver refuses.
type refusal struct {
	id    broker.ID
	times int
}

// deliver offers a batch until all of it is taken or an attempt fails, and
// returns how long to pause after it. An error is the database's.
func (r *runner) deliver(ctx context.Context, b *batch) (time.Duration, error) {
	full := b.full()
	for len(b.events) > 0 && ctx.Err() == nil {
		offered := b.events[:min(len(b.events), r.limit)]
		n, answer, err := r.offer(ctx, offered)
		if err != nil {
			return 0, err
		}
		r.advance(b, n)
		if n > 0 {
			r.works(ctx)
		}
		var refused *RefusedError
		switch {
		case answer == nil || n == len(offered):
			r.note(answer)
			r.limit = min(r.limit*2, batchEvents)
		case ctx.Err() != nil:
		case !errors.As(answer, &refused):
			r.cursor = b.events[0].FirmID
			return r.failed(ctx, answer), nil
		case refused.Events > 1:
			// One of them is the reason: fewer are offered until it is found.
			r.limit = max(refused.Events/2, 1)
		default:
			if pause, err := r.refusedOne(ctx, b, answer); pause > 0 || err != nil {
				r.cursor = b.events[0].FirmID
				return pause, err
			}
		}
	}
	if full {
		return 0, nil
	}
	return r.all.times.gather, nil
}

// refusedOne is told that the receiver refused the first event of a batch by
// itself. It is set aside when it was refused often enough and the receiver takes
// another, near behind it or anywhere; else it is the receiver that is at fault, and
// all wait.
func (r *runner) refusedOne(ctx context.Context, b *batch, answer error) (time.Duration, error) {
	e := b.events[0]
	if r.refused.id != e.ID {
		r.refused = refusal{id: e.ID}
	}
	r.refused.times++
	if r.refused.times < maxRefusals {
		return r.failed(ctx, answer), nil
	}
	for i := 1; i < min(len(b.events), probeEvents); i++ {
		if taken, pause, err := r.probe(ctx, b.events[i]); pause > 0 || err != nil {
			return pause, err
		} else if taken {
			if pause, err := r.passOver(ctx, b, i); pause > 0 || err != nil {
				return pause, err
			}
			r.advance(b, 1) // the one that was taken
			return 0, nil
		}
	}
	// Who sends mail can make a longer run of what a receiver refuses.
	for range probesAfar {
		e, err := r.anyDue(ctx)
		if err != nil {
			return 0, err
		}
		if e == nil {
			continue
		}
		if taken, pause, err := r.probe(ctx, e); pause > 0 || err != nil {
			return pause, err
		} else if taken { // it comes again in its turn
			return r.passOver(ctx, b, min(len(b.events), probeEvents))
		}
	}
	return r.failed(ctx, answer), nil
}

// probe reports whether the receiver takes an event. A pause says that it is the
// receiver that fails.
func (r *runner) probe(ctx context.Context, e *Event) (taken bool, pause time.Duration, err error) {
	var refused *RefusedError
	n, answer, err := r.offer(ctx, []*Event{e})
	if err == nil && n == 0 && !errors.As(answer, &refused) {
		pause = r.failed(ctx, answer)
	}
	return n == 1, pause, err
}

// anyDue reads one of the events that are due, at random; nil: there the sink wants
// none.
func (r *runner) anyDue(ctx context.Context) (*Event, error) {
	logs := slices.Collect(maps.Keys(r.due))
	if len(logs) == 0 {
		return nil, nil
	}
	log := logs[rand.N(len(logs))]
	entries, err := r.entries(ctx, log, r.next[log]+rand.N(max(r.ends[log]-r.next[log], 1)))
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Record == nil {
			continue
		}
		e, err := parse(entry)
		if err != nil {
			continue
		}
		if e.FirmID = log; r.Filter.wants(e) {
			return e, nil
		}
	}
	return nil, nil
}

// passOver sets aside those of the first n events that are refused once more, now
// that another was taken: the receiver may have been mended in between.
func (r *runner) passOver(ctx context.Context, b *batch, n int) (time.Duration, error) {
	for ; n > 0; n-- {
		var refused *RefusedError
		taken, answer, err := r.offer(ctx, b.events[:1])
		if err != nil {
			return 0, err
		}
		if taken == 0 && (!errors.As(answer, &refused) || !r.setAside(ctx, b.events[0], answer)) {
			return r.failed(ctx, answer), nil
		}
		r.advance(b, 1)
	}
	r.works(ctx)
	return 0, nil
}

// setAside records that an event is not delivered, and reports whether it could.
func (r *runner) setAside(ctx context.Context, e *Event, err error) bool {
	if e.Type != broker.EventSinkSkipped && // each would make another
		!r.record(ctx, broker.EventSinkSkipped, &broker.SinkSkipped{
			Sink: r.Name, LogOf: e.FirmID, Event: e.ID, EventSeq: e.Seq, EventType: e.Type, Text: printable(err.Error()),
		}) {
		return false
	}
	r.counts.skipped.Add(1)
	r.log.Error("an event was set aside: the receiver refuses it, and takes others", zap.String("firm", string(e.FirmID)),
		zap.Int64("seq", e.Seq), zap.String("event", string(e.ID)), zap.Error(err))
	return true
}

// offer hands events to the receiver, and returns how many it took and what it said.
// An error is the database's: the sink may be another's by now.
func (r *runner) offer(ctx context.Context, events []*Event) (taken int, answer, err error) {
	r.using.Lock()
	defer r.using.Unlock()
	// Whoever delivers holds the sink for longer than a delivery takes.
	if err := r.keepIfDue(ctx); err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	taken, answer = r.Receiver.Deliver(ctx, events)
	r.counts.delivered.Add(int64(taken))
	return taken, answer, nil
}

// advance passes the first n events of a batch, and what was read behind the last
// of a log.
func (r *runner) advance(b *batch, n int) {
	for _, e := range b.events[:n] {
		r.move(e.FirmID, e.Seq+1)
	}
	b.events = b.events[n:]
	waiting := make(map[broker.ID]bool)
	for _, e := range b.events {
		waiting[e.FirmID] = true
	}
	for log, end := range b.ends {
		if !waiting[log] {
			r.move(log, end)
		}
	}
	if len(b.events) == 0 {
		r.cursor = b.last + "\x00" // the next one
	}
}
