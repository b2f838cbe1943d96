// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/postern-mail/postern/broker"
)

// postgresDialect is what PostgreSQL does in its own way.
//
// Several nodes write. A change of state holds an advisory lock that nobody
// else holds, so that changes follow one another over all nodes as they do in
// SQLite: what a change has read is still true when it commits, and policy
// revisions grow one by one. Whoever only appends to logs shares that lock,
// and locks its logs' rows in the order of their firms' ids. So an append
// comes wholly before or after any change, two appends wait for each other
// only where they write to the same log, and nobody waits in a circle.
type postgresDialect struct {
	timeout time.Duration
}

const (
	advisoryKey   = "22640539801580142" // the octets of "Postern"
	beginAlone    = "BEGIN; SELECT pg_advisory_xact_lock(" + advisoryKey + ")"
	beginShared   = "BEGIN; SELECT pg_advisory_xact_lock_shared(" + advisoryKey + ")"
	notifyChannel = "postern_changes"
)

// bound bounds a transaction: a server that is elsewhere can stop answering.
func (d *postgresDialect) bound() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d.timeout)
}

// begin takes a new connection where the old one turns out to be gone: nothing
// was begun on it.
func (d *postgresDialect) begin(t *tx, scope scope) error {
	query := beginAlone
	if scope == appending {
		query = beginShared
	}
	err := t.simply(query)
	if err == nil || t.ctx.Err() != nil || broker.CodeOf(dbError(err)) != broker.Unavailable {
		return err
	}
	w := &t.store.writer
	w.discard()
	if err := w.connect(t.ctx); err != nil {
		return err
	}
	t.conn, t.stmts = w.conn, w.stmts
	return t.simply(query)
}

// commit tells the other nodes of the changes, which PostgreSQL does at the
// commit and not before.
func (d *postgresDialect) commit(t *tx) error {
	for _, payload := range notices(t.changes) {
		if _, err := t.exec(`SELECT pg_notify($1, $2)`, notifyChannel, payload); err != nil {
			return err
		}
	}
	return t.simply("COMMIT")
}

func (d *postgresDialect) rollback(t *tx) error { return t.simply("ROLLBACK") }

func (*postgresDialect) clock(t *tx) (now int64, err error) {
	rows, err := t.query(`SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`)
	if err != nil {
		return 0, err
	}
	return now, scanOne(rows, &now)
}

func (*postgresDialect) snapshot() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

func (*postgresDialect) sorting(yes bool) string {
	if yes {
		return `SELECT set_config('enable_sort', 'on', true)`
	}
	return `SELECT set_config('enable_sort', 'off', true)`
}

func (*postgresDialect) head() string {
	return selectHead + ` FOR UPDATE`
}

// unkeyed waits for nobody: what others are writing to has its turn later.
func (*postgresDialect) unkeyed() string {
	return `SELECT number, keyed, next_seq FROM logs WHERE next_seq > keyed LIMIT 32 FOR UPDATE SKIP LOCKED`
}

// simply executes statements without arguments, in one turn. A COMMIT of a
// transaction that failed is a ROLLBACK without an error (PostgreSQL
// documentation, COMMIT): only the answer tells.
func (t *tx) simply(query string) error {
	return t.conn.Raw(func(driver any) error {
		results, err := driver.(*stdlib.Conn).Conn().PgConn().Exec(t.ctx, query).ReadAll()
		if err != nil {
			return err
		}
		if last := results[len(results)-1].CommandTag.String(); query == "COMMIT" && last != "COMMIT" {
			return fmt.Errorf("store: the transaction was rolled back (%s)", last)
		}
		return nil
	})
}
