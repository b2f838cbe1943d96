// SPDX-License-Identifier: Apache-2.0

package httpapitest

import (
	"context"
	"sync"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
)

// Sessions holds live sessions and ends them on changes of the state, as
// broker/session does. Its methods may be called from any goroutine.
type Sessions struct {
	store  *store.Store
	cancel func()

	mu   sync.Mutex
	live map[broker.ID]*broker.Session
	// deaf makes changes end nothing.
	deaf bool
}

func newSessions(s *store.Store) *Sessions {
	all := &Sessions{store: s, live: map[broker.ID]*broker.Session{}}
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[record.ID] = record
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
	live := make([]*broker.Session, 0, len(s.live))
	for _, record := range s.live {
		live = append(live, record)
	}
	return live
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

// changed ends what a change touches.
func (s *Sessions) changed(c broker.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		return
	}
	for id, record := range s.live {
		if touches(c, record) {
			delete(s.live, id)
		}
	}
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
