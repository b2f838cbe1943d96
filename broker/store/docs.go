// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/broker"
)

// thing is one of the types that are stored as documents.
type thing interface {
	broker.Firm | broker.Mailbox | broker.Agent | broker.Workstation | broker.Site |
		broker.Delegation | broker.Assignment | broker.AppPassword | broker.Lock |
		broker.Person | broker.APIToken | broker.Claim | broker.EnrolmentCode |
		broker.Provider | broker.Rotation | broker.Watch | broker.Canary | broker.Alert | broker.Witness | broker.Hold |
		broker.RetentionRules | broker.FirmRetention
}

// querier runs a query: in a transaction of the writer's, or on a connection
// that reads.
type querier func(query string, args ...any) (*sql.Rows, error)

// read returns the querier for reads outside a transaction, or for those of
// Together inside it.
func (s *Store) read(ctx context.Context) querier {
	if t := s.together(ctx); t != nil {
		return t.query
	}
	return func(query string, args ...any) (*sql.Rows, error) {
		st, err := s.reads.get(ctx, query)
		if err != nil {
			return nil, s.readError(err)
		}
		rows, err := st.QueryContext(ctx, args...)
		if err != nil {
			return nil, s.readError(err)
		}
		return rows, nil
	}
}

// readError knows a closed store, for which database/sql has no error value.
func (s *Store) readError(err error) error {
	select {
	case <-s.stopped:
		return unavailable(errClosed)
	default:
		return dbError(err)
	}
}

// one returns the only document of a query; NotFound when there is none.
func one[T thing](q querier, kind, query string, args ...any) (*T, error) {
	all, err := many[T](q, kind, query, args...)
	switch {
	case err != nil:
		return nil, err
	case len(all) == 0:
		return nil, notFound(kind)
	}
	return all[0], nil
}

// many returns the documents of a query. An app password's hash, which its
// document does not hold, is the second column.
func many[T thing](q querier, kind, query string, args ...any) ([]*T, error) {
	rows, err := q(query, args...)
	if err != nil {
		return nil, dbError(err)
	}
	defer rows.Close()
	var all []*T
	for rows.Next() {
		var doc sql.RawBytes
		x := new(T)
		into := []any{&doc}
		if p, ok := any(x).(*broker.AppPassword); ok {
			into = append(into, &p.Hash)
		}
		if err := rows.Scan(into...); err != nil {
			return nil, dbError(err)
		}
		if err := decode(doc, x); err != nil {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(fmt.Errorf("a stored %s: %w", kind, err))
		}
		all = append(all, x)
	}
	return all, dbError(rows.Err())
}

// decode reads a document. Terms must be understood to the last field: see
// the package's comment.
func decode[T thing](doc []byte, x *T) error {
	switch any(x).(type) {
	case *broker.Delegation, *broker.Assignment:
		d := json.NewDecoder(bytes.NewReader(doc))
		d.DisallowUnknownFields()
		return d.Decode(x)
	}
	return json.Unmarshal(doc, x)
}

// encode makes a thing's document.
func encode[T thing](x *T) (string, error) {
	doc, err := json.Marshal(x)
	if err != nil {
		return "", broker.Errorf(broker.Invalid, "it has no JSON form").WithCause(err)
	}
	return string(doc), nil
}

// scanOne scans the only row into dest; sql.ErrNoRows when there is none.
func scanOne(rows *sql.Rows, dest ...any) error {
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), sql.ErrNoRows)
	}
	return errors.Join(rows.Scan(dest...), rows.Close())
}

// exists reports whether the query has a row.
func (t *tx) exists(query string, args ...any) (bool, error) {
	rows, err := t.query(query, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	return rows.Next(), rows.Err()
}

func notFound(kind string) error {
	return broker.Errorf(broker.NotFound, "no such %s", kind)
}

func conflict(format string, args ...any) *broker.Error {
	return broker.Errorf(broker.Conflict, format, args...)
}

// documents makes the documents before and after an update.
func documents[T thing](old, updated *T) (before, after string, err error) {
	if before, err = encode(old); err != nil {
		return "", "", err
	}
	after, err = encode(updated)
	return before, after, err
}

// missing turns NotFound about a thing that the input names into Invalid.
func missing(err error, field string) error {
	if broker.CodeOf(err) == broker.NotFound {
		return broker.InvalidField(field, "%s", broker.PublicText(err))
	}
	return err
}
