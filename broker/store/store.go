// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"
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
)

// Config is what Open needs.
type Config struct {
	// Path is the database file. It is created with mode 0600 when it does
	// not exist; one that others can read or write is refused.
	Path string
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

// Store is the state and the events in one SQLite file. Its methods may be
// called from any goroutine.
type Store struct {
	cfg      Config
	log      *zap.Logger
	versions map[broker.EventType]eventKind
	// keyQueries are what keyEvents runs.
	keyQueries [2]string

	readers *sql.DB
	reads   statements

	jobs    chan *job
	quit    chan struct{}
	stopped chan struct{}
	writer  writer

	notifier  *notifier
	release   func() error // of the hold on the database
	closeOnce sync.Once
	closeErr  error
}

// Open opens the database, creates and migrates it as needed, and starts the
// store's goroutines. The caller must Close it. The error is Unavailable when
// the file cannot be used, and Invalid when others could read it.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, broker.InvalidField("path", "the database's path is missing")
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
	release, err := hold(cfg.Path, false)
	if err != nil {
		return nil, err
	}
	if err := createFile(cfg.Path); err != nil {
		return nil, errors.Join(err, release())
	}
	writes, err := openSQLite(cfg.Path, false)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	if err := migrate(ctx, writes); err != nil {
		return nil, errors.Join(err, writes.Close(), release())
	}
	readers, err := openSQLite(cfg.Path, true)
	if err != nil {
		return nil, errors.Join(err, writes.Close(), release())
	}
	s := &Store{
		cfg:      cfg,
		log:      cfg.Logger,
		versions: eventKinds(), keyQueries: keyQueries(),
		readers:  readers,
		reads:    statements{prepare: readers.PrepareContext},
		jobs:     make(chan *job),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
		writer:   writer{db: writes, pragmas: cfg.pragmas},
		notifier: newNotifier(),
		release:  release,
	}
	go s.run()
	return s, nil
}

// Close ends the goroutines and closes the database, when the write under way
// is done and the subscribers were told. Later calls of any method are
// Unavailable. Closing twice is no error.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.quit)
		<-s.stopped
		s.notifier.close()
		s.closeErr = errors.Join(s.reads.close(), s.readers.Close(), s.writer.db.Close(), s.release())
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
