// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// storeTiles are a log's tiles as the store has them.
type storeTiles struct {
	Store
	firm broker.ID
}

func (storeTiles) Height() int                     { return translog.TileHeight }
func (storeTiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (s storeTiles) ReadTiles(tiles []tlog.Tile) (all [][]byte, err error) {
	for _, tile := range tiles {
		hashes, err := s.LogTile(ctx, s.firm, tile.L, tile.N, tile.W)
		if err != nil {
			return nil, err
		}
		all = append(all, hashes)
	}
	return all, nil
}

// VerifyTree checks that a log's head is that of its events, and that every
// event is proved by its tiles.
func VerifyTree(t testing.TB, s Store, firm broker.ID) {
	t.Helper()
	events := All(t, s, firm)
	head, err := s.LogHead(ctx, firm)
	must(t, err)
	if head.FirmID != firm || head.Size != int64(len(events)) || head.Epoch == "" {
		t.Fatalf("the head of a log of %d events: %+v", len(events), head)
	}
	// Hashes that the tiles give are proved to be the root's.
	tree := tlog.Tree{N: head.Size, Hash: tlog.Hash(head.Root)}
	reader := tlog.TileHashReader(tree, storeTiles{s, firm})
	for i := 0; i < len(events); i += max(1, len(events)/700) {
		got, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(i))})
		must(t, err)
		if got[0] != tlog.Hash(events[i].LeafHash) {
			t.Fatalf("event %d is not the tree's", i)
		}
	}
}

// testLogTree: the trees grow with every change and batch, each firm's alone.
func testLogTree(t *testing.T, w *World) {
	s := w.Store
	empty := broker.Firm{Name: "Empty"}
	must(t, s.CreateFirm(ctx, Admin, &empty))
	wantCode(t, second(s.LogHead(ctx, broker.NewID())), broker.NotFound)
	VerifyTree(t, s, w.Firm.ID)
	VerifyTree(t, s, empty.ID)
	VerifyTree(t, s, "")
	for _, size := range []int{1, 2, 7, 253, 300, 8} {
		var batch []*broker.Event
		for i := range size {
			e := w.Refused("x")
			if i%3 == 0 {
				e.FirmID = ""
			}
			batch = append(batch, e)
		}
		must(t, s.AppendEvents(ctx, batch))
	}
	wantCode(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("x"), w.Event("none.such", nil)}), broker.Invalid)
	VerifyTree(t, s, w.Firm.ID)
	VerifyTree(t, s, empty.ID)
	VerifyTree(t, s, "")

	for name, err := range map[string]error{
		"beyond the end":  second(s.LogTile(ctx, empty.ID, 0, 0, 2)),
		"no such level":   second(s.LogTile(ctx, w.Firm.ID, 2, 0, 1)),
		"another's":       second(s.LogTile(ctx, empty.ID, 1, 0, 1)),
		"no such firm":    second(s.LogTile(ctx, broker.NewID(), 0, 0, 1)),
		"no such firm, 1": second(s.LogTile(ctx, broker.NewID(), 1, 0, 1)),
	} {
		if broker.CodeOf(err) != broker.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, err := range []error{
		second(s.LogTile(ctx, w.Firm.ID, -1, 0, 1)), second(s.LogTile(ctx, w.Firm.ID, 0, -1, 1)),
		second(s.LogTile(ctx, w.Firm.ID, 0, 0, 0)), second(s.LogTile(ctx, w.Firm.ID, 0, 0, 257)),
		second(s.LogTile(ctx, w.Firm.ID, 8, 0, 1)), second(s.LogTile(ctx, w.Firm.ID, 0, 1<<62, 1)),
		second(s.LogEntries(ctx, w.Firm.ID, -1, 1)), second(s.LogEntries(ctx, w.Firm.ID, 0, 4097)),
	} {
		wantCode(t, err, broker.Invalid)
	}
	entries, err := s.LogEntries(ctx, w.Firm.ID, 250, 256)
	must(t, err)
	events := All(t, s, w.Firm.ID)
	for i, e := range entries {
		want := events[250+i]
		if e.Seq != want.Seq || e.LeafHash != want.LeafHash || !slices.Equal(e.Record, want.Record) || !slices.Equal(e.Salt, want.Salt) {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
	same(t, "entries", len(entries), nil, min(256, len(events)-250))
}

// testCheckpoints: the newest of the log's own epoch is kept.
func testCheckpoints(t *testing.T, w *World) {
	s := w.Store
	unsigned, err := s.UnsignedLogs(ctx, nil, 10)
	must(t, err)
	if len(unsigned) != 2 {
		t.Fatalf("unsigned: %v", unsigned)
	}
	one, err := s.UnsignedLogs(ctx, nil, 1)
	must(t, err)
	same(t, "limited", len(one), nil, 1)
	other, err := s.UnsignedLogs(ctx, &one[0].FirmID, 10)
	must(t, err)
	if len(other) != 1 || other[0].FirmID != unsigned[1].FirmID {
		t.Errorf("after the first: %+v", other)
	}
	head, err := s.LogHead(ctx, w.Firm.ID)
	must(t, err)
	if head.Checkpoint != nil {
		t.Fatalf("signed by nobody: %+v", head.Checkpoint)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 1000, time.UTC)
	newest := broker.LogCheckpoint{Size: head.Size, Note: "a\n", SignedAt: at}
	must(t, s.StoreCheckpoint(ctx, w.Firm.ID, head.Epoch, &newest))
	for _, older := range []broker.LogCheckpoint{{Size: head.Size - 1, Note: "older"}, {Size: head.Size, Note: "again"}} {
		must(t, s.StoreCheckpoint(ctx, w.Firm.ID, head.Epoch, &older))
	}
	must(t, s.StoreCheckpoint(ctx, w.Firm.ID, broker.NewID(), &broker.LogCheckpoint{Size: head.Size + 9, Note: "of another epoch"}))
	must(t, s.StoreCheckpoint(ctx, broker.NewID(), head.Epoch, &broker.LogCheckpoint{Size: 1, Note: "of no log"}))
	head, err = s.LogHead(ctx, w.Firm.ID)
	same(t, "newest", head.Checkpoint, err, &newest)
	unsigned, err = s.UnsignedLogs(ctx, nil, 10)
	must(t, err)
	if len(unsigned) != 1 || unsigned[0].FirmID != "" {
		t.Fatalf("unsigned: %+v", unsigned)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("x")}))
	newest = broker.LogCheckpoint{Size: head.Size + 1, Note: "b\n", SignedAt: at.Add(time.Second)}
	must(t, s.StoreCheckpoint(ctx, w.Firm.ID, head.Epoch, &newest))
	again, err := s.LogHead(ctx, w.Firm.ID)
	same(t, "newest", again.Checkpoint, err, &newest)

	// A new epoch has none yet.
	must(t, s.BeginEpochs(ctx))
	restored, err := s.LogHead(ctx, w.Firm.ID)
	must(t, err)
	if restored.Epoch == head.Epoch || restored.Checkpoint != nil || restored.Size != again.Size || restored.Root != again.Root {
		t.Fatalf("a new epoch: %+v", restored)
	}
	newest = broker.LogCheckpoint{Size: 1, Note: "c\n", SignedAt: at}
	must(t, s.StoreCheckpoint(ctx, w.Firm.ID, restored.Epoch, &newest))
	restored, err = s.LogHead(ctx, w.Firm.ID)
	same(t, "newest", restored.Checkpoint, err, &newest)
	VerifyTree(t, s, w.Firm.ID)
}
