// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// leaseGrace is how long after a lease's end its sessions are taken for
	// dead: their node has that time to end them.
	leaseGrace = time.Second
	// stalePerStep bounds how many sessions one transaction ends, since others
	// wait for it.
	stalePerStep = 200
)

var _ broker.Leases = (*Store)(nil)

// TakeLease is described at broker.Leases.
func (s *Store) TakeLease(ctx context.Context, node string, holder broker.ID, lasts time.Duration, takeOver bool) error {
	query := `INSERT INTO leases (node, holder, expires_at) VALUES ($1, $2, $3)
		ON CONFLICT (node) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at`
	if !takeOver {
		query += ` WHERE leases.expires_at < $4`
	}
	return s.write(ctx, func(t *tx) error {
		now, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		args := []any{node, string(holder), now + lasts.Microseconds()}
		if !takeOver {
			args = append(args, now-leaseGrace.Microseconds())
		}
		res, err := t.exec(query, args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return conflict("another process holds the lease of node %s: no two may have one name", node)
	})
}

// RenewLease is described at broker.Leases.
func (s *Store) RenewLease(ctx context.Context, node string, holder broker.ID, lasts time.Duration) (held bool, err error) {
	var renewed bool
	err = s.await(ctx, appending, func(t *tx) error {
		now, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		res, err := t.exec(`UPDATE leases SET expires_at = $1 WHERE node = $2 AND holder = $3`, now+lasts.Microseconds(), node, string(holder))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		renewed = n == 1
		return err
	})
	return err == nil && renewed, err
}

// EndLapsedSessions is described at broker.Leases.
func (s *Store) EndLapsedSessions(ctx context.Context, by string) (int, error) {
	total := 0
	for {
		var n int
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = t.endLapsed(by)
			return err
		})
		if err != nil {
			return total, err
		}
		if total += n; n < stalePerStep {
			return total, nil
		}
	}
}

// endLapsed does one step, and returns how many sessions it ended. A lease that
// is over goes with the first of its sessions: its holder can no longer prolong
// it.
func (t *tx) endLapsed(by string) (int, error) {
	now, err := t.store.dialect.clock(t)
	if err != nil {
		return 0, err
	}
	if _, err := t.exec(`DELETE FROM leases WHERE expires_at < $1`, now-leaseGrace.Microseconds()); err != nil {
		return 0, err
	}
	return t.endStale(by, `SELECT doc, ended_at, end_reason FROM sessions
		WHERE ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.node = sessions.node)
		ORDER BY id LIMIT $1`, stalePerStep)
}
