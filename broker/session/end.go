// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Info is a live session as operators see it.
type Info struct {
	Record   *broker.Session
	Decision *policy.Decision
	// Agent, Workstation and Mailbox are names; Workstation may be empty.
	Agent       string
	Workstation string
	Mailbox     string
	// IdleSince is zero while the client is busy.
	IdleSince time.Time
	// Ending says that the session is over and its connections are being
	// closed.
	Ending bool
}

// Sessions returns the sessions of this node, in no order. The caller must not
// change what they point to.
func (m *Manager) Sessions() []Info {
	all := m.sessions(nil)
	infos := make([]Info, len(all))
	for i, s := range all {
		infos[i] = Info{
			Record: s.record, Decision: s.decision,
			Agent: s.actor.Name, Workstation: s.workstation, Mailbox: s.mailbox.Address,
			Ending: s.over(),
		}
		if idle := s.idleSince.Load(); idle != 0 {
			infos[i].IdleSince = time.Unix(0, idle).UTC()
		}
	}
	return infos
}

// Live returns the records of the sessions of this node, those among them
// whose connections are still being closed. The caller must not change them.
func (m *Manager) Live() []*broker.Session {
	all := m.sessions(nil)
	records := make([]*broker.Session, len(all))
	for i, s := range all {
		records[i] = s.record
	}
	return records
}

// Count returns how many sessions Live would return.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.live)
}

// Standing returns the records of the sessions of this node that may go on
// under the policy at revision, or a later one; those that it ended are not
// among them, though their connections may still be open. ok is false while
// some session was not decided by it yet. The caller must not change the
// records.
func (m *Manager) Standing(revision int64) (records []*broker.Session, ok bool) {
	if m.followed.Load() < revision {
		return nil, false
	}
	for _, s := range m.sessions(nil) {
		if !s.over() {
			records = append(records, s.record)
		}
	}
	return records, true
}

// EndSession ends one session in somebody's name. The error is NotFound when
// it is not open on this node. It does not wait for the connections to close.
func (m *Manager) EndSession(_ context.Context, by broker.Actor, id broker.ID) error {
	m.mu.Lock()
	s := m.live[id]
	m.mu.Unlock()
	if s == nil || !s.kill(&broker.End{Reason: broker.EndByAdmin, Text: advise(textByAdmin, s.contact)}, by) {
		return broker.Errorf(broker.NotFound, "there is no such live session")
	}
	return nil
}

// EndAll ends every session and returns how many it ended. It does not wait
// for the connections to close.
func (m *Manager) EndAll(e *broker.End) int {
	ended := 0
	for _, s := range m.sessions(nil) {
		if s.kill(e, m.system()) {
			ended++
		}
	}
	return ended
}

// stopEntry lets nobody in any more.
func (m *Manager) stopEntry() {
	m.mu.Lock()
	m.draining = true
	m.mu.Unlock()
}

// Drain lets nobody in any more, ends every session, and returns when all have
// closed their connections and their ends are recorded, or when ctx ends: the
// error is Unavailable then.
func (m *Manager) Drain(ctx context.Context) error {
	m.stopEntry()
	m.EndAll(&broker.End{Reason: broker.EndDrain, Text: textDraining})
	for _, s := range m.sessions(nil) {
		select {
		case <-s.closed:
		case <-ctx.Done():
			return broker.Errorf(broker.Unavailable, "not all sessions have closed").WithCause(context.Cause(ctx))
		}
	}
	return m.unsaved.wait(ctx)
}
