// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

const assignmentByID = `SELECT doc FROM assignments WHERE id = $1`

func assignmentEvent(a *broker.Assignment) broker.Event {
	return broker.Event{FirmID: a.FirmID, MailboxID: a.MailboxID, AgentID: a.AgentID}
}

// CreateAssignment puts an agent on a delegation. Firm and mailbox are the
// delegation's; terms that it does not hold are Invalid, with the field.
func (s *Store) CreateAssignment(ctx context.Context, by broker.Actor, a *broker.Assignment) error {
	n := *a
	if !n.RevokedAt.IsZero() {
		return broker.InvalidField("revoked_at", "a new assignment cannot be revoked")
	}
	n.Terms = n.Terms.Clone()
	if err := terms("terms", &n.Terms); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		d, err := t.assignmentFits(&n)
		if err != nil {
			return err
		}
		n.Pending = d.ApproveAgents
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO assignments (id, delegation_id, firm_id, mailbox_id, agent_id, created_at, doc)
			VALUES ($1, $2, $3, $4, $5, $6, $7)`, string(n.ID), string(n.DelegationID), string(n.FirmID),
			string(n.MailboxID), string(n.AgentID), n.CreatedAt.UnixMicro(), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindAssignment, verb: "created", id: n.ID, after: doc, event: assignmentEvent(&n)})
	})
	if err == nil {
		*a = n
	}
	return err
}

// assignmentFits checks n against its delegation, which it returns, and its
// agent, and fills in the firm and the mailbox.
func (t *tx) assignmentFits(n *broker.Assignment) (*broker.Delegation, error) {
	d, err := one[broker.Delegation](t.query, kindDelegation, delegationByID, string(n.DelegationID))
	if err != nil {
		return nil, missing(err, "delegation_id")
	}
	return d, t.assignmentWithin(d, n)
}

func (t *tx) assignmentWithin(d *broker.Delegation, n *broker.Assignment) error {
	if !d.RevokedAt.IsZero() {
		return conflict("the delegation was revoked")
	}
	if n.FirmID != "" && n.FirmID != d.FirmID {
		return broker.InvalidField("firm_id", "the delegation is another firm's")
	}
	if n.MailboxID != "" && n.MailboxID != d.MailboxID {
		return broker.InvalidField("mailbox_id", "the delegation is on another mailbox")
	}
	n.FirmID, n.MailboxID = d.FirmID, d.MailboxID
	if _, err := one[broker.Agent](t.query, kindAgent, agentByID, string(n.AgentID)); err != nil {
		return missing(err, "agent_id")
	}
	if err := t.sitesExist(&n.Terms); err != nil {
		return err
	}
	if field, ok := policy.Within(d.Terms, n.Terms); !ok {
		return broker.InvalidField("terms."+field, "wider than the delegation's")
	}
	if n.Terms.MaxAgents != 0 {
		return broker.InvalidField("terms.max_agents", "a delegation's alone")
	}
	if most := d.Terms.MaxAgents; most > 0 && !over(n.Terms.NotAfter, t.now) {
		others, err := t.agentsOn(d.ID, n.ID)
		if err != nil {
			return err
		}
		if !slices.Contains(others, n.AgentID) && len(others) >= most {
			return conflict("the delegation allows %d agents, and as many are assigned", most)
		}
	}
	return nil
}

// agentsOn returns the agents whose assignments on a delegation hold now or
// will, each once, leaving one assignment out.
func (t *tx) agentsOn(delegation, except broker.ID) ([]broker.ID, error) {
	all, err := many[broker.Assignment](t.query, kindAssignment,
		`SELECT doc FROM assignments WHERE delegation_id = $1 AND revoked_at IS NULL ORDER BY id`, string(delegation))
	if err != nil {
		return nil, err
	}
	var agents []broker.ID
	for _, a := range all {
		if a.ID != except && !over(a.Terms.NotAfter, t.now) && !slices.Contains(agents, a.AgentID) {
			agents = append(agents, a.AgentID)
		}
	}
	return agents, nil
}

// over reports whether terms have ended.
func over(notAfter, now time.Time) bool { return !notAfter.IsZero() && !now.Before(notAfter) }

// UpdateAssignment changes the terms alone; those that the delegation does not
// hold are Invalid, with the field.
func (s *Store) UpdateAssignment(ctx context.Context, by broker.Actor, a *broker.Assignment) error {
	wanted := a.Terms.Clone()
	if err := terms("terms", &wanted); err != nil {
		return err
	}
	id := a.ID
	var n broker.Assignment
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Assignment](t.query, kindAssignment, assignmentByID, string(id))
		if err != nil {
			return err
		}
		if !old.RevokedAt.IsZero() {
			return conflict("the assignment was revoked")
		}
		n = *old
		n.Terms = wanted
		if _, err := t.assignmentFits(&n); err != nil {
			return err
		}
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE assignments SET doc = $1 WHERE id = $2`, after, string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindAssignment, verb: "updated", id: id, before: before, after: after, event: assignmentEvent(&n),
		})
	})
	if err == nil {
		*a = n
	}
	return err
}

// ApproveAssignment lets a pending assignment open sessions.
func (s *Store) ApproveAssignment(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Assignment](t.query, kindAssignment, assignmentByID, string(id))
		if err != nil {
			return err
		}
		if err := t.speaksFor(by, old.FirmID); err != nil {
			return err
		}
		if !old.RevokedAt.IsZero() {
			return conflict("the assignment was revoked")
		}
		if !old.Pending {
			return nil
		}
		n := *old
		n.Pending = false
		before, after, err := documents(old, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE assignments SET doc = $1 WHERE id = $2`, after, string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindAssignment, verb: "approved", id: id, before: before, after: after, event: assignmentEvent(&n),
		})
	})
}

// RevokeAssignment ends an assignment for good. Revoking again is no error.
func (s *Store) RevokeAssignment(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		a, err := one[broker.Assignment](t.query, kindAssignment, assignmentByID, string(id))
		if err != nil || !a.RevokedAt.IsZero() {
			return err
		}
		return t.revokeAssignment(by, a)
	})
}

// revokeAssignments revokes those that the query returns.
func (t *tx) revokeAssignments(by broker.Actor, query string, args ...any) error {
	all, err := many[broker.Assignment](t.query, kindAssignment, query, args...)
	if err != nil {
		return err
	}
	for _, a := range all {
		if err := t.revokeAssignment(by, a); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) revokeAssignment(by broker.Actor, old *broker.Assignment) error {
	n := *old
	n.RevokedAt = t.now
	before, after, err := documents(old, &n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE assignments SET doc = $1, revoked_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
		return err
	}
	return t.recordChange(by, changed{
		kind: kindAssignment, verb: "revoked", id: n.ID, before: before, after: after, event: assignmentEvent(&n),
	})
}

// Assignment returns an assignment, revoked or not.
func (s *Store) Assignment(ctx context.Context, id broker.ID) (*broker.Assignment, error) {
	return one[broker.Assignment](s.read(ctx), kindAssignment, assignmentByID, string(id))
}

// Assignments returns all assignments, revoked ones among them, oldest first.
func (s *Store) Assignments(ctx context.Context) ([]*broker.Assignment, error) {
	return many[broker.Assignment](s.read(ctx), kindAssignment, `SELECT doc FROM assignments ORDER BY created_at, id`)
}

// AssignmentsOf returns an agent's assignments on a mailbox, revoked ones
// among them, oldest first.
func (s *Store) AssignmentsOf(ctx context.Context, agent, mailbox broker.ID) ([]*broker.Assignment, error) {
	return many[broker.Assignment](s.read(ctx), kindAssignment,
		`SELECT doc FROM assignments WHERE agent_id = $1 AND mailbox_id = $2 ORDER BY created_at, id`,
		string(agent), string(mailbox))
}
