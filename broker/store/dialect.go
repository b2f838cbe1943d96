// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
)

// dialect is what SQLite and PostgreSQL do not do alike. Everything else is SQL
// that both understand.
type dialect interface {
	// bound returns the context of a transaction.
	bound() (context.Context, context.CancelFunc)
	begin(t *tx, scope scope) error
	// commit returns nil only when the transaction is durable.
	commit(t *tx) error
	rollback(t *tx) error
	// clock is the database's time in microseconds since 1970, which all nodes
	// share.
	clock(t *tx) (int64, error)
	// head is selectHead, and keeps others from changing the row.
	head() string
	// snapshot is how a transaction begins whose reads are all of one instant.
	snapshot() *sql.TxOptions
	// sorting is a query that has the server sort, or read what it would have to sort
	// by an index that is in order, from here to the transaction's end; empty: it
	// knows itself.
	sorting(yes bool) string
	// rows is how many of n rows one statement writes; it is 1 or more.
	rows(n int) int
	// insertEvents writes so many rows of events.
	insertEvents(t *tx, rows []eventRow) error
	// insertIndex writes so many rows of one of the index's tables; those that
	// are there already stay.
	insertIndex(t *tx, table *insertion, rows []indexRow) error
	// unkeyed selects number, keyed and next_seq of logs that have events
	// without keys, and keeps others from changing them.
	unkeyed() string
}

var (
	_ dialect = sqliteDialect{}
	_ dialect = (*postgresDialect)(nil)
)
