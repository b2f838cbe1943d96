// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// unsaved keeps session.end events until they are durable: a session must not
// wait for its record when it ends, and its record must not be lost when the
// log fails at that moment.
type unsaved struct {
	mu    sync.Mutex
	sends []sent
}

type sent struct {
	event   *broker.Event
	receipt *broker.Receipt
	// at is when the session ended: the time of an event that is late.
	at time.Time
}

func (u *unsaved) submit(m *Manager, e *broker.Event) {
	s := sent{e, m.log.Submit(e), m.now()}
	u.mu.Lock()
	full := len(u.sends) >= maxUnrecorded
	if !full {
		u.sends = append(u.sends, s)
	}
	u.mu.Unlock()
	if full {
		m.logger.Error("the end of a session may not be recorded: too many wait for the log", zap.String("session", string(e.SessionID)))
	}
}

// retry forgets what is durable and submits anew what failed.
func (u *unsaved) retry(m *Manager) {
	u.mu.Lock() // whoever waits for all of them must see all of them
	defer u.mu.Unlock()
	kept := u.sends[:0]
	for _, s := range u.sends {
		if !s.receipt.Settled() {
			kept = append(kept, s)
			continue
		}
		if err := s.receipt.Wait(context.Background()); err == nil || broker.CodeOf(err) == broker.Invalid {
			if err != nil {
				m.logger.Error("the end of a session cannot be recorded", zap.String("session", string(s.event.SessionID)), zap.Error(err))
			}
			continue
		}
		// The id stays, if it has one: when the log failed without knowing
		// that it had not, the same event stands there twice.
		again := *s.event
		again.Seq, again.Time = 0, s.at
		kept = append(kept, sent{&again, m.log.Submit(&again), s.at})
	}
	clear(u.sends[len(kept):])
	u.sends = kept
	m.metrics.unrecorded.Set(float64(len(u.sends)))
}

// wait returns when everything submitted so far is settled, or ctx ends.
func (u *unsaved) wait(ctx context.Context) error {
	u.mu.Lock()
	waiting := append([]sent(nil), u.sends...)
	u.mu.Unlock()
	for _, s := range waiting {
		select {
		case <-s.receipt.Done():
		case <-ctx.Done():
			return broker.Errorf(broker.Unavailable, textUnrecorded).WithCause(context.Cause(ctx))
		}
	}
	return nil
}
