// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/broker"
	"go.uber.org/zap"
)

// Limits and times. Those on input are in validate.go.
const (
	// readConnections is the size of the pool that reads.
	readConnections = 4
	// busyTimeout is how long SQLite waits for another process's lock.
	busyTimeout = 5 * time.Second
	// defaultWriteTimeout bounds a write, its wait for the writer included.
	defaultWriteTimeout = 10 * time.Second
	// walLimit is the size in octets that the WAL is cut back to after a
	// checkpoint.
	walLimit = 64 << 20
	// defaultEvents and maxEvents bound one answer of Events, in events.
	defaultEvents = 1000
	maxEvents     = 10000
	// defaultSessions and maxSessions bound one answer of Sessions.
	defaultSessions = 1000
	maxSessions     = 10000
)

var (
	_ broker.State      = (*Store)(nil)
	_ broker.EventStore = (*Store)(nil)
	_ broker.Logs       = (*Store)(nil)
	_ broker.Questions  = (*Store)(nil)
	_ broker.Retentions = (*Store)(nil)
)

// Config is what Open needs.
type Config struct {
	// Path is the database file. It is created with mode 0600 when it does
	// not exist; one that others can read or write is refused.
	Path string
	// PostgreSQL takes the place of Path.
	PostgreSQL *PostgreSQL
	// Logger is required.
	Logger *zap.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// WriteTimeout bounds a write whose context has no earlier deadline;
	// 0: 10 s.
	WriteTimeout time.Duration

	// pragmas are executed on each connection that writes; for tests.
	pragmas []string
}

// Store is the state and the events in one database. Its methods may be
// called from any goroutine.
type Store struct {
	cfg      Config
	log      *zap.Logger
	versions map[broker.EventType]eventKind
	// keyQueries are what keyEvents runs.
	keyQueries [2]string
	// insertEvent is what insertEvents runs.
	insertEvent insertion

	dialect dialect
	readers *sql.DB
	reads   statements

	jobs    chan *job
	quit    chan struct{}
	stopped chan struct{}
	writer  writer
	// canaries belongs to the writer's goroutine too.
	canaries canaryWatch
	// written counts the jobs that were done.
	written atomic.Int64
	indexer *indexer
	// asked, where it is set, is told of each query of a question; for tests.
	asked func(query string, args []any)

	notifier  *notifier
	appends   appends
	release   func() error // of what else the dialect holds
	closeOnce sync.Once
	closeErr  error
}

// Open opens the database, creates and migrates it as needed, and starts the
// store's goroutines. The caller must Close it. The error is Unavailable when
// the database cannot be used, and Invalid when it must not: others could read
// it, or it could lose what it has confirmed.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if (cfg.Path == "") == (cfg.PostgreSQL == nil) {
		return nil, broker.InvalidField("path", "give a database's path, or PostgreSQL")
	}
	if cfg.Logger == nil {
		return nil, errors.New("store: a logger is needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = defaultWriteTimeout
	}
	s := &Store{
		cfg:      cfg,
		log:      cfg.Logger,
		versions: eventKinds(), keyQueries: keyQueries(), insertEvent: eventInsertion(),
		jobs:     make(chan *job),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
		writer:   writer{pragmas: cfg.pragmas},
		notifier: newNotifier(),
		release:  func() error { return nil },
	}
	open := s.openSQLite
	if cfg.PostgreSQL != nil {
		open = s.openPostgreSQL
	}
	if err := open(ctx); err != nil {
		s.notifier.close()
		return nil, errors.Join(err, s.closeDatabase())
	}
	s.reads.prepare = s.readers.PrepareContext
	s.indexer = newIndexer(s)
	go s.run()
	go s.indexer.run()
	if err := s.growTrees(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// closeDatabase lets go of what there is of the database.
func (s *Store) closeDatabase() error {
	errs := []error{s.reads.close()}
	for _, db := range []*sql.DB{s.readers, s.writer.db} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.release())...)
}

// Close ends the goroutines and closes the database, when the write under way
// is done and the subscribers were told. Later calls of any method are
// Unavailable. Closing twice is no error.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.quit)
		<-s.stopped
		<-s.indexer.done
		s.notifier.close()
		s.closeErr = s.closeDatabase()
	})
	return s.closeErr
}

// now returns the time as it is stored: UTC, cut to the microsecond.
func (s *Store) now() time.Time { return stored(s.cfg.Now()) }

// stored returns t as the store keeps it; the zero time stays zero.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}
