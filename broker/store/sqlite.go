// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/postern-mail/postern/broker"
	"modernc.org/sqlite"
)

// createFile makes sure that the database file exists and is private. SQLite
// gives its -wal and -shm files the same mode. One that exists is not opened
// here: closing it again would drop the locks that another Store of this
// process has on it (POSIX locks belong to process and file).
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	switch {
	case err == nil:
		if err := errors.Join(f.Close(), syncFolder(path)); err != nil {
			return unavailable(err)
		}
		return nil
	case !errors.Is(err, os.ErrExist):
		return unavailable(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return unavailable(err)
	}
	if !info.Mode().IsRegular() {
		return broker.InvalidField("path", "the database %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return broker.InvalidField("path", "the database %s is open to others (mode %04o): make it 0600", path, info.Mode().Perm())
	}
	return nil
}

// syncFolder makes a new file's name durable.
func syncFolder(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// openSQLite returns a pool on the file: of one connection that may write, or
// of a few that cannot.
func openSQLite(path string, readOnly bool) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, unavailable(err)
	}
	q := url.Values{}
	q.Set("mode", "rw")
	q.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10))
	q.Set("_journal_mode", "WAL")
	q.Set("_synchronous", "FULL")
	q.Set("_foreign_keys", "on")
	q.Set("_defensive", "true")
	q.Set("_dqs", "false")
	q.Set("_error_rc", "true")
	q.Add("_pragma", fmt.Sprintf("journal_size_limit(%d)", walLimit))
	q.Add("_pragma", "secure_delete(1)") // what is pruned is overwritten
	if readOnly {
		q.Set("_query_only", "on")
	}
	dsn := url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return nil, unavailable(err)
	}
	db := sql.OpenDB(connector)
	n := 1
	if readOnly {
		n = readConnections
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// openSQLite opens the file at the configured path.
func (s *Store) openSQLite(ctx context.Context) error {
	release, err := hold(s.cfg.Path, false)
	if err != nil {
		return err
	}
	s.release, s.dialect = release, sqliteDialect{}
	if err := createFile(s.cfg.Path); err != nil {
		return err
	}
	if s.writer.db, err = openSQLite(s.cfg.Path, false); err != nil {
		return err
	}
	if err := migrate(ctx, s.writer.db); err != nil {
		return err
	}
	s.readers, err = openSQLite(s.cfg.Path, true)
	return err
}

// sqliteDialect is what SQLite does in its own way.
type sqliteDialect struct{}

// bound bounds nothing: a file answers, or says that it cannot.
func (sqliteDialect) bound() (context.Context, context.CancelFunc) {
	return context.Background(), func() {}
}

// begin takes the write lock first, or a read could be out of date by the time
// of the first write.
func (sqliteDialect) begin(t *tx, _ scope) error {
	_, err := t.exec("BEGIN IMMEDIATE")
	return err
}

func (sqliteDialect) commit(t *tx) error {
	_, err := t.exec("COMMIT")
	return err
}

// rollback can fail: a full disk or an I/O error has SQLite roll back by itself
// at times.
func (sqliteDialect) rollback(t *tx) error {
	_, err := t.exec("ROLLBACK")
	return err
}

// clock is this machine's: whoever shares a file is on it.
func (sqliteDialect) clock(t *tx) (int64, error) { return t.now.UnixMicro(), nil }

// snapshot: any transaction of SQLite's is one (WAL).
func (sqliteDialect) snapshot() *sql.TxOptions { return nil }

func (sqliteDialect) sorting(bool) string { return "" }

func (sqliteDialect) head() string { return selectHead }

func (sqliteDialect) unkeyed() string {
	return `SELECT number, keyed, next_seq FROM logs WHERE next_seq > keyed`
}

// statements prepares each query once. The queries are this package's own and
// few, so that the map stays small.
type statements struct {
	prepare func(context.Context, string) (*sql.Stmt, error)
	mu      sync.Mutex
	byQuery map[string]*sql.Stmt
}

func (p *statements) get(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.byQuery[query]; st != nil {
		return st, nil
	}
	st, err := p.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	if p.byQuery == nil {
		p.byQuery = make(map[string]*sql.Stmt)
	}
	p.byQuery[query] = st
	return st, nil
}

func (p *statements) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, st := range p.byQuery {
		errs = append(errs, st.Close())
	}
	p.byQuery = nil
	return errors.Join(errs...)
}
