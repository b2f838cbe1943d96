// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/mod/sumdb/tlog"
	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// fork is the same log in a database and with a server of its own, from where it may
// go on in another way. The first one's server must have stopped.
func (s *served) fork(t testing.TB) *served {
	t.Helper()
	f := &served{t: t, world: s.world, firm: s.firm}
	if s.database != nil {
		f.database = s.database.Copy()
	} else {
		f.path = filepath.Join(t.TempDir(), "postern.db")
		s.tamper(`VACUUM INTO $1`, f.path)
		must(t, os.Chmod(f.path, 0o600))
	}
	f.open()
	return f
}

// trial is the log as it was when its server stopped, and a server of it that
// remembers nothing, until the next trial.
func (s *served) trial(t testing.TB) *served {
	t.Helper()
	if s.database == nil {
		return s.fork(t)
	}
	// A copy of a whole database takes PostgreSQL long: the tables are put back.
	if s.restore == "" {
		s.open()
		s.keep()
	} else {
		s.tamper(s.restore)
	}
	f := *s
	f.t = t
	f.publish()
	return &f
}

// keep makes restore, which puts back what the logs' tables hold now.
func (s *served) keep() {
	s.t.Helper()
	// While nobody writes; and what refers to logs goes first, and comes last.
	s.restore = "SELECT pg_advisory_xact_lock(22640539801580142);"
	tables := []string{"logs", "events", "event_keys", "log_hashes", "log_checkpoints", "subject_events", "message_events", "message_ids"}
	for _, table := range slices.Backward(tables) {
		s.restore += "DELETE FROM " + table + ";"
	}
	for _, table := range tables {
		s.tamper("CREATE TABLE kept_" + table + " AS SELECT * FROM " + table)
		s.restore += "INSERT INTO " + table + " SELECT * FROM kept_" + table + ";"
	}
}

// tamper changes the database under the server.
func (s *served) tamper(statement string, args ...any) {
	s.t.Helper()
	if s.tampering == nil {
		s.tampering = s.connect()
	}
	_, err := s.tampering.Exec(statement, args...)
	must(s.t, err)
}

// connect opens the database beside the server, until that stops or the test ends.
func (s *served) connect() *sql.DB {
	s.t.Helper()
	driver, source := "sqlite", s.path+"?_pragma=busy_timeout(10000)"
	if s.database != nil {
		password, err := os.ReadFile(s.database.PasswordFile)
		must(s.t, err)
		driver, source = "pgx", s.database.DSN(0)+" password="+strings.TrimSpace(string(password))
	}
	db, err := sql.Open(driver, source)
	must(s.t, err)
	s.t.Cleanup(func() { must(s.t, db.Close()) })
	return db
}

// entry is one of the log's, as it is in the database.
func (s *served) entry(at int) *broker.LogEntry {
	s.t.Helper()
	all, err := s.store.LogEntries(ctx, s.firm, int64(at), 1)
	must(s.t, err)
	return all[0]
}

// rebuild leaves the first events alone, with a tree that fits them.
func (s *served) rebuild(size int) {
	s.t.Helper()
	var tree translog.Tree
	for tree.Size() < int64(size) {
		all, err := s.store.LogEntries(ctx, s.firm, tree.Size(), size-int(tree.Size()))
		must(s.t, err)
		for _, e := range all {
			tree.Add(tlog.Hash(e.LeafHash), nil)
		}
	}
	const log = ` log = (SELECT number FROM logs WHERE firm_id = $1)`
	s.tamper(`DELETE FROM events WHERE`+log+` AND seq >= $2`, s.firm, size)
	s.tamper(`DELETE FROM log_hashes WHERE`+log+` AND number >= $2`, s.firm, size/translog.TileWidth)
	s.tamper(`DELETE FROM log_checkpoints WHERE`+log, s.firm)
	s.tamper(`UPDATE logs SET next_seq = $2, keyed = 0, tree_size = $2, tree_edge = $3 WHERE firm_id = $1`, s.firm, size, tree.AppendEdge(nil))
}

// forge has the log go on from an event in another way.
func (s *served) forge(from int) {
	s.t.Helper()
	s.rebuild(max(1, from))
	s.append(40)
}
