// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

const lockByID = `SELECT doc FROM locks WHERE id = $1`

// CreateLock puts a lock on something that exists. One on a firm or a mailbox
// is recorded in the firm's log, others in the BPO's.
func (s *Store) CreateLock(ctx context.Context, by broker.Actor, l *broker.Lock) error {
	n := *l
	n.Until = stored(n.Until)
	if err := text("message", n.Message, maxText); err != nil {
		return err
	}
	if !n.RemovedAt.IsZero() {
		return broker.InvalidField("removed_at", "a new lock cannot be removed")
	}
	err := s.mutate(ctx, by, func(t *tx) error { return t.createLock(by, &n) })
	if err == nil {
		*l = n
	}
	return err
}

func (t *tx) createLock(by broker.Actor, n *broker.Lock) error {
	e, err := t.lockEvent(n)
	if err != nil {
		return missing(err, "target_id")
	}
	if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
		return err
	}
	if !n.Until.IsZero() && !n.Until.After(t.now) {
		return broker.InvalidField("until", "over already")
	}
	doc, err := encode(n)
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO locks (id, target, target_id, doc) VALUES ($1, $2, $3, $4)`,
		string(n.ID), string(n.Target), string(n.TargetID), doc); err != nil {
		return err
	}
	return t.recordChange(by, changed{
		kind: kindLock, verb: "created", id: n.ID, after: doc, target: n.Target, targetID: n.TargetID, event: e,
	})
}

// lockEvent returns the ids of what the lock is on; NotFound if it is not
// there.
func (t *tx) lockEvent(l *broker.Lock) (broker.Event, error) {
	id := string(l.TargetID)
	switch l.Target {
	case broker.LockAgent:
		_, err := one[broker.Agent](t.query, kindAgent, agentByID, id)
		return broker.Event{AgentID: l.TargetID}, err
	case broker.LockWorkstation:
		_, err := one[broker.Workstation](t.query, kindWorkstation, workstationByID, id)
		return broker.Event{WorkstationID: l.TargetID}, err
	case broker.LockMailbox:
		m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, id)
		if err != nil {
			return broker.Event{}, err
		}
		return mailboxEvent(m), nil
	case broker.LockFirm:
		_, err := one[broker.Firm](t.query, kindFirm, firmByID, id)
		return broker.Event{FirmID: l.TargetID}, err
	case broker.LockSite:
		_, err := one[broker.Site](t.query, kindSite, siteByID, id)
		return broker.Event{}, err
	}
	return broker.Event{}, broker.InvalidField("target", "use agent, workstation, mailbox, firm or site")
}

// RemoveLock takes a lock away. Removing again is no error.
func (s *Store) RemoveLock(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		l, err := one[broker.Lock](t.query, kindLock, lockByID, string(id))
		if err != nil || !l.RemovedAt.IsZero() {
			return err
		}
		return t.removeLock(by, l)
	})
}

// removeLocks removes those on a thing that is about to go.
func (t *tx) removeLocks(by broker.Actor, target broker.LockTarget, id broker.ID) error {
	all, err := many[broker.Lock](t.query, kindLock,
		`SELECT doc FROM locks WHERE target = $1 AND target_id = $2 AND removed_at IS NULL ORDER BY id`, string(target), string(id))
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := t.removeLock(by, l); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) removeLock(by broker.Actor, old *broker.Lock) error {
	e, err := t.lockEvent(old)
	if err != nil {
		return err
	}
	n := *old
	n.RemovedAt = t.now
	before, after, err := documents(old, &n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE locks SET doc = $1, removed_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
		return err
	}
	return t.recordChange(by, changed{
		kind: kindLock, verb: "removed", id: n.ID, before: before, after: after, target: n.Target, targetID: n.TargetID, event: e,
	})
}

// Locks returns those not removed, oldest first; those whose time is over are
// among them.
func (s *Store) Locks(ctx context.Context) ([]*broker.Lock, error) {
	return many[broker.Lock](s.read(ctx), kindLock, `SELECT doc FROM locks WHERE removed_at IS NULL ORDER BY id`)
}
