// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Open lets a client in: see broker.Gate. A client that is denied gets its
// answer at a time that depends on its earlier failures alone; an agent who is
// refused waits for his, as long as he was refused often of late.
func (m *Manager) Open(ctx context.Context, l broker.Login) (broker.LiveSession, error) {
	began := time.Now()
	a := m.newAttempt(l)
	s, f, err := m.admit(ctx, a)
	m.metrics.opens.WithLabelValues(string(l.Protocol), outcome(err)).Inc()
	if err == nil {
		return s, nil
	}
	if err.Code != broker.Denied {
		m.refused(a, f, err)
		if f != nil && f.cause == "" && (err.Code == broker.Refused || err.Code == broker.Limit) {
			// Each refusal is recorded: he must not fill the log with them. The
			// first is answered at once.
			delay := m.backoff.fail("agent "+string(f.agent.ID), began)
			hold(ctx, began.Add(delay-firstDelay))
		}
		return nil, err
	}
	m.denied(ctx, began, a, f)
	return nil, err
}

func outcome(err *broker.Error) string {
	if err == nil {
		return "opened"
	}
	return string(err.Code)
}

// admit does the work of Open. The finding is nil when the state could not be
// read.
func (m *Manager) admit(ctx context.Context, a *attempt) (*live, *finding, *broker.Error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := m.started(ctx); err != nil {
		return nil, nil, err
	}
	if down := m.certify(a); down != nil {
		return nil, nil, down
	}
	s, f, err := m.decided(ctx, a)
	if err != nil {
		return nil, f, err
	}
	if end := m.standing(s); end != nil { // what was revoked before it was in the table
		s.kill(end, m.system())
	}
	s.arm()
	if err := m.place(ctx, s); err != nil {
		m.discard(s)
		return nil, f, err
	}
	if end := s.cause(); end != nil {
		m.discard(s)
		return nil, f, endError(end)
	}
	revision, err := m.record(ctx, s)
	if err != nil {
		return nil, f, err
	}
	m.confirm(ctx, s, revision)
	// The record took its time: whatever ended the session meanwhile has
	// cancelled it, since it was in the table all along.
	if end := s.cause(); end != nil {
		s.End(end, nil)
		return nil, f, endError(end)
	}
	m.logger.Info("session open", s.fields()...)
	return s, f, nil
}

// started waits until the state was read for the first time.
func (m *Manager) started(ctx context.Context) *broker.Error {
	select {
	case <-m.ready:
		return nil
	default:
	}
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-m.ready:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return broker.Errorf(broker.Unavailable, textUnavailable)
}

var errRestless = errors.New("the policy changed with every attempt to decide")

// decided identifies, decides and registers. A refusal holds only at a revision
// that is still the policy's; for a session, confirm asks that.
func (m *Manager) decided(ctx context.Context, a *attempt) (*live, *finding, *broker.Error) {
	unreadable := func(err error) *broker.Error {
		m.metrics.stateFailures.Inc()
		return broker.Errorf(broker.Unavailable, textUnavailable).WithCause(err)
	}
	v := m.viewAt(0)
	for range maxDecideAttempts {
		f, err := m.identify(ctx, v, a)
		if err != nil {
			return nil, nil, unreadable(err)
		}
		f, down, err := m.answered(ctx, v, a, f)
		switch {
		case err != nil:
			return nil, nil, unreadable(err)
		case down != nil:
			return nil, nil, down
		}
		s, refusal := m.candidate(ctx, v, a, f)
		if s != nil {
			if err := m.register(s); err != nil {
				return nil, f, err
			}
			return s, f, nil
		}
		revision, err := m.state.PolicyRevision(ctx)
		if err != nil {
			return nil, f, unreadable(err)
		}
		if revision == v.revision {
			if f.cause != "" {
				if down := m.pretend(ctx, v, a, f); down != nil {
					return nil, nil, down
				}
			}
			return nil, f, refusal
		}
		v = m.viewAt(revision)
	}
	return nil, nil, broker.Errorf(broker.Unavailable, textUnavailable).WithCause(errRestless)
}

// candidate decides. Exactly one of its results is nil.
func (m *Manager) candidate(ctx context.Context, v *view, a *attempt, f *finding) (*live, *broker.Error) {
	if f.cause != "" {
		err := broker.Errorf(broker.Denied, textDenied)
		err.Reason = f.cause
		return nil, err
	}
	contact := v.contact(ctx, f.mailbox.FirmID)
	g, decision, site, refusal := f.choose(f.grants)
	if refusal != nil {
		err := broker.Errorf(broker.Refused, "%s", advise(refusal.Text, contact))
		err.Reason = refusal.Reason
		return nil, err
	}
	if m.witnesses != nil && m.witnesses.Stopped(f.mailbox.FirmID) {
		err := broker.Errorf(broker.Refused, "%s", advise(textWitness, contact))
		err.Reason = reasonWitness
		return nil, err
	}
	return m.newLive(v, a, f, g, decision, site, contact), nil
}

// contact returns whom the firm names for questions, if that can be read.
func (v *view) contact(ctx context.Context, id broker.ID) string {
	firm, err := v.firm(ctx, id)
	if err != nil || firm == nil {
		return ""
	}
	return firm.Contact
}

// register enters a session into the table: from here on a change finds it.
func (m *Manager) register(s *live) *broker.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.draining:
		return broker.Errorf(broker.Unavailable, textDraining)
	case m.lapsed:
		return broker.Errorf(broker.Unavailable, textUnavailable)
	}
	m.live[s.record.ID] = s
	m.metrics.live.WithLabelValues(string(s.record.Protocol)).Inc()
	return nil
}

// unregister takes a session out of the table and gives back its place.
func (m *Manager) unregister(s *live) {
	m.mu.Lock()
	delete(m.live, s.record.ID)
	m.mu.Unlock()
	m.metrics.live.WithLabelValues(string(s.record.Protocol)).Dec()
	m.budget.release(s)
	s.disarm()
	close(s.closed)
}

// discard drops a session that was never recorded.
func (m *Manager) discard(s *live) {
	s.once.Do(func() {
		s.kill(&broker.End{Reason: broker.EndInternal, Text: textInternal}, m.system())
		m.unregister(s)
	})
}

// place finds room in the mailbox's budget, and waits for the end of the
// session whose place it is.
func (m *Manager) place(ctx context.Context, s *live) *broker.Error {
	limit := m.submissions
	if s.record.Protocol == broker.ProtocolIMAP {
		limit = m.connections
		if s.mailbox.MaxConnections > 0 {
			limit = s.mailbox.MaxConnections
		}
		limit = max(1, limit-m.reserved)
	}
	predecessor, ok := m.budget.take(s, limit)
	if !ok {
		m.metrics.budgetRefusals.WithLabelValues(string(s.record.Protocol)).Inc()
		err := broker.Errorf(broker.Limit, textBudget)
		err.Reason = "budget"
		return err
	}
	if predecessor == nil {
		return nil
	}
	predecessor.kill(&broker.End{
		Reason: broker.EndBudget, Text: textHandover, Detail: "its place went to session " + string(s.record.ID),
	}, m.system())
	timer := time.NewTimer(handoverTimeout)
	defer timer.Stop()
	select {
	case <-predecessor.closed:
	case <-timer.C: // its proxy is late: what is reserved makes up for it
	case <-ctx.Done():
		return broker.Errorf(broker.Unavailable, textUnavailable).WithCause(context.Cause(ctx))
	}
	return nil
}

// confirm ends a session that the policy does not let go on as it stood when
// session.open became durable. It was decided by a view that may have been
// older; what is committed later finds the session in the table.
func (m *Manager) confirm(ctx context.Context, s *live, revision int64) {
	// An error has ended the session, as has a decision; both are its cause.
	_ = s.check(ctx, revision)
}

// record makes session.open durable, and returns the policy's revision in that
// transaction.
func (m *Manager) record(ctx context.Context, s *live) (revision int64, _ *broker.Error) {
	e := s.event(broker.EventSessionOpen, broker.SessionOpen{
		Session: *s.record, Decision: *s.decision, Revision: s.decidedAt.Load(),
	})
	err := m.log.Append(ctx, e)
	if err == nil {
		return e.PolicyRevision, nil
	}
	m.logger.Error("a session could not be recorded", append(s.fields(), zap.Error(err))...)
	end := &broker.End{Reason: broker.EndRecord, Text: textUnrecorded, Detail: "session.open was not confirmed"}
	if broker.CodeOf(err) == broker.Unavailable {
		// It may have become durable all the same; then it must have an end.
		s.End(end, nil)
	} else {
		m.discard(s)
	}
	return 0, broker.Errorf(broker.Unavailable, textUnrecorded).WithCause(err)
}

// denied records a failure and waits until its answer is due. The delay counts
// from the attempt's beginning, so that it covers whatever the look-ups took.
func (m *Manager) denied(ctx context.Context, began time.Time, a *attempt, f *finding) {
	l := &a.login
	delay := m.backoff.fail(a.source(), began)
	m.metrics.authFailures.WithLabelValues(f.cause).Inc()
	username := l.Username
	if username == "" {
		username = l.AuthorizationID
	}
	m.submit(f.event(broker.EventAuthFailed, broker.AuthFailed{
		Protocol: l.Protocol, RemoteAddr: l.RemoteAddr.String(), Username: recordable(username), Cause: f.cause, KeyPin: a.pin,
		CertificateName: certificateName(a.company),
	}))
	if f.astray() {
		m.submit(f.event(broker.EventAppPasswordAstray, broker.AppPasswordAstray{
			AppPasswordID: f.password.ID, Protocol: l.Protocol, RemoteAddr: l.RemoteAddr.String(), Cause: f.cause, KeyPin: a.pin,
		}))
	}
	m.logger.Warn("sign-in denied", zap.String("cause", f.cause), zap.String("protocol", string(l.Protocol)),
		zap.Stringer("remote", l.RemoteAddr), zap.String("key_pin", a.pin), zap.Any("certificate_name", certificateName(a.company)), zap.Duration("delay", delay))
	hold(ctx, began.Add(delay))
}

// hold waits until an answer is due.
func hold(ctx context.Context, due time.Time) {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// refused records that a known agent was kept out.
func (m *Manager) refused(a *attempt, f *finding, err *broker.Error) {
	l := &a.login
	fields := []zap.Field{
		zap.String("code", string(err.Code)), zap.String("reason", err.Reason),
		zap.String("protocol", string(l.Protocol)), zap.Stringer("remote", l.RemoteAddr), zap.Error(err.Cause),
	}
	if f == nil || f.cause != "" {
		m.logger.Error("a client was kept out", fields...)
		return
	}
	fields = append(fields, zap.String("agent", f.agent.Name), zap.String("mailbox", f.mailbox.Address))
	m.logger.Warn("session refused", fields...)
	m.submit(f.event(broker.EventSessionRefused, broker.SessionRefused{
		Protocol: l.Protocol, RemoteAddr: l.RemoteAddr.String(), Code: err.Code, Reason: err.Reason, Text: err.Public,
	}))
}

// submit queues an event whose loss the log alone can mend.
func (m *Manager) submit(e *broker.Event) {
	if r := m.log.Submit(e); r.Settled() {
		if err := r.Wait(context.Background()); err != nil {
			m.logger.Error("an event was not recorded", zap.String("type", string(e.Type)), zap.Error(err))
		}
	}
}

func (m *Manager) system() broker.Actor { return broker.Actor{Kind: "system", Name: m.node} }

// newLive makes the session that a decision allows.
func (m *Manager) newLive(v *view, a *attempt, f *finding, g grant, d *policy.Decision, site broker.ID, contact string) *live {
	s := &live{
		manager: m, mailbox: f.mailbox, decision: d, pin: a.pin, company: a.company, addr: f.addr, contact: contact,
		hardware: f.workstation != nil && f.workstation.Class == broker.ClassHardware,
		actor:    broker.Actor{Kind: "agent", Name: f.agent.Name, ID: f.agent.ID},
		closed:   make(chan struct{}),
		least:    f.mailbox.MinCredential, leastPending: f.mailbox.MinCredentialID,
		record: &broker.Session{
			ID: broker.NewID(), Protocol: a.login.Protocol,
			FirmID: f.mailbox.FirmID, MailboxID: f.mailbox.ID, AgentID: f.agent.ID, SiteID: site,
			DelegationID: g.delegation.ID, AssignmentID: g.assignment.ID, Authentication: f.method,
			RemoteAddr: a.login.RemoteAddr.String(), Node: m.node, OpenedAt: f.now.UTC(),
		},
	}
	if f.password != nil {
		s.record.AppPasswordID = f.password.ID
	}
	if f.workstation != nil && a.pin != "" {
		s.record.WorkstationID, s.workstation = f.workstation.ID, f.workstation.Name
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.decidedAt.Store(v.revision)
	return s
}
