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

// scope says beside what a transaction may run, where several nodes share a
// database.
type scope int

const (
	// alone: no other transaction is under way. So that what is read stays true
	// until the commit, as it does with SQLite's one writer.
	alone scope = iota
	// appending only adds to logs, which it locks, and reads the policy
	// revision. Others that append may be under way, none that is alone.
	appending
)

// job is one transaction for the writer. Its function must not touch what the
// caller can still reach: the caller may have given up waiting.
type job struct {
	scope scope
	do    func(*tx) error
	done  chan error
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
	// ctx bounds the whole transaction where the database is elsewhere.
	ctx     context.Context
	conn    *sql.Conn
	stmts   *statements
	store   *Store
	now     time.Time
	heads   map[broker.ID]*logHead
	changes []broker.Change
	// revision is the policy's, where it was read; 0: it was not.
	revision int64
	// counted are the sessions whose bursts it has changed.
	counted []broker.ID
	// alerts are those that events of this transaction touch.
	alerts standing
	// record and rows are insertEvents' scratch, args the dialect's.
	record []byte
	rows   []eventRow
	args   []any
	// expected, where set, is the state that one thing must be in.
	expected *broker.Expected
	// failed is the first change of Together's that was not made whole.
	failed error
}

// write has do executed in a transaction of its own, and returns nil when it is
// durable. When ctx ends first the outcome is unknown, and the error
// Unavailable.
func (s *Store) write(ctx context.Context, do func(*tx) error) error {
	return s.await(ctx, alone, do)
}

func (s *Store) await(ctx context.Context, scope scope, do func(*tx) error) error {
	if t := s.together(ctx); t != nil {
		if ctx.Err() != nil {
			return unavailable(context.Cause(ctx))
		}
		err := dbError(do(t))
		if t.failed == nil {
			t.failed = err
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.WriteTimeout)
	defer cancel()
	if ctx.Err() != nil {
		return unavailable(context.Cause(ctx))
	}
	j := &job{scope: scope, do: do, done: make(chan error, 1)}
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
			j.done <- s.transact(j.scope, j.do)
			s.written.Add(1)
			s.indexer.wake()
			if !waiting {
				keys.Reset(keyDelay)
				waiting = true
			}
		case <-keys.C:
			more, err := s.keyEvents()
			switch waiting = more || err != nil; {
			case err != nil:
				keys.Reset(followAgain)
			case more:
				keys.Reset(keyDelay / 100)
			}
		case <-s.quit:
			return
		}
	}
}

// keyEvents reports whether there are more. What fails is tried again: without
// keys events are found all the same, only slower.
func (s *Store) keyEvents() (more bool, err error) {
	err = s.transact(appending, func(t *tx) (err error) {
		more, err = t.keyEvents()
		return err
	})
	return more, err
}

// transact commits what do does, all or nothing.
func (s *Store) transact(scope scope, do func(*tx) error) error {
	ctx, cancel := s.dialect.bound()
	defer cancel()
	if err := s.writer.connect(ctx); err != nil {
		return dbError(err)
	}
	t := &tx{
		ctx: ctx, conn: s.writer.conn, stmts: s.writer.stmts,
		store: s, now: s.now(), heads: make(map[broker.ID]*logHead),
	}
	err := t.run(scope, do)
	if err == nil {
		s.notifier.tell(t.changes)
		s.appends.tell(t.heads)
		return nil
	}
	s.canaries.forget(t.counted)
	err = dbError(err)
	// After an outage of any kind a connection may be in any state, and a new
	// one knows nothing of what went before.
	if rollback := s.dialect.rollback(t); rollback != nil || broker.CodeOf(err) == broker.Unavailable {
		s.writer.discard()
	}
	if code := broker.CodeOf(err); code == broker.Unavailable || code == broker.Internal {
		s.log.Error("a transaction failed", zap.Error(err))
	}
	return err
}

func (t *tx) run(scope scope, do func(*tx) error) error {
	if err := t.store.dialect.begin(t, scope); err != nil {
		return err
	}
	if err := do(t); err != nil {
		return err
	}
	if err := t.storeAlerts(); err != nil {
		return err
	}
	if err := t.storeHeads(); err != nil {
		return err
	}
	return t.store.dialect.commit(t)
}

// connect makes sure that there is a connection.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.Conn(ctx)
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

// exec and query run a prepared statement. They take no context of a caller's:
// a write that was begun is finished or fails by itself.
func (t *tx) exec(query string, args ...any) (sql.Result, error) {
	st, err := t.stmts.get(t.ctx, query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

func (t *tx) query(query string, args ...any) (*sql.Rows, error) {
	st, err := t.stmts.get(t.ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(t.ctx, args...)
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
	t.revision = c.Revision
	t.changes = append(t.changes, c)
	return nil
}
