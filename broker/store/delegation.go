// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

const delegationByID = `SELECT doc FROM delegations WHERE id = $1`

func delegationEvent(d *broker.Delegation) broker.Event {
	return broker.Event{FirmID: d.FirmID, MailboxID: d.MailboxID}
}

// CreateDelegation grants on a mailbox. The firm is the mailbox's; when d
// names another one that is Invalid.
func (s *Store) CreateDelegation(ctx context.Context, by broker.Actor, d *broker.Delegation) error {
	n := *d
	if !n.RevokedAt.IsZero() {
		return broker.InvalidField("revoked_at", "a new delegation cannot be revoked")
	}
	n.Terms = n.Terms.Clone()
	if err := terms("terms", &n.Terms); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(n.MailboxID))
		if err != nil {
			return missing(err, "mailbox_id")
		}
		if n.FirmID != "" && n.FirmID != m.FirmID {
			return broker.InvalidField("firm_id", "the mailbox is another firm's")
		}
		n.FirmID = m.FirmID
		if err := t.sitesExist(&n.Terms); err != nil {
			return err
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO delegations (id, firm_id, mailbox_id, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.FirmID), string(n.MailboxID), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindDelegation, verb: "created", id: n.ID, after: doc, event: delegationEvent(&n)})
	})
	if err == nil {
		*d = n
	}
	return err
}

// UpdateDelegation changes the terms, and whether agents need approval: those
// who are assigned already need none. Assignments may then be wider
// than they were granted: a decision holds what both allow.
func (s *Store) UpdateDelegation(ctx context.Context, by broker.Actor, d *broker.Delegation) error {
	wanted := d.Terms.Clone()
	if err := terms("terms", &wanted); err != nil {
		return err
	}
	id, approve := d.ID, d.ApproveAgents
	var n broker.Delegation
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Delegation](t.query, kindDelegation, delegationByID, string(id))
		if err != nil {
			return err
		}
		if !old.RevokedAt.IsZero() {
			return conflict("the delegation was revoked")
		}
		if err := t.sitesExist(&wanted); err != nil {
			return err
		}
		if most := wanted.MaxAgents; most > 0 {
			agents, err := t.agentsOn(id, "")
			if err != nil {
				return err
			}
			if len(agents) > most {
				return broker.InvalidField("terms.max_agents", "%d agents are assigned: revoke assignments first", len(agents))
			}
		}
		n = *old
		n.Terms, n.ApproveAgents = wanted, approve
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE delegations SET doc = $1 WHERE id = $2`, after, string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindDelegation, verb: "updated", id: id, before: before, after: after, event: delegationEvent(&n),
		})
	})
	if err == nil {
		*d = n
	}
	return err
}

// RevokeDelegation ends a delegation and its assignments, for good.
func (s *Store) RevokeDelegation(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Delegation](t.query, kindDelegation, delegationByID, string(id))
		if err != nil || !old.RevokedAt.IsZero() {
			return err
		}
		return t.revokeDelegation(by, old)
	})
}

func (t *tx) revokeDelegation(by broker.Actor, old *broker.Delegation) error {
	n := *old
	n.RevokedAt = t.now
	before, after, err := documents(old, &n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE delegations SET doc = $1, revoked_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
		return err
	}
	// The delegation first: it is what a session is told of.
	if err := t.recordChange(by, changed{
		kind: kindDelegation, verb: "revoked", id: n.ID, before: before, after: after, event: delegationEvent(&n),
	}); err != nil {
		return err
	}
	return t.revokeAssignments(by,
		`SELECT doc FROM assignments WHERE delegation_id = $1 AND revoked_at IS NULL ORDER BY id`, string(n.ID))
}

// Delegation returns a delegation, revoked or not.
func (s *Store) Delegation(ctx context.Context, id broker.ID) (*broker.Delegation, error) {
	return one[broker.Delegation](s.read(ctx), kindDelegation, delegationByID, string(id))
}

// Delegations returns all delegations, revoked ones among them, oldest first.
func (s *Store) Delegations(ctx context.Context) ([]*broker.Delegation, error) {
	return many[broker.Delegation](s.read(ctx), kindDelegation, `SELECT doc FROM delegations ORDER BY id`)
}
