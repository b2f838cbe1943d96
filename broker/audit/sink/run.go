// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// runner delivers to one sink.
type runner struct {
	Sink
	all    *Sinks
	log    *zap.Logger
	reopen atomic.Bool
	// wake has room for one token: there is something to do.
	wake chan struct{}
	// using is held while the receiver is used.
	using sync.Mutex

	counts counts

	mu sync.Mutex
	// added are logs that have grown since they were looked at last.
	added map[broker.ID]bool
	// held says that this process delivers. Of what follows the first is for the
	// metrics to read as well.
	held   bool
	behind int64     // events
	oldest time.Time // of what is due; zero: nothing is

	// The rest is the runner's goroutine's alone, while it holds the sink.

	next, ends map[broker.ID]int64
	moved      map[broker.ID]bool // logs of which next is not stored yet
	due        map[broker.ID]bool // logs of which next < ends
	cursor     broker.ID          // where the next batch begins
	limit      int                // events in a batch

	kept      time.Time // when positions were stored last
	looked    time.Time
	delivered time.Time
	lost      bool // of the claim

	failing  time.Time // since when nothing is taken; zero: it is
	failure  string
	failures int  // in a row
	told     bool // of the outage, in the log
	unkept   bool // failing is not stored yet
	refused  refusal
}

func newRunner(s *Sinks, x Sink) *runner {
	return &runner{
		Sink: x, all: s, log: s.cfg.Logger.With(zap.String("sink", x.Name)), limit: batchEvents,
		wake: make(chan struct{}, 1), added: make(map[broker.ID]bool),
	}
}

// grown notes that a log was added to. Commits wait for it.
func (r *runner) grown(log broker.ID) {
	if !r.Filter.covers(log) {
		return
	}
	r.mu.Lock()
	held := r.held
	if held {
		r.added[log] = true
	}
	r.mu.Unlock()
	if held {
		r.wakeUp()
	}
}

func (r *runner) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default: // it is awake already
	}
}

// run delivers while the sink is this process's, until ctx ends.
func (r *runner) run(ctx context.Context) {
	for {
		state, err := r.claim(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("the sink cannot be claimed", zap.Error(err))
		}
		if state != nil {
			if err := r.hold(ctx, state); err != nil && ctx.Err() == nil {
				r.log.Warn("the sink is not this node's any more, or cannot be known to be", zap.Error(err))
			}
		}
		if !wait(ctx, r.all.times.claimEvery) {
			return
		}
	}
}

// wait reports whether the time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *runner) claimant() broker.SinkClaim {
	return broker.SinkClaim{Sink: r.Name, Node: r.all.cfg.Node, Holder: r.all.holder, Lasts: r.all.times.claim}
}

func (r *runner) claim(ctx context.Context) (*broker.SinkState, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return r.all.cfg.Store.ClaimSink(ctx, r.claimant(), r.FromStart)
}

// hold delivers until ctx ends, or the sink is another's.
func (r *runner) hold(ctx context.Context, state *broker.SinkState) (err error) {
	r.moved, r.due, r.lost = make(map[broker.ID]bool), make(map[broker.ID]bool), false
	r.failing, r.failure, r.failures, r.told = state.FailingSince, state.Failure, 0, false
	r.refused, r.limit, r.kept = refusal{}, batchEvents, time.Time{}
	if r.next, err = r.all.cfg.Store.SinkPositions(ctx, r.Name); err != nil {
		return err
	}
	r.mu.Lock()
	r.held = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.held, r.behind, r.oldest = false, 0, time.Time{}
		clear(r.added)
		r.mu.Unlock()
		if !r.lost {
			// At the process's end as well: less is delivered twice.
			err = errors.Join(err, r.keep(context.WithoutCancel(ctx)))
		}
		r.using.Lock()
		defer r.using.Unlock()
		_ = r.Receiver.Close() // what was not taken is offered again
	}()
	if err := r.look(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		pause, err := r.step(ctx)
		if err != nil {
			return err
		}
		if err := r.rest(ctx, pause); err != nil {
			return err
		}
	}
	return nil
}

// idle is a pause that ends when there is something to do.
const idle time.Duration = -1

// step delivers one batch, and returns how long to pause after it. An error is
// the database's.
func (r *runner) step(ctx context.Context) (time.Duration, error) {
	if r.reopen.Swap(false) {
		r.using.Lock()
		err := r.Receiver.Close()
		r.using.Unlock()
		if err != nil {
			r.log.Warn("the receiver was not closed in order", zap.Error(err))
		}
	}
	now := r.all.cfg.Now()
	if now.Sub(r.looked) >= r.all.times.look {
		if err := r.look(ctx); err != nil {
			return 0, err
		}
	}
	r.takeAdded()
	if early := r.delivered.Add(r.Pace).Sub(now); r.Pace > 0 && early > 0 && !r.delivered.IsZero() {
		return early, nil
	}
	b, err := r.gather(ctx)
	if err != nil {
		return 0, err
	}
	r.measure(b)
	if b == nil {
		return idle, nil
	}
	return r.deliver(ctx, b)
}

// rest pauses, and keeps the sink meanwhile.
func (r *runner) rest(ctx context.Context, pause time.Duration) error {
	until := r.all.cfg.Now().Add(pause)
	for ctx.Err() == nil {
		if err := r.keepIfDue(ctx); err != nil {
			return err
		}
		now := r.all.cfg.Now()
		if pause >= 0 && !now.Before(until) {
			return nil
		}
		if now.Sub(r.looked) >= r.all.times.look {
			if pause == idle {
				return nil
			}
			if err := r.look(ctx); err != nil {
				return err
			}
			r.recount()
		}
		d := min(r.kept.Add(r.keepAfter()).Sub(now), r.looked.Add(r.all.times.look).Sub(now))
		if pause >= 0 {
			d = min(d, until.Sub(now))
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-r.wake:
			if pause == idle || r.reopen.Load() {
				timer.Stop()
				return nil
			}
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// look finds which logs have events that are due.
func (r *runner) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	ends, err := r.all.cfg.Store.LogEnds(ctx)
	if err != nil {
		return err
	}
	r.looked, r.ends = r.all.cfg.Now(), ends
	if firm := r.Filter.Firm; firm != nil && *firm != "" && ends[*firm] == 0 {
		r.note(fmt.Errorf("no log is there of a firm with the id %s", *firm))
	}
	for log, end := range ends {
		if r.Filter.covers(log) && r.next[log] < end {
			r.due[log] = true
		}
	}
	return nil
}

// takeAdded marks logs that this process has added to.
func (r *runner) takeAdded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for log := range r.added {
		r.due[log] = true
	}
	clear(r.added)
}

// measure notes how far behind the sink is.
func (r *runner) measure(b *batch) {
	behind := int64(0)
	for log := range r.due {
		behind += max(r.ends[log]-r.next[log], 0)
	}
	var oldest time.Time
	if b != nil {
		behind = max(behind, int64(len(b.events)))
		for _, e := range b.events {
			if oldest.IsZero() || e.Time.Before(oldest) {
				oldest = e.Time
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behind, r.oldest = behind, oldest
}

// recount is measure while nothing is delivered.
func (r *runner) recount() {
	behind := int64(0)
	for log := range r.due {
		behind += max(r.ends[log]-r.next[log], 0)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behind = behind
}

// keepAfter is how long after the last time the database is told again.
func (r *runner) keepAfter() time.Duration {
	if len(r.moved) > 0 || r.unkept {
		return r.all.times.keep
	}
	return r.all.times.renew
}

func (r *runner) keepDue(now time.Time) bool { return now.Sub(r.kept) >= r.keepAfter() }

// keep stores positions and whether the receiver fails, and prolongs the claim.
func (r *runner) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	p := broker.SinkProgress{Next: make(map[broker.ID]int64, len(r.moved)), FailingSince: r.failing, Failure: r.failure}
	for log := range r.moved {
		p.Next[log] = r.next[log]
	}
	began := r.all.cfg.Now() // the claim lasts from some time after it
	if err := r.all.cfg.Store.KeepSink(ctx, r.claimant(), p); err != nil {
		r.lost = broker.CodeOf(err) == broker.Conflict
		return err
	}
	r.kept, r.unkept = began, false
	clear(r.moved)
	return nil
}

// move passes all of a log before next.
func (r *runner) move(log broker.ID, next int64) {
	if r.next[log] >= next {
		return
	}
	r.next[log] = next
	r.moved[log] = true
}

// failed notes that the receiver did not take what it was offered, and returns
// how long to leave it alone.
func (r *runner) failed(ctx context.Context, err error) time.Duration {
	now := r.all.cfg.Now()
	r.counts.failures.Add(1)
	r.failures++
	if r.failing.IsZero() {
		r.failing = now
		r.log.Warn("the receiver does not take events; they wait", zap.Error(err))
	}
	r.failure, r.unkept = printable(err.Error()), true
	if !r.told && now.Sub(r.failing) >= r.all.times.stalled {
		r.told = r.record(ctx, broker.EventSinkOutage, &broker.SinkOutage{Sink: r.Name, Node: r.all.cfg.Node, Since: r.failing, Text: r.failure})
	}
	pause := r.all.times.first << min(r.failures-1, 20)
	if pause <= 0 || pause > r.all.times.last {
		pause = r.all.times.last
	}
	// So that many that fail together do not come back together.
	return pause/2 + rand.N(pause/2+1)
}

// works notes that the receiver takes events.
func (r *runner) works(ctx context.Context) {
	now := r.all.cfg.Now()
	r.delivered = now
	r.failures = 0
	if r.failing.IsZero() {
		return
	}
	if now.Sub(r.failing) >= r.all.times.stalled {
		if !r.record(ctx, broker.EventSinkOutage, &broker.SinkOutage{Sink: r.Name, Node: r.all.cfg.Node, Since: r.failing, Until: now, Text: r.failure}) {
			return // with the next events
		}
	}
	r.log.Info("the receiver takes events again", zap.Duration("after", now.Sub(r.failing)))
	r.failing, r.failure, r.told, r.unkept = time.Time{}, "", false, true
}

// note keeps what is to be said of a receiver that takes everything; nil: nothing.
func (r *runner) note(err error) {
	text := ""
	if err != nil {
		text = printable(err.Error())
	}
	if text == r.failure || !r.failing.IsZero() {
		return
	}
	if err != nil {
		r.log.Warn("the receiver takes events, but not as it should", zap.Error(err))
	}
	r.failure, r.unkept = text, true
}

// record reports whether an event about the sink is in the BPO's log.
func (r *runner) record(ctx context.Context, typ broker.EventType, data any) bool {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := r.all.cfg.Log.Append(ctx, &broker.Event{Type: typ, Actor: broker.Actor{Kind: "system", Name: r.all.cfg.Node}, Data: data})
	if err != nil {
		r.log.Error("what became of the sink could not be recorded yet", zap.Error(err))
	}
	return err == nil
}

// maxText is of what a receiver said, in octets.
const maxText = 300

// printable makes one line of what a receiver said.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// test delivers an event that stands in no log.
func (r *runner) test(ctx context.Context, by broker.Actor) error {
	if err := lockWithin(ctx, &r.using); err != nil {
		return broker.Errorf(broker.Unavailable, "a delivery to the sink is under way, and takes long").WithCause(err)
	}
	defer r.using.Unlock()
	e, err := testEvent(r.Filter.Firm, by, r.all.cfg.Now())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	n, err := r.Receiver.Deliver(ctx, []*Event{e})
	switch {
	case n == 1 && err != nil:
		return broker.Errorf(broker.Unavailable, "the sink took it, but: %s", printable(err.Error())).WithCause(err)
	case err != nil:
		return broker.Errorf(broker.Unavailable, "the sink did not take it: %s", printable(err.Error())).WithCause(err)
	}
	return nil
}

// lockWithin takes a lock before ctx ends.
func lockWithin(ctx context.Context, mu *sync.Mutex) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !mu.TryLock() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
