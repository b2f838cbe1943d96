// SPDX-License-Identifier: Apache-2.0

package httpapitest

import (
	"context"
	"slices"
	"sync"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/policy"
)

// Sessions holds live sessions and ends them on changes of the state, as
// broker/session does. Its methods may be called from any goroutine.
type Sessions struct {
	store  *store.Store
	cancel func()

	mu   sync.Mutex
	live map[broker.ID]*session
	// followed is the revision of the last change.
	followed int64
	// deaf keeps connections open whatever happens.
	deaf bool
}

// session is a record and what it was opened under.
type session struct {
	record      *broker.Session
	delegation  policy.Terms
	assignment  policy.Terms
	workstation broker.Workstation
	// pin is the first of the workstation's.
	pin string
	// over says that it should have ended.
	over bool
}

func newSessions(s *store.Store) *Sessions {
	all := &Sessions{store: s, live: map[broker.ID]*session{}}
	all.cancel = s.Subscribe(all.changed)
	return all
}

func (s *Sessions) close() { s.cancel() }

// Open records a session and holds it as live.
func (s *Sessions) Open(ctx context.Context, record *broker.Session) error {
	err := s.store.AppendEvents(ctx, []*broker.Event{{
		Type: broker.EventSessionOpen, FirmID: record.FirmID, Actor: broker.Actor{Kind: "agent", ID: record.AgentID},
		SessionID: record.ID, AgentID: record.AgentID, WorkstationID: record.WorkstationID, MailboxID: record.MailboxID,
		Data: broker.SessionOpen{Session: *record},
	}})
	if err != nil {
		return err
	}
	opened := &session{record: record}
	d, err := s.store.Delegation(ctx, record.DelegationID)
	if err != nil {
		return err
	}
	a, err := s.store.Assignment(ctx, record.AssignmentID)
	if err != nil {
		return err
	}
	opened.delegation, opened.assignment = d.Terms, a.Terms
	if record.WorkstationID != "" {
		w, err := s.store.Workstation(ctx, record.WorkstationID)
		if err != nil {
			return err
		}
		opened.workstation, opened.pin = *w, w.KeyPins[0]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[record.ID] = opened
	return nil
}

// IgnoreChanges makes sessions outlive whatever should end them.
func (s *Sessions) IgnoreChanges() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = true
}

// Live returns the live sessions (httpapi.Sessions).
func (s *Sessions) Live() []*broker.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records(func(*session) bool { return true })
}

// Standing returns those that may go on (httpapi.Sessions).
func (s *Sessions) Standing(revision int64) (records []*broker.Session, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed < revision {
		return nil, false
	}
	return s.records(func(x *session) bool { return !x.over }), true
}

func (s *Sessions) records(wanted func(*session) bool) []*broker.Session {
	records := make([]*broker.Session, 0, len(s.live))
	for _, x := range s.live {
		if wanted(x) {
			records = append(records, x.record)
		}
	}
	return records
}

// EndSession ends one (httpapi.Sessions).
func (s *Sessions) EndSession(_ context.Context, _ broker.Actor, id broker.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[id] == nil {
		return broker.Errorf(broker.NotFound, "it is not live")
	}
	delete(s.live, id)
	return nil
}

// changed ends what a change makes narrower.
func (s *Sessions) changed(c broker.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.live {
		if touches(c, x.record) && !s.goesOn(c, x) {
			if x.over = true; !s.deaf {
				delete(s.live, id)
			}
		}
	}
	s.followed = c.Revision
}

// goesOn looks only at what can be changed without being taken away.
func (s *Sessions) goesOn(c broker.Change, x *session) bool {
	ctx := context.Background()
	switch c.Kind {
	case "agent":
		_, err := s.store.Agent(ctx, c.ID)
		return err == nil
	case "delegation":
		d, err := s.store.Delegation(ctx, c.ID)
		return err == nil && d.RevokedAt.IsZero() && within(d.Terms, x.delegation)
	case "assignment":
		a, err := s.store.Assignment(ctx, c.ID)
		return err == nil && a.RevokedAt.IsZero() && within(a.Terms, x.assignment)
	case "workstation":
		w, err := s.store.Workstation(ctx, c.ID)
		return err == nil && slices.Contains(w.KeyPins, x.pin) && (w.SiteID == "" || w.SiteID == x.workstation.SiteID)
	}
	return false
}

func within(now, opened policy.Terms) bool {
	_, ok := policy.Within(now, opened)
	return ok
}

func touches(c broker.Change, s *broker.Session) bool {
	kind, id := c.Kind, c.ID
	if kind == "lock" {
		kind, id = string(c.Target), c.TargetID
	}
	switch kind {
	case "firm":
		return s.FirmID == id
	case "mailbox":
		return s.MailboxID == id
	case "agent":
		return s.AgentID == id
	case "workstation":
		return s.WorkstationID == id
	case "site":
		return s.SiteID == id
	case "delegation":
		return s.DelegationID == id
	case "assignment":
		return s.AssignmentID == id
	case "app-password":
		return s.AppPasswordID == id
	}
	return false
}
