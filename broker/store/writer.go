// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/postern-mail/postern/broker"
	"go.uber.org/zap"
)

// job is one transaction for the writer. Its function must not touch what the
// caller can still reach: the caller may have given up waiting.
type job struct {
	do   func(*tx) error
	done chan error
}

// writer is the connection that writes, and its statements. It belongs to the
// writer goroutine alone.
type writer struct {
	db      *sql.DB
	pragmas []string
	conn    *sql.Conn
	stmts   *statements
}

// tx is a transaction under way, in the writer goroutine.
type tx struct {
	stmts   *statements
	store   *Store
	now     time.Time
	heads   map[broker.ID]*logHead
	changes []broker.Change
	record  []byte // scratch for appendRecord
}

// write has do executed in a transaction, and returns nil when it is durable.
// When ctx ends first the outcome is unknown, and the error Unavailable.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if ctx.Err() != nil {
		return unavailable(context.Cause(ctx))
	}
	j := &job{do: do, done: make(chan error, 1)}
	select {
	case s.jobs <- j:
	case <-s.stopped:
		return unavailable(errClosed)
	case <-ctx.Done():
		return unavailable(context.Cause(ctx))
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return unavailable(context.Cause(ctx))
	}
}

var errClosed = errors.New("store: closed")

// run executes the jobs, one after another, and gives events their keys when
// they have gathered for a while.
func (s *Store) run() {
	defer close(s.stopped)
	defer s.writer.discard()
	keys := time.NewTimer(0) // what an earlier run of Postern left
	defer keys.Stop()
	waiting := true
	for {
		select {
		case j := <-s.jobs:
			j.done <- s.transact(j.do)
			if !waiting {
				keys.Reset(keyDelay)
				waiting = true
			}
		case <-keys.C:
			if waiting = s.keyEvents(); waiting {
				keys.Reset(keyDelay / 100)
			}
		case <-s.quit:
			return
		}
	}
}

// keyEvents reports whether there are more. What fails is tried again with the
// next events: without keys they are found all the same, only slower.
func (s *Store) keyEvents() (more bool) {
	err := s.transact(func(t *tx) (err error) {
		more, err = t.keyEvents()
		return err
	})
	return more && err == nil
}

// transact commits what do does, all or nothing.
func (s *Store) transact(do func(*tx) error) error {
	if err := s.writer.connect(); err != nil {
		return dbError(err)
	}
	t := &tx{stmts: s.writer.stmts, store: s, now: s.now(), heads: make(map[broker.ID]*logHead)}
	err := t.run(do)
	if err == nil {
		s.notifier.tell(t.changes)
		return nil
	}
	err = dbError(err)
	if _, rollback := t.exec("ROLLBACK"); rollback != nil || broker.CodeOf(err) == broker.Unavailable {
		// A full disk or an I/O error has SQLite roll back by itself at times.
		// A new connection knows nothing of what went before.
		s.writer.discard()
	}
	if code := broker.CodeOf(err); code == broker.Unavailable || code == broker.Internal {
		s.log.Error("a transaction failed", zap.Error(err))
	}
	return err
}

func (t *tx) run(do func(*tx) error) error {
	// IMMEDIATE: the write lock first, or a read here could be out of date by
	// the time of the first write.
	if _, err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := do(t); err != nil {
		return err
	}
	if err := t.storeHeads(); err != nil {
		return err
	}
	_, err := t.exec("COMMIT")
	return err
}

// connect makes sure that there is a connection.
func (w *writer) connect() error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.Conn(context.Background())
	if err != nil {
		return err
	}
	for _, p := range w.pragmas {
		if _, err := conn.ExecContext(context.Background(), p); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	w.conn, w.stmts = conn, &statements{prepare: conn.PrepareContext}
	return nil
}

// discard closes the connection for good.
func (w *writer) discard() {
	if w.conn == nil {
		return
	}
	// Nothing is lost with these errors: what was not committed is not there.
	_ = w.stmts.close()
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = w.conn.Close()
	w.conn, w.stmts = nil, nil
}

// exec and query run a prepared statement. They take no context: a write that
// was begun is finished or fails by itself.
func (t *tx) exec(query string, args ...any) (sql.Result, error) {
	st, err := t.stmts.get(context.Background(), query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(context.Background(), args...)
}

func (t *tx) query(query string, args ...any) (*sql.Rows, error) {
	st, err := t.stmts.get(context.Background(), query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(context.Background(), args...)
}

// update is exec that must have changed one row.
func (t *tx) update(query string, args ...any) error {
	res, err := t.exec(query, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(err, errors.New("store: a row that was just read is gone"))
	}
	return nil
}

// change gives the change its policy revision. Subscribers are told after the
// commit.
func (t *tx) change(c broker.Change) error {
	rows, err := t.query(`UPDATE policy SET revision = revision + 1 WHERE one = 1 RETURNING revision`)
	if err != nil {
		return err
	}
	if err := scanOne(rows, &c.Revision); err != nil {
		return err
	}
	c.At = t.now
	t.changes = append(t.changes, c)
	return nil
}
