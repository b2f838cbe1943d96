// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Run decides sessions anew until ctx ends; then every session that is left is
// ended, and none is let in. Sessions that this node left open when it died
// are marked as ended before the first is let in. It may be called once.
func (m *Manager) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("session: Run was called twice")
	}
	w := &watch{Manager: m, holder: broker.NewID()}
	w.end = time.AfterFunc(m.lease, m.lapse)
	defer w.end.Stop()
	defer m.reap(ctx)()
	defer m.watchAccounts(ctx)()
	defer m.watchCertificates()()
	unsubscribe := m.state.Subscribe(m.notices.add)
	defer unsubscribe()
	tick := time.NewTicker(PollInterval)
	defer tick.Stop()

	w.poll(ctx)
	for {
		select {
		case <-ctx.Done():
			m.stopEntry()
			m.EndAll(&broker.End{Reason: broker.EndDrain, Text: textDraining})
			return nil
		case <-m.notices.wake:
			w.follow(ctx)
		case <-tick.C:
			w.poll(ctx)
		}
	}
}

// watch is what Run's goroutine keeps to itself.
type watch struct {
	*Manager
	// end is the end of the lease, as this process counts.
	end *time.Timer
	// holder is this process; held says that it has the node's lease, and asked
	// when it last began to prolong it. took says that it ever had it.
	holder     broker.ID
	held, took bool
	asked      time.Time
	// swept says that what a dead process of this node left was marked.
	swept bool
	// seen is the revision up to which every session was decided; behind says
	// that some could not be.
	seen   int64
	behind bool
}

// poll reads the policy revision, renews the lease, and decides every session
// anew when there was a change that no notice told of.
func (w *watch) poll(ctx context.Context) {
	w.unsaved.retry(w.Manager)
	w.expireAll()
	began := time.Now()
	revision, err := w.readRevision(ctx)
	if err == nil {
		err = w.hold(ctx, began)
	}
	if err == nil && !w.swept {
		err = w.sweep(ctx)
	}
	if err != nil {
		w.metrics.stateFailures.Inc()
		if ctx.Err() == nil {
			w.logger.Error("the state cannot be read, or the lease not prolonged: sessions end if this lasts", zap.Error(err), zap.Duration("lease", w.lease))
		}
		w.behind = true
		return
	}
	if current := w.view.Load(); current != nil && revision < current.revision {
		// Another state was put in its place; what was read is of the old one.
		w.view.Store(&view{state: w.state, revision: revision})
		w.behind = true
	}
	if revision != w.seen || w.behind {
		w.pass(ctx, w.viewAt(revision), w.sessions(nil), time.Time{})
		w.reached(revision)
	}
	w.renew()
}

// sweep marks, once, the sessions that a dead process of this node's name left
// open.
func (w *watch) sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	stale, err := w.state.EndStaleSessions(ctx, w.node)
	if err != nil {
		return err
	}
	w.swept = true
	if stale > 0 {
		w.logger.Warn("sessions had been left open by a process that died", zap.Int("sessions", stale))
	}
	return nil
}

func (w *watch) readRevision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return w.state.PolicyRevision(ctx)
}

// renew prolongs the lease from the moment at which the state was asked, and
// opens the gate.
func (w *watch) renew() {
	w.mu.Lock()
	w.lapsed = false
	w.end.Reset(w.lease - time.Since(w.asked))
	w.mu.Unlock()
	select {
	case <-w.ready:
	default:
		close(w.ready)
	}
}

// lapse ends every session because the state could not be read for too long.
func (m *Manager) lapse() {
	m.mu.Lock()
	m.lapsed = true
	m.mu.Unlock()
	if n := m.EndAll(&broker.End{Reason: broker.EndLease, Text: textLease}); n > 0 {
		m.logger.Error("the state could not be read for too long: sessions were ended", zap.Int("sessions", n))
	}
}

// follow decides anew what the changes told of touch.
func (w *watch) follow(ctx context.Context) {
	changes, lost := w.notices.take()
	if len(changes) == 0 && !lost {
		return
	}
	last := w.seen
	for _, c := range changes {
		lost = lost || c.Revision > last+1
		last = max(last, c.Revision)
	}
	if lost || w.behind {
		// Some change is not known: everything is decided anew.
		revision, err := w.readRevision(ctx)
		if err != nil {
			w.metrics.stateFailures.Inc()
			w.behind = true
			return
		}
		w.pass(ctx, w.viewAt(max(revision, last)), w.sessions(nil), earliest(changes))
		w.reached(max(revision, last))
		return
	}
	w.pass(ctx, w.viewAt(last), w.sessions(changes), earliest(changes))
	w.reached(last)
}

// reached notes up to which revision a pass has come.
func (w *watch) reached(revision int64) {
	w.seen = revision
	if !w.behind {
		w.followed.Store(revision)
	}
}

func earliest(changes []broker.Change) (at time.Time) {
	for _, c := range changes {
		if at.IsZero() || c.At.Before(at) {
			at = c.At
		}
	}
	return at
}

// pass decides sessions anew by one view and ends those that are narrower.
// committed is when the change was; zero: not known.
func (w *watch) pass(ctx context.Context, v *view, sessions []*live, committed time.Time) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	began := w.now()
	failed := false
	k := killing{watch: w, committed: committed}
	defer k.finish()
	for _, s := range sessions {
		k.inTime()
		if s.over() || s.decidedAt.Load() == v.revision {
			continue
		}
		end, err := w.redecide(ctx, v, s)
		switch {
		case err != nil:
			if !failed {
				w.logger.Error("a session could not be decided anew", append(s.fields(), zap.Error(err))...)
			}
			failed = true
			w.postpone(s, began)
		case end != nil:
			k.add(s, end)
		default:
			s.undecided = time.Time{}
		}
	}
	if failed {
		w.metrics.stateFailures.Inc()
	}
	w.behind = failed
}

// killing ends sessions a few milliseconds' worth at a time: the goroutines of
// one that has ended compete with the pass for the processors, and there may be
// thousands of others to end.
type killing struct {
	*watch
	committed time.Time
	sessions  []*live
	ends      []*broker.End
	since     time.Time
}

func (k *killing) add(s *live, end *broker.End) {
	if len(k.sessions) == 0 {
		k.since = time.Now()
	}
	k.sessions, k.ends = append(k.sessions, s), append(k.ends, end)
}

// inTime ends those that have been gathered for long enough, whatever comes
// next.
func (k *killing) inTime() {
	if len(k.sessions) > 0 && time.Since(k.since) > killTogether {
		k.finish()
	}
}

func (k *killing) finish() {
	for i, s := range k.sessions {
		if s.kill(k.ends[i], k.system()) && !k.committed.IsZero() {
			k.metrics.revoke.Observe(k.now().Sub(k.committed).Seconds())
		}
	}
	k.sessions, k.ends = k.sessions[:0], k.ends[:0]
}

// postpone gives a session that could not be decided the rest of its lease.
func (w *watch) postpone(s *live, now time.Time) {
	if s.undecided.IsZero() {
		s.undecided = now
	}
	if now.Sub(s.undecided) >= w.lease-PollInterval {
		s.kill(&broker.End{Reason: broker.EndLease, Text: textLease, Detail: "the state could not be read"}, w.system())
	}
}

// sessions returns the sessions that any of the changes touches; nil: all.
func (m *Manager) sessions(changes []broker.Change) []*live {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*live, 0, len(m.live))
	for _, s := range m.live {
		if changes == nil || s.touchedBy(changes) {
			all = append(all, s)
		}
	}
	return all
}

// expireAll ends what the clock says is over. Timers do this to the instant;
// this is for a clock that was set.
func (m *Manager) expireAll() {
	now := m.now()
	for _, s := range m.sessions(nil) {
		if s.expired(now) {
			s.expire()
		}
	}
}
