// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

var _ broker.FirmState = (*Store)(nil)

// Each of these queries goes through an index that begins with the firm, so
// that it touches no row of another.

// FirmMailboxes returns a firm's mailboxes, by address.
func (s *Store) FirmMailboxes(ctx context.Context, firm broker.ID) ([]*broker.Mailbox, error) {
	return many[broker.Mailbox](s.read(ctx), kindMailbox,
		`SELECT doc FROM mailboxes WHERE firm_id = $1 AND deleted_at IS NULL ORDER BY address_key`, string(firm))
}

// FirmDelegations returns a firm's delegations, revoked ones among them,
// oldest first.
func (s *Store) FirmDelegations(ctx context.Context, firm broker.ID) ([]*broker.Delegation, error) {
	return many[broker.Delegation](s.read(ctx), kindDelegation,
		`SELECT doc FROM delegations WHERE firm_id = $1 ORDER BY id`, string(firm))
}

// FirmAssignments returns the assignments on a firm's delegations, revoked
// ones among them, oldest first.
func (s *Store) FirmAssignments(ctx context.Context, firm broker.ID) ([]*broker.Assignment, error) {
	return many[broker.Assignment](s.read(ctx), kindAssignment,
		`SELECT doc FROM assignments WHERE firm_id = $1 ORDER BY created_at, id`, string(firm))
}

// FirmSessions is Sessions for the sessions in one firm's mailboxes.
func (s *Store) FirmSessions(ctx context.Context, firm broker.ID, liveOnly bool, limit int) ([]*broker.Session, error) {
	if limit < 0 || limit > maxSessions {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxSessions)
	}
	if limit == 0 {
		limit = defaultSessions
	}
	query := `SELECT doc, ended_at, end_reason FROM sessions WHERE firm_id = $1 ORDER BY id DESC LIMIT $2`
	if liveOnly {
		query = `SELECT doc, ended_at, end_reason FROM sessions WHERE firm_id = $1 AND ended_at IS NULL ORDER BY id DESC LIMIT $2`
	}
	return sessions(s.read(ctx), query, string(firm), limit)
}

// RevokeFirm revokes all that a firm gave, in one transaction.
func (s *Store) RevokeFirm(ctx context.Context, by broker.Actor, firm broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(firm)); err != nil {
			return err
		}
		standing, err := many[broker.Delegation](t.query, kindDelegation,
			`SELECT doc FROM delegations WHERE firm_id = $1 AND revoked_at IS NULL ORDER BY id`, string(firm))
		if err != nil {
			return err
		}
		for _, d := range standing {
			if err := t.revokeDelegation(by, d); err != nil {
				return err
			}
		}
		return nil
	})
}
