// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
)

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// published is a server's log, and the database under it.
func published(t *testing.T) (*store.Store, *storetest.World, *sql.DB, *Publisher) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postern.db")
	s, err := store.Open(ctx, store.Config{Path: path, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	p, err := New(Config{Logs: s, Logger: zap.NewNop(), Signers: []Signer{NewLocal(bytes.Repeat([]byte("k"), 32))}})
	must(t, err)
	return s, storetest.Build(t, s), db, p
}

func signedUpTo(t *testing.T, s *store.Store, firm broker.ID) int64 {
	t.Helper()
	h, err := s.LogHead(ctx, firm)
	must(t, err)
	if h.Checkpoint == nil {
		return 0
	}
	return h.Checkpoint.Size
}

// TestNever6EpochComesBack: a log that has had another epoch for a while, in the
// database alone, is not signed under its old name again without a look at what was
// signed of it.
func TestNever6EpochComesBack(t *testing.T) {
	s, w, db, p := published(t)
	p.Round(ctx)
	h, err := s.LogHead(ctx, w.Firm.ID)
	must(t, err)
	size := signedUpTo(t, s, w.Firm.ID)
	if size != h.Size {
		t.Fatalf("%d of %d events are signed", size, h.Size)
	}
	epoch := func(id broker.ID) {
		t.Helper()
		_, err := db.Exec(`UPDATE logs SET epoch = ? WHERE firm_id = ?`, string(id), string(w.Firm.ID))
		must(t, err)
		must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("x")}))
		p.Round(ctx)
	}
	epoch(broker.NewID())
	if err := p.Healthy(); err != nil || signedUpTo(t, s, w.Firm.ID) != size+1 {
		t.Fatalf("of a new epoch %d events are signed: %v", signedUpTo(t, s, w.Firm.ID), err)
	}
	for range 2 {
		epoch(h.Epoch)
		if n := signedUpTo(t, s, w.Firm.ID); n != 0 || p.Healthy() == nil {
			t.Errorf("of the epoch that came back %d events are signed, and the server is healthy: %v", n, p.Healthy() == nil)
		}
	}
}

// TestNoLogWaitsForAnother: a round signs all logs, however many, and one that has
// no tree keeps none of the others from it.
func TestNoLogWaitsForAnother(t *testing.T) {
	s, w, db, p := published(t)
	var events []*broker.Event
	for range 2*logsAtOnce + 10 {
		e := w.Refused("x")
		e.FirmID = broker.NewID()
		events = append(events, e)
	}
	must(t, s.AppendEvents(ctx, events))
	torn := events[3].FirmID
	_, err := db.Exec(`UPDATE logs SET tree_edge = x'00' WHERE firm_id = ?`, string(torn))
	must(t, err)
	for range 2 {
		p.Round(ctx)
	}
	for i, e := range events {
		if n := signedUpTo(t, s, e.FirmID); (n == 1) == (e.FirmID == torn) {
			t.Fatalf("of log %d are signed %d events", i, n)
		}
	}
	if p.Healthy() == nil {
		t.Error("a log without a tree is taken for a healthy one")
	}
}
