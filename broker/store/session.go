// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Sessions returns session records, newest first: their ids are UUIDv7, which
// are in the order of their making. limit is 1 to 10000; 0: 1000.
func (s *Store) Sessions(ctx context.Context, liveOnly bool, limit int) ([]*broker.Session, error) {
	if limit < 0 || limit > maxSessions {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxSessions)
	}
	if limit == 0 {
		limit = defaultSessions
	}
	query := `SELECT doc, ended_at, end_reason FROM sessions ORDER BY id DESC LIMIT $1`
	if liveOnly {
		query = `SELECT doc, ended_at, end_reason FROM sessions WHERE ended_at IS NULL
			ORDER BY id DESC LIMIT $1`
	}
	return sessions(s.read(ctx), query, limit)
}

func sessions(q querier, query string, args ...any) ([]*broker.Session, error) {
	rows, err := q(query, args...)
	if err != nil {
		return nil, dbError(err)
	}
	defer rows.Close()
	var all []*broker.Session
	for rows.Next() {
		var doc []byte
		var endedAt *int64
		var reason *string
		if err := rows.Scan(&doc, &endedAt, &reason); err != nil {
			return nil, dbError(err)
		}
		x := new(broker.Session)
		if err := json.Unmarshal(doc, x); err != nil {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
		}
		if endedAt != nil {
			x.EndedAt = time.UnixMicro(*endedAt).UTC()
		}
		if reason != nil {
			x.EndReason = *reason
		}
		all = append(all, x)
	}
	return all, dbError(rows.Err())
}

// EndStaleSessions ends the sessions that a node left open when it died, each
// with its session.end event, and returns how many they were.
func (s *Store) EndStaleSessions(ctx context.Context, node string) (int, error) {
	total := 0
	for {
		var n int
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = t.endStale(node, `SELECT doc, ended_at, end_reason FROM sessions
				WHERE node = $1 AND ended_at IS NULL ORDER BY id LIMIT $2`, node, stalePerStep)
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

// endStale ends the sessions that a query finds, in the name of a node.
func (t *tx) endStale(by, query string, args ...any) (int, error) {
	stale, err := sessions(t.query, query, args...)
	if err != nil {
		return 0, err
	}
	for _, x := range stale {
		if err := t.appendEvent(&broker.Event{
			Type: broker.EventSessionEnd, Actor: broker.Actor{Kind: "system", Name: by},
			FirmID: x.FirmID, SessionID: x.ID, AgentID: x.AgentID,
			WorkstationID: x.WorkstationID, MailboxID: x.MailboxID,
			Data: broker.SessionEnd{Reason: broker.EndStale, OpenedAt: x.OpenedAt},
		}); err != nil {
			return 0, err
		}
	}
	return len(stale), nil
}

const selectRevision = `SELECT revision FROM policy WHERE one = 1`

// PolicyRevision returns the last revision that was committed, by whatever
// process.
func (s *Store) PolicyRevision(ctx context.Context) (int64, error) {
	rows, err := s.read(ctx)(selectRevision)
	if err != nil {
		return 0, err
	}
	var revision int64
	return revision, dbError(scanOne(rows, &revision))
}
