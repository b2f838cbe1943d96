// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/postern-mail/postern/broker"
)

// This file is how many rows are written at once: SQLite, which is no turn away,
// takes a few with each statement; PostgreSQL takes them column by column, as
// arrays, so that a batch costs it one turn and one plan.

const (
	sqliteRows   = 8
	postgresRows = 1000
)

// insertion are the statements that write rows into a table.
type insertion struct {
	width int
	// one and few write one row and sqliteRows, arrays as many as its arrays are
	// long.
	one, few, arrays string
}

// newInsertion takes columns with their types, as PostgreSQL calls them.
func newInsertion(table, conflict string, columns ...string) insertion {
	x := insertion{width: len(columns)}
	var names, unnested []string
	for i, c := range columns {
		name, typ, _ := strings.Cut(c, " ")
		names = append(names, name)
		unnested = append(unnested, fmt.Sprintf("$%d::%s[]", i+1, typ))
	}
	values := func(rows int) string {
		all := make([]string, rows)
		for i := range all {
			one := make([]string, x.width)
			for j := range one {
				one[j] = fmt.Sprintf("$%d", i*x.width+j+1)
			}
			all[i] = "(" + strings.Join(one, ", ") + ")"
		}
		return " VALUES " + strings.Join(all, ", ")
	}
	into := "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ")"
	x.one, x.few = into+values(1)+conflict, into+values(sqliteRows)+conflict
	x.arrays = into + " SELECT * FROM unnest(" + strings.Join(unnested, ", ") + ")" + conflict
	return x
}

// rows returns the statement for one row or sqliteRows.
func (x *insertion) rows(n int) string {
	if n == 1 {
		return x.one
	}
	return x.few
}

func eventInsertion() insertion {
	return newInsertion("events", "", "log bigint", "seq bigint", "type text", "session_id text", "mailbox_id text",
		"agent_id text", "time bigint", "record bytea", "salt bytea", "leaf_hash bytea")
}

func (sqliteDialect) rows(n int) int {
	if n >= sqliteRows {
		return sqliteRows
	}
	return 1
}

func (sqliteDialect) insertEvents(t *tx, rows []eventRow) error {
	t.args = t.args[:0]
	for i := range rows {
		r := &rows[i]
		t.args = append(
			t.args, r.logNumber, r.seq, string(r.typ), optional(r.session), optional(r.mailbox), optional(r.agent),
			r.time.UnixMicro(), r.record, r.salt, r.leaf[:],
		)
	}
	_, err := t.exec(t.store.insertEvent.rows(len(rows)), t.args...)
	return err
}

func (sqliteDialect) insertIndex(t *tx, table *insertion, rows []indexRow) error {
	t.args = t.args[:0]
	for i := range rows {
		for _, c := range rows[i].columns[:table.width] {
			t.args = append(t.args, c)
		}
	}
	_, err := t.exec(table.rows(len(rows)), t.args...)
	return err
}

func (*postgresDialect) rows(n int) int { return min(n, postgresRows) }

func (*postgresDialect) insertEvents(t *tx, rows []eventRow) error {
	n := len(rows)
	var (
		numbers  = make([]int64, 3*n)
		logs     = numbers[:n:n]
		seqs     = numbers[n : 2*n : 2*n]
		times    = numbers[2*n:]
		types    = make([]string, n)
		ids      = make([]pgtype.Text, 3*n)
		sessions = ids[:n:n]
		boxes    = ids[n : 2*n : 2*n]
		agents   = ids[2*n:]
		octets   = make([][]byte, 3*n)
		records  = octets[:n:n]
		salts    = octets[n : 2*n : 2*n]
		leaves   = octets[2*n:]
	)
	for i := range rows {
		r := &rows[i]
		logs[i], seqs[i], types[i], times[i] = r.logNumber, r.seq, string(r.typ), r.time.UnixMicro()
		sessions[i], boxes[i], agents[i] = nullable(r.session), nullable(r.mailbox), nullable(r.agent)
		records[i], salts[i], leaves[i] = r.record, r.salt, r.leaf[:]
	}
	_, err := t.exec(t.store.insertEvent.arrays, logs, seqs, types, sessions, boxes, agents, times, records, salts, leaves)
	return err
}

// nullable is optional, for an array.
func nullable(id broker.ID) pgtype.Text { return pgtype.Text{String: string(id), Valid: id != ""} }

func (*postgresDialect) insertIndex(t *tx, table *insertion, rows []indexRow) error {
	t.args = t.args[:0]
	for c := range table.width {
		column := make([]int64, len(rows))
		for i := range rows {
			column[i] = rows[i].columns[c]
		}
		t.args = append(t.args, column)
	}
	_, err := t.exec(table.arrays, t.args...)
	return err
}
