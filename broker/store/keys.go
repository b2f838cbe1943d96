// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// keyDelay is how long events wait for their keys: what has gathered by
	// then shares the pages that the keys are written to.
	keyDelay = time.Second
	// keysPerStep bounds how many events of a log one transaction gives keys,
	// since events that come meanwhile wait for it.
	keysPerStep = 500
)

// frequent are the types that a log consists of. They have no keys of their
// own: reading the log finds them as fast.
func frequent() []broker.EventType {
	return []broker.EventType{
		broker.EventSessionOpen, broker.EventSessionEnd, broker.EventMessageOpen, broker.EventSendIntent, broker.EventSendResult,
	}
}

// keyQueries give the events of one log (number, from, to exclusive) the keys
// of their session and of their type.
func keyQueries() [2]string {
	var types strings.Builder
	for i, t := range frequent() {
		if i > 0 {
			types.WriteString(", ")
		}
		types.WriteString("'" + string(t) + "'")
	}
	const insert = `INSERT INTO event_keys (log, key, seq) SELECT log, `
	const rest = `, seq FROM events WHERE log = $1 AND seq >= $2 AND seq < $3 AND `
	return [2]string{
		insert + "session_id" + rest + "session_id IS NOT NULL ON CONFLICT DO NOTHING",
		insert + "type" + rest + "type NOT IN (" + types.String() + ") ON CONFLICT DO NOTHING",
	}
}

// keyEvents gives the oldest events without keys theirs, and reports whether
// there are more.
func (t *tx) keyEvents() (more bool, err error) {
	type span struct{ log, from, to int64 }
	var spans []span
	rows, err := t.query(t.store.dialect.unkeyed())
	if err != nil {
		return false, err
	}
	for rows.Next() {
		var s span
		if err := rows.Scan(&s.log, &s.from, &s.to); err != nil {
			return false, errors.Join(err, rows.Close())
		}
		spans = append(spans, s)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, err
	}
	for _, s := range spans {
		if s.to-s.from > keysPerStep {
			s.to, more = s.from+keysPerStep, true
		}
		for _, query := range t.store.keyQueries {
			if _, err := t.exec(query, s.log, s.from, s.to); err != nil {
				return false, err
			}
		}
		if err := t.update(`UPDATE logs SET keyed = $1 WHERE number = $2`, s.to, s.log); err != nil {
			return false, err
		}
	}
	return more, nil
}

// keyQuery returns the queries that find the events of q when it is narrowed:
// among those that have keys, and among the newest, which have none yet. What
// gets its key between the two is found by the second, since the bound between
// them was read before.
func (s *Store) keyQuery(ctx context.Context, q broker.EventQuery) (keyed, newest eventSelect, err error) {
	rows, err := s.read(ctx)(`SELECT keyed FROM logs WHERE firm_id = $1`, string(q.FirmID))
	if err != nil {
		return keyed, newest, err
	}
	var bound int64
	if err := scanOne(rows, &bound); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return keyed, newest, dbError(err)
	}
	if q.SessionID == "" && slices.Contains(frequent(), q.Type) {
		return keyed, selectEvents(q), nil
	}
	beyond := q
	beyond.After = max(q.After, bound-1) // one bound: of two, SQLite may seek to the lower
	newest = selectEvents(beyond)
	keyed = selectEvents(q)
	key := string(q.SessionID)
	if key == "" {
		key = string(q.Type)
	}
	keyed.from = `event_keys k JOIN events e ON e.log = k.log AND e.seq = k.seq JOIN logs l ON l.number = k.log`
	keyed.where(" AND k.key = $%d", key)
	keyed.where(" AND k.seq > $%d", q.After)
	keyed.where(" AND k.seq < $%d", bound)
	keyed.order = "k.seq"
	return keyed, newest, nil
}
