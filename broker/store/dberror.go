// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/postern-mail/postern/broker"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// unavailable wraps what the database or the system said.
func unavailable(cause error) *broker.Error {
	e := broker.Errorf(broker.Unavailable, "the state database is not available").WithCause(cause)
	e.Reason = "store"
	return e
}

// dbError gives err its code. An error that has one already keeps it.
func dbError(err error) error {
	if err == nil {
		return nil
	}
	var known *broker.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return unavailable(err)
	}
	if lite := (*sqlite.Error)(nil); errors.As(err, &lite) {
		return sqliteError(lite)
	}
	if server := (*pgconn.PgError)(nil); errors.As(err, &server) {
		return postgresError(server)
	}
	if lost(err) {
		return unavailable(err)
	}
	return internal(err)
}

func internal(cause error) error {
	return broker.Errorf(broker.Internal, "internal error").WithCause(cause)
}

func constraint(cause error) error {
	return broker.Errorf(broker.Conflict, "it exists already, or something that it needs is gone").WithCause(cause)
}

func diskFull(cause error) error {
	e := unavailable(cause)
	e.Reason = "disk-full"
	return e
}

func sqliteError(err *sqlite.Error) error {
	switch err.Code() & 0xff { // the primary code: the rest is detail
	case sqlite3.SQLITE_CONSTRAINT:
		return constraint(err)
	case sqlite3.SQLITE_FULL:
		return diskFull(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
		sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return unavailable(err)
	}
	return internal(err)
}

// postgresError maps the classes of PostgreSQL's errors (PostgreSQL
// documentation, appendix A).
func postgresError(err *pgconn.PgError) error {
	switch err.Code {
	case "53100": // disk_full
		return diskFull(err)
	case "25006", // read_only_sql_transaction: it is a standby now
		"25P03", // idle_in_transaction_session_timeout
		"55P03": // lock_not_available
		return unavailable(err)
	}
	switch err.Code[:min(2, len(err.Code))] {
	case "23": // integrity constraints
		return constraint(err)
	case "08", // connections
		"28", // authorisation: the server does not let us in any more
		"40", // serialisation and deadlock
		"53", // resources
		"57", // an operator: shutdown, cancel, timeouts
		"58", // the system below
		"XX": // damage
		return unavailable(err)
	}
	return internal(err)
}

// lost reports whether a connection broke, or could not be made. What it was
// doing may have been done.
func lost(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &network) || errors.As(err, &connect) ||
		pgconn.Timeout(err) || pgconn.SafeToRetry(err)
}
