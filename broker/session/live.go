// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// live is one open session. All but what is noted is fixed when it is made.
type live struct {
	manager  *Manager
	record   *broker.Session
	mailbox  *broker.Mailbox
	decision *policy.Decision
	actor    broker.Actor
	// contact is whom the agent is told to ask.
	contact string
	// workstation is its name, for logs.
	workstation string
	pin         string
	// company is its certificate, where a company's own CA issued it.
	company  *broker.CompanyCertificate
	addr     netip.Addr
	hardware bool

	// ctx is cancelled, with a *broker.End, when the session is over; closed
	// is closed when its proxy has done with it.
	ctx    context.Context
	cancel context.CancelCauseFunc
	closed chan struct{}
	once   sync.Once

	// decidedAt is the policy revision of the last decision.
	decidedAt atomic.Int64
	// idleSince is the time in Unix nanoseconds since when the client is
	// idle; 0: it is not.
	idleSince atomic.Int64
	// undecided is when it first could not be decided anew; zero: it could.
	// It belongs to Run's goroutine.
	undecided time.Time

	// mu guards what follows. Nothing waits while it is held.
	mu      sync.Mutex
	endedBy broker.Actor
	timer   *time.Timer
	// used are the credentials it has logged in with; least and leastPending the
	// oldest that is not replaced, as the mailbox has it.
	used         []used
	least        int
	leastPending broker.ID
}

var _ broker.LiveSession = (*live)(nil)

func (s *live) Record() *broker.Session    { return s.record }
func (s *live) Mailbox() *broker.Mailbox   { return s.mailbox }
func (s *live) Decision() *policy.Decision { return s.decision }
func (s *live) Context() context.Context   { return s.ctx }

// SetIdle tells the connection budget whether the client is idle.
func (s *live) SetIdle(idle bool) {
	if !idle {
		s.idleSince.Store(0)
		return
	}
	s.idleSince.CompareAndSwap(0, max(1, s.manager.now().UnixNano()))
}

// kill ends the session for those who work for it, and reports whether this
// call did. It waits for nothing.
func (s *live) kill(e *broker.End, by broker.Actor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return false
	}
	s.endedBy = by
	s.cancel(e)
	return true
}

func (s *live) over() bool { return s.ctx.Err() != nil }

// cause returns why the session is over; nil: it is not.
func (s *live) cause() *broker.End {
	end, _ := context.Cause(s.ctx).(*broker.End)
	return end
}

// arm sets the timer for the decision's end.
func (s *live) arm() {
	if s.decision.Until.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over() {
		s.timer = time.AfterFunc(s.decision.Until.Sub(s.manager.now()), s.expire)
	}
}

func (s *live) disarm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// expire ends the session because its decision's end has come.
func (s *live) expire() {
	s.kill(&broker.End{Reason: broker.EndExpired, Text: advise(textExpired, s.contact)}, s.manager.system())
}

// expired looks at the clock itself: a timer does not notice that the clock
// was set, nor that the machine slept.
func (s *live) expired(now time.Time) bool {
	return !s.decision.Until.IsZero() && !now.Before(s.decision.Until)
}

// Check decides anew, at the policy's present revision.
func (s *live) Check(ctx context.Context) error { return s.check(ctx, 0) }

// AppendChecked records an event and checks by the revision that the policy had
// when it became durable.
func (s *live) AppendChecked(ctx context.Context, t broker.EventType, data any) (recorded, checked error) {
	e := s.event(t, data)
	if err := s.manager.log.Append(ctx, e); err != nil {
		return err, nil
	}
	return nil, s.check(ctx, e.PolicyRevision)
}

// check decides anew, at a revision that the policy has just had; 0: it is
// read.
func (s *live) check(ctx context.Context, revision int64) error {
	m := s.manager
	if !s.over() {
		if s.expired(m.now()) {
			s.expire()
		} else if end, err := m.checkNow(ctx, s, revision); err != nil {
			m.metrics.stateFailures.Inc()
			m.logger.Error("a session could not be checked", append(s.fields(), zap.Error(err))...)
			s.kill(&broker.End{Reason: broker.EndLease, Text: textLease, Detail: "the state could not be read"}, m.system())
		} else if end != nil {
			s.kill(end, m.system())
		}
	}
	if end := s.cause(); end != nil {
		return endError(end)
	}
	return nil
}

func (m *Manager) checkNow(ctx context.Context, s *live, revision int64) (*broker.End, error) {
	if revision != 0 && revision == s.decidedAt.Load() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if revision == 0 {
		var err error
		if revision, err = m.state.PolicyRevision(ctx); err != nil {
			return nil, err
		}
	}
	if revision == s.decidedAt.Load() {
		return nil, nil
	}
	return m.redecide(ctx, m.viewAt(revision), s)
}

// Append records an event with the session's ids and returns when it is
// durable.
func (s *live) Append(ctx context.Context, t broker.EventType, data any) error {
	return s.manager.log.Append(ctx, s.event(t, data))
}

// Submit queues an event with the session's ids.
func (s *live) Submit(t broker.EventType, data any) *broker.Receipt {
	return s.manager.log.Submit(s.event(t, data))
}

func (s *live) event(t broker.EventType, data any) *broker.Event {
	return &broker.Event{
		Type: t, Actor: s.actor, FirmID: s.record.FirmID, SessionID: s.record.ID,
		AgentID: s.record.AgentID, WorkstationID: s.record.WorkstationID, MailboxID: s.record.MailboxID,
		Data: data,
	}
}

// End records the end. When the session was ended by something else before,
// that is why it ended, whatever e says.
func (s *live) End(e *broker.End, counters *broker.SessionEnd) {
	s.once.Do(func() {
		m := s.manager
		if e == nil {
			e = &broker.End{Reason: broker.EndInternal, Detail: "no reason was given"}
		}
		by := m.system()
		switch e.Reason {
		case broker.EndLogout, broker.EndClientClosed, broker.EndProtocol:
			by = s.actor
		}
		s.kill(e, by)
		end := s.cause()
		s.mu.Lock()
		by = s.endedBy
		s.mu.Unlock()

		data := broker.SessionEnd{}
		if counters != nil {
			data = *counters
		}
		data.Reason, data.OpenedAt = end.Reason, s.record.OpenedAt
		if end.Detail != "" {
			data.Detail = end.Detail
		}
		event := s.event(broker.EventSessionEnd, data)
		event.Actor = by
		m.unsaved.submit(m, event)
		// Behind it: Drain waits for what is in the table, and then for ends.
		m.unregister(s)
		m.metrics.ends.WithLabelValues(string(end.Reason)).Inc()
		m.logger.Info("session end", append(s.fields(),
			zap.String("reason", string(end.Reason)), zap.String("detail", data.Detail), zap.String("by", by.Name))...)
	})
}

// fields name the session in the log.
func (s *live) fields() []zap.Field {
	return []zap.Field{
		zap.String("session", string(s.record.ID)), zap.String("protocol", string(s.record.Protocol)),
		zap.String("agent", s.actor.Name), zap.String("workstation", s.workstation),
		zap.String("mailbox", s.mailbox.Address), zap.String("remote", s.record.RemoteAddr),
	}
}
