// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// Events returns events of one log. Data is the catalogue's struct of the
// type; of a type or version that this Postern does not know it is
// json.RawMessage.
func (s *Store) Events(ctx context.Context, q broker.EventQuery) ([]*broker.StoredEvent, error) {
	if q.Limit < 0 || q.Limit > maxEvents {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxEvents)
	}
	if q.Limit == 0 {
		q.Limit = defaultEvents
	}
	if q.After < -1 || q.After == math.MaxInt64 {
		return nil, broker.InvalidField("after", "use -1 or the last number seen")
	}
	query, args := eventQuery(q)
	rows, err := s.read(ctx)(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*broker.StoredEvent
	for rows.Next() {
		e := new(broker.StoredEvent)
		var leaf []byte
		if err := rows.Scan((*[]byte)(&e.Record), &e.Salt, &leaf); err != nil {
			return nil, dbError(err)
		}
		copy(e.LeafHash[:], leaf)
		if err := s.decodeEvent(e); err != nil {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(fmt.Errorf("a stored event: %w", err))
		}
		all = append(all, e)
	}
	return all, dbError(rows.Err())
}

func eventQuery(q broker.EventQuery) (string, []any) {
	var b strings.Builder
	b.WriteString(`SELECT e.record, e.salt, e.leaf_hash FROM events e JOIN logs l ON l.number = e.log
		WHERE l.firm_id = $1 AND e.seq > $2`)
	args := []any{string(q.FirmID), q.After}
	for _, narrow := range []struct{ column, value string }{{"type", string(q.Type)}, {"session_id", string(q.SessionID)}} {
		if narrow.value != "" {
			args = append(args, narrow.value)
			fmt.Fprintf(&b, " AND e.%s = $%d", narrow.column, len(args))
		}
	}
	args = append(args, q.Limit)
	fmt.Fprintf(&b, " ORDER BY e.seq LIMIT $%d", len(args))
	return b.String(), args
}

// decodeEvent fills in e.Event from its record.
func (s *Store) decodeEvent(e *broker.StoredEvent) error {
	var raw json.RawMessage
	e.Data = &raw
	if err := json.Unmarshal(e.Record, &e.Event); err != nil {
		return err
	}
	e.Data = nil
	if raw == nil {
		return nil
	}
	kind, known := s.versions[e.Type]
	if !known || kind.version != e.Version {
		e.Data = raw
		return nil
	}
	data := reflect.New(kind.data)
	if err := json.Unmarshal(raw, data.Interface()); err != nil {
		return err
	}
	e.Data = data.Elem().Interface()
	return nil
}
