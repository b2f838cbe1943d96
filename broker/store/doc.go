// SPDX-License-Identifier: Apache-2.0

// Package store keeps Postern's state and its events in SQLite, or for several
// nodes in PostgreSQL: it is broker.State and broker.EventStore. cmd/postern opens it; everybody else
// sees those interfaces.
//
// # Invariants
//
//   - A change of state, its event and its policy revision are one
//     transaction. So is a session's row with its session.open or session.end.
//   - What a method has returned nil for is on the disk (SQLite: WAL,
//     synchronous FULL; PostgreSQL: a server with synchronous_commit or fsync
//     off is refused), and readable by every other connection.
//   - The events of one log bear the numbers 0, 1, 2… without a gap, in the
//     order of their commits. The next number is read inside each transaction,
//     so that no failed one can leave a wrong number behind in memory.
//   - Events that tell of openings are held against the firm's canaries in their
//     own transaction: none is recorded without its alarm.
//   - Subscribers are told after the commit, in the order of the revisions.
//   - Changes of state follow one another, over all nodes; an append to logs
//     comes wholly before or after any of them. SQLite has one writer; with
//     PostgreSQL locks do it, which postgresDialect describes.
//
// # Shape
//
// A thing is stored as its JSON document beside the columns that must be
// unique, joined or searched. The document is the same JSON that the event of
// a change holds, so state and log cannot drift apart, and a field added to a
// type needs no migration. Things are marked deleted, not removed: sessions
// and events name them for years, and their foreign keys hold. A delegation's
// or an assignment's document with a field that this version does not know is
// refused, since to overlook a restriction is to grant more.
//
// Times are integer microseconds since 1970 UTC in columns: they sort, and
// they are exact in SQLite and PostgreSQL alike, whereas RFC 3339 text with
// nanoseconds drops trailing zeros and does not sort. Inside documents and
// records they are RFC 3339, cut to the microsecond.
//
// # Goroutines
//
// One goroutine owns the only connection that writes; every write passes
// through it. A caller whose context ends before the commit does gets
// Unavailable, and must take the outcome for unknown: the change may have been
// committed. A second goroutine calls the subscribers. Reads use a small pool
// of connections. With PostgreSQL a third listens to what other nodes change
// (LISTEN, NOTIFY); while it cannot, the revision is there to be polled, and
// when it can again it says that anything may have changed. Close ends them all.
//
// # Lost connections
//
// A connection to PostgreSQL that breaks at a COMMIT leaves an unknown outcome,
// which is Unavailable like any other. One that breaks before its transaction
// began is replaced. Connections go to a server that takes writes alone: a
// standby would answer with what was true a while ago.
package store
