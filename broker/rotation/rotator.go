// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Limits and times.
const (
	// DefaultConcurrency is how many rotations are worked on at once, and
	// DefaultPerProvider how many of one provider; of one that did not answer last,
	// it is one.
	DefaultConcurrency = 8
	DefaultPerProvider = 3
	// patience is how long a rotation keeps its place while it waits for a server:
	// then another takes it, so that servers that are silent keep nobody from the
	// others. maxWaiting bounds how many of them there are, as a multiple of
	// Concurrency.
	patience   = 2 * time.Second
	maxWaiting = 8
	// DefaultKeep is for how long replaced passwords are kept.
	DefaultKeep = 72 * time.Hour
	// pollInterval is how often the journals are looked at.
	pollInterval = time.Second
	// claimTime is for how long a rotation is a process's after an entry. It is
	// longer than a step: setTime and loginsTime bound what is done between two
	// entries.
	claimTime  = 2 * time.Minute
	setTime    = 30 * time.Second
	loginsTime = 45 * time.Second
	// journalTime bounds writing an entry, also after the stop was ordered.
	journalTime = 15 * time.Second
	// drainPoll is how often it is looked whether old sessions have ended.
	drainPoll = time.Second
)

// State is what a Rotator needs to know and to write.
type State interface {
	broker.Rotations
	Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error)
	Mailboxes(ctx context.Context) ([]*broker.Mailbox, error)
	Provider(ctx context.Context, id broker.ID) (*broker.Provider, error)
	FirmSessions(ctx context.Context, firm broker.ID, liveOnly bool, limit int) ([]*broker.Session, error)
}

// Config is what a Rotator stands on.
type Config struct {
	State    State
	Secrets  broker.RotationSecrets
	Upstream broker.Upstream
	// Drivers are by their names.
	Drivers map[string]broker.Driver
	// Node is this process's name: no two live rotators may share it.
	Node string
	// Concurrency and PerProvider replace the defaults when they are not 0.
	Concurrency, PerProvider int
	// SessionsEnd is for how long sessions may live on a node that was cut off:
	// its lease.
	SessionsEnd time.Duration
	Limits      Limits
	Logger      *zap.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Rotator works on rotations. Make it with New.
type Rotator struct {
	Config
	holder broker.ID

	mu sync.Mutex
	// working are those under way, waiting those of them that have given up their
	// places.
	working, waiting int
	providers        map[broker.ID]int
	// silent are providers that did not answer when they were last asked.
	silent map[broker.ID]bool
	freed  chan struct{}
	// scheduled is when the schedules were looked at last.
	scheduled time.Time
	zones     policy.Zones
}

// New makes a Rotator.
func New(c Config) (*Rotator, error) {
	if c.State == nil || c.Secrets == nil || c.Upstream == nil || c.Logger == nil || c.Node == "" {
		return nil, errors.New("rotation: State, Secrets, Upstream, Logger and Node are needed")
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if c.PerProvider == 0 {
		c.PerProvider = DefaultPerProvider
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Limits = c.Limits.withDefaults()
	return &Rotator{
		Config: c, holder: broker.NewID(), providers: make(map[broker.ID]int), silent: make(map[broker.ID]bool), freed: make(chan struct{}, 1),
	}, nil
}

func (r *Rotator) claim() broker.RotationClaim {
	return broker.RotationClaim{Node: r.Node, Holder: r.holder, Lasts: claimTime}
}

// Run works on rotations until ctx ends; the step under way is then cut short,
// and what is known of it is written down. What an earlier process of this node
// had claimed is taken over at once.
func (r *Rotator) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for released := false; ; {
		if !released {
			released = r.note("claims of a dead process cannot be released", r.State.ReleaseRotations(ctx, r.Node))
		}
		if released {
			for r.startOne(ctx, &workers) {
			}
			r.schedule(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.freed:
		}
	}
}

func (r *Rotator) note(what string, err error) (ok bool) {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.Logger.Error(what, zap.Error(err))
	}
	return err == nil
}

// startOne begins to work on one rotation that is due, if there is one and room
// for it.
func (r *Rotator) startOne(ctx context.Context, workers *sync.WaitGroup) bool {
	claim := r.claim()
	r.mu.Lock()
	room := r.working-r.waiting < r.Concurrency && r.working < r.Concurrency*maxWaiting
	for provider, n := range r.providers {
		if n >= r.PerProvider || r.silent[provider] {
			claim.Busy = append(claim.Busy, provider)
		}
	}
	r.mu.Unlock()
	if !room || ctx.Err() != nil {
		return false
	}
	journal, err := r.State.ClaimRotation(ctx, claim)
	if !r.note("rotations cannot be claimed", err) || journal == nil {
		return false
	}
	r.count(journal.ProviderID, 1)
	workers.Go(func() {
		defer r.count(journal.ProviderID, -1)
		r.work(ctx, journal)
	})
	return true
}

func (r *Rotator) count(provider broker.ID, n int) {
	r.mu.Lock()
	r.working += n
	if r.providers[provider] += n; r.providers[provider] == 0 {
		delete(r.providers, provider)
	}
	r.mu.Unlock()
	if n < 0 {
		r.free()
	}
}

// free has it looked whether another rotation can begin.
func (r *Rotator) free() {
	select {
	case r.freed <- struct{}{}:
	default:
	}
}

// giveWay counts who has given up his place, or (n < 0) goes on.
func (r *Rotator) giveWay(n int) {
	r.mu.Lock()
	r.waiting += n
	r.mu.Unlock()
	if n > 0 {
		r.free()
	}
}

// patiently does a step, and gives up its place while it takes long.
func (w *worker) patiently(ctx context.Context, s step) finding {
	timer := time.AfterFunc(patience, func() { w.giveWay(1) })
	defer func() {
		if !timer.Stop() {
			w.giveWay(-1)
		}
	}()
	found := w.do(ctx, s)
	if s == stepSet {
		w.mu.Lock()
		defer w.mu.Unlock()
		if found.reason == broker.DriverUnavailable {
			w.silent[w.journal.ProviderID] = true
		} else {
			delete(w.silent, w.journal.ProviderID)
		}
	}
	return found
}

// work does the steps of one rotation until it has to wait, or has ended.
func (r *Rotator) work(ctx context.Context, journal *broker.Rotation) {
	w := &worker{Rotator: r, journal: *journal}
	defer w.forget()
	for ctx.Err() == nil {
		s := next(&w.journal)
		found := w.patiently(ctx, s)
		m := machine{Limits: r.Limits, now: r.Now().UTC(), id: broker.NewID}
		entry := m.after(w.journal, s, found)
		if !w.write(ctx, s, entry) {
			return
		}
		if !w.journal.CleanedAt.IsZero() || w.journal.NextAt.After(r.Now()) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTime)
	defer cancel()
	r.note("a rotation cannot be released", r.State.ReleaseRotation(ctx, r.claim(), journal.ID))
}

// write makes an entry of the journal.
func (w *worker) write(ctx context.Context, s step, entry broker.Rotation) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTime)
	defer cancel()
	claimed := w.Now()
	if err := w.State.AdvanceRotation(ctx, w.claim(), &entry); err != nil {
		w.Logger.Error("a rotation's journal cannot be written", zap.String("rotation", string(entry.ID)), zap.String("step", string(s)), zap.Error(err))
		return false
	}
	ended := entry.Outcome != w.journal.Outcome
	w.journal, w.claimed = entry, claimed
	fields := []zap.Field{
		zap.String("rotation", string(entry.ID)), zap.String("mailbox", string(entry.MailboxID)),
		zap.String("step", string(s)), zap.String("state", string(entry.State)),
	}
	switch {
	case ended:
		fields = append(fields, zap.String("outcome", string(entry.Outcome)), zap.Strings("unproved", entry.Unproved), zap.String("words", entry.Words))
		if Alarming(&entry) {
			w.Logger.Warn("a rotation ended, and a person must see to it", fields...)
		} else {
			w.Logger.Info("a rotation ended", fields...)
		}
	case entry.Waiting != "":
		w.Logger.Warn("a rotation waits", append(fields, zap.String("for", entry.Waiting), zap.Time("until", entry.NextAt))...)
	default:
		w.Logger.Debug("a rotation goes on", fields...)
	}
	return true
}

// Alarming reports whether a person must see to how a rotation ended.
func Alarming(r *broker.Rotation) bool {
	if r.State != broker.RotationEnded {
		return false
	}
	for _, what := range r.Unproved {
		if what != broker.UnprovedOldSessions {
			return true
		}
	}
	return r.Outcome != broker.RotationDone
}
