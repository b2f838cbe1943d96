// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"

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
	if q.Type == "" && q.SessionID == "" {
		return s.selectEvents(ctx, selectEvents(q), q.Limit)
	}
	keyed, newest, err := s.keyQuery(ctx, q)
	if err != nil {
		return nil, err
	}
	var all []*broker.StoredEvent
	if keyed.from != "" {
		if all, err = s.selectEvents(ctx, keyed, q.Limit); err != nil || len(all) == q.Limit {
			return all, err
		}
	}
	rest, err := s.selectEvents(ctx, newest, q.Limit-len(all))
	if err != nil {
		return nil, err
	}
	return append(all, rest...), nil
}

// LogEnd returns the last Seq of a log.
func (s *Store) LogEnd(ctx context.Context, firm broker.ID) (int64, error) {
	rows, err := s.read(ctx)(`SELECT next_seq FROM logs WHERE firm_id = $1`, string(firm))
	if err != nil {
		return 0, err
	}
	var next int64
	if err := scanOne(rows, &next); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, dbError(err)
	}
	return next - 1, nil
}

// eventSelect is a query for events under construction.
type eventSelect struct {
	from, conditions, order string
	args                    []any
}

// selectEvents selects what q asks for by reading the log.
func selectEvents(q broker.EventQuery) eventSelect {
	x := eventSelect{from: "events e JOIN logs l ON l.number = e.log", order: "e.seq"}
	x.where("l.firm_id = $%d", string(q.FirmID))
	x.where(" AND e.seq > $%d", q.After)
	x.conditions += " AND e.type <> ''" // what was pruned is none
	if q.Type != "" {
		x.where(" AND e.type = $%d", string(q.Type))
	}
	if q.SessionID != "" {
		x.where(" AND e.session_id = $%d", string(q.SessionID))
	}
	if q.MailboxID != "" {
		x.where(" AND e.mailbox_id = $%d", string(q.MailboxID))
	}
	return x
}

// where adds a condition with its argument.
func (x *eventSelect) where(condition string, arg any) {
	x.args = append(x.args, arg)
	x.conditions += fmt.Sprintf(condition, len(x.args))
}

func (s *Store) selectEvents(ctx context.Context, x eventSelect, limit int) ([]*broker.StoredEvent, error) {
	args := append(x.args, limit)
	rows, err := s.read(ctx)(fmt.Sprintf(`SELECT e.record, e.salt, e.leaf_hash FROM %s WHERE %s ORDER BY %s LIMIT $%d`,
		x.from, x.conditions, x.order, len(args)), args...)
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
