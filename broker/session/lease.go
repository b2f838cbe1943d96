// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

var errStillClosing = errors.New("session: the lease was lost, and sessions that it covered are still closing")

// hold sees to it that this process holds its node's lease. now is from before
// the state was asked: whatever takes its time, or stands still meanwhile,
// counts against the lease.
func (w *watch) hold(ctx context.Context, now time.Time) error {
	if w.held && now.Sub(w.asked) >= w.lease {
		// The timer has fired, or is about to: this process was stopped.
		w.lapse()
	}
	if w.leases == nil {
		w.held, w.asked = true, now
		return nil
	}
	if w.held && now.Sub(w.asked) < w.lease/renewals && !slept(w.asked, now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if w.held {
		held, err := w.leases.RenewLease(ctx, w.node, w.holder, w.lease)
		if err != nil {
			return err
		}
		if held {
			w.asked = now
			return nil
		}
		// Somebody took this node for dead, or its name. Its sessions stand in
		// the record as ended.
		w.logger.Error("the lease of this node was ended by another, or taken over by another process of its name: sessions end")
		w.held, w.swept = false, false
		w.lapse()
	}
	return w.take(ctx, now)
}

// take takes the lease. A process that has just been started has come in the
// place of the one before; one that lost the lease waits until it is free.
func (w *watch) take(ctx context.Context, now time.Time) error {
	if len(w.sessions(nil)) > 0 {
		return errStillClosing
	}
	if err := w.leases.TakeLease(ctx, w.node, w.holder, w.lease, !w.took); err != nil {
		return err
	}
	w.held, w.took, w.asked = true, true, now
	return nil
}

// slept reports whether the wall clock went further than the monotonic one,
// which stands still while a machine is suspended: others may have taken this
// node for dead. A clock that was set forward looks alike, and costs a look.
func slept(before, now time.Time) bool {
	return now.Round(0).Sub(before.Round(0))-now.Sub(before) > time.Second
}

// reap ends, now and then, the sessions of nodes whose lease is over, until the
// returned function is called. It has a goroutine of its own: no revoke waits
// for it.
func (m *Manager) reap(ctx context.Context) (stop func()) {
	if m.leases == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(m.lease / renewals)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.reapOnce(ctx)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (m *Manager) reapOnce(ctx context.Context) {
	m.mu.Lock()
	lapsed := m.lapsed
	m.mu.Unlock()
	if lapsed {
		return // who holds no lease judges nobody
	}
	ctx, cancel := context.WithTimeout(ctx, m.lease)
	defer cancel()
	n, err := m.leases.EndLapsedSessions(ctx, m.node)
	if err != nil && ctx.Err() == nil && broker.CodeOf(err) != broker.Unavailable {
		m.logger.Error("the sessions of nodes that died could not be ended in the record", zap.Error(err))
	}
	if n > 0 {
		m.logger.Warn("sessions of nodes whose lease was over were ended in the record", zap.Int("sessions", n))
	}
}
