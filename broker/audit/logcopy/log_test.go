// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/broker/translog"
	"github.com/postern-mail/postern/test/servers"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// served is a firm's log in a database of its own, and who signs and serves it.
// It is a Source, as the API is.
type served struct {
	t         testing.TB
	path      string
	clock     func() time.Time  // the store's; nil: time.Now
	database  *servers.Database // PostgreSQL's, in the place of path
	store     *store.Store
	world     *storetest.World
	publisher *checkpoint.Publisher
	firm      broker.ID
	// restore is the statements that put PostgreSQL's tables back; see trial.
	restore string
	// tampering is for who changes the database under the server.
	tampering *sql.DB
	// asked counts what was asked for; fail, where set, is what is answered
	// instead.
	asked int
	// cosigned is what a witness has handed over.
	cosigned [][]byte
	fail     func(asked int) error
}

// serve makes a log of some events.
func serve(t testing.TB, events int) *served { return serveAt(t, nil, events) }

// serveAt is serve by another clock.
func serveAt(t testing.TB, clock func() time.Time, events int) *served {
	t.Helper()
	return begin(&served{t: t, path: filepath.Join(t.TempDir(), "postern.db"), clock: clock}, events)
}

// begin makes the log in its database.
func begin(s *served, events int) *served {
	s.t.Helper()
	s.open()
	s.world = storetest.Build(s.t, s.store)
	s.firm = s.world.Firm.ID
	s.append(events - s.size())
	return s
}

// open opens the database, as a server that starts.
func (s *served) open() {
	s.t.Helper()
	config := store.Config{Path: s.path, Logger: zap.NewNop(), Now: s.clock}
	if s.database != nil {
		config.PostgreSQL = &store.PostgreSQL{DSN: s.database.DSN(0), PasswordFile: s.database.PasswordFile}
	}
	var err error
	s.store, err = store.Open(ctx, config)
	must(s.t, err)
	opened := s.store
	s.t.Cleanup(func() { must(s.t, opened.Close()) })
	s.publish()
}

// publish has somebody sign the log who remembers nothing of it.
func (s *served) publish() {
	s.t.Helper()
	var err error
	s.publisher, err = checkpoint.New(checkpoint.Config{
		Logs: s.store, Logger: zap.NewNop(), Signers: []checkpoint.Signer{checkpoint.NewLocal(bytes.Repeat([]byte("k"), 32))},
	})
	must(s.t, err)
}

// stop is a server that ends, and restart one that starts anew and remembers
// nothing.
func (s *served) stop() {
	s.t.Helper()
	must(s.t, s.store.Close())
	if s.tampering != nil {
		must(s.t, s.tampering.Close())
		s.tampering = nil
	}
}

func (s *served) restart() {
	s.t.Helper()
	s.stop()
	s.open()
}

func (s *served) size() int {
	h, err := s.store.LogHead(ctx, s.firm)
	must(s.t, err)
	return int(h.Size)
}

// append records events.
func (s *served) append(n int) {
	s.t.Helper()
	for n > 0 {
		var batch []*broker.Event
		for range min(n, 500) {
			e := s.world.Refused(fmt.Sprintf("X%d", n))
			e.FirmID = s.firm
			batch = append(batch, e)
			n--
		}
		must(s.t, s.store.AppendEvents(ctx, batch))
	}
}

func (s *served) keys() *translog.Keys {
	s.t.Helper()
	h, err := s.store.LogHead(ctx, s.firm)
	must(s.t, err)
	lines, err := s.publisher.Keys(ctx, translog.Origin{FirmID: s.firm, Epoch: h.Epoch})
	must(s.t, err)
	keys, err := translog.ParseKeys(lines[0])
	must(s.t, err)
	return keys
}

// now is the newest checkpoint.
func (s *served) now() *translog.Checkpoint {
	s.t.Helper()
	signed, err := s.Checkpoint(ctx)
	must(s.t, err)
	c, err := s.keys().Open(signed)
	must(s.t, err)
	return c
}

func (s *served) ask() error {
	s.asked++
	if s.fail != nil {
		return s.fail(s.asked)
	}
	return nil
}

func (s *served) Checkpoint(ctx context.Context) ([]byte, error) {
	if err := s.ask(); err != nil {
		return nil, err
	}
	s.publisher.Round(ctx)
	h, err := s.store.LogHead(ctx, s.firm)
	if err != nil {
		return nil, err
	}
	if h.Checkpoint == nil {
		return nil, errors.New("no checkpoint")
	}
	return []byte(h.Checkpoint.Note), nil
}

func (s *served) Tile(ctx context.Context, level int, number int64, width int) ([]byte, error) {
	if err := s.ask(); err != nil {
		return nil, err
	}
	return s.store.LogTile(ctx, s.firm, level, number, width)
}

func (s *served) Entries(ctx context.Context, first int64) ([]*Entry, error) {
	if err := s.ask(); err != nil {
		return nil, err
	}
	all, err := s.store.LogEntries(ctx, s.firm, first, 100)
	entries := make([]*Entry, len(all))
	for i, e := range all {
		entries[i] = &Entry{Seq: e.Seq, Record: e.Record, Salt: hex.EncodeToString(e.Salt), Leaf: hex.EncodeToString(e.LeafHash[:])}
	}
	return entries, err
}
