// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// TestCopyIsASource: what is read of a copy is what the server has said, in trees of
// each size up to its own.
func TestCopyIsASource(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("an empty directory: %v", err)
	}
	s := serve(t, 300)
	one, err := translog.NewWitnessSigner("one.example", rand.Reader)
	must(t, err)
	two, err := translog.NewWitnessSigner("two.example", rand.Reader)
	must(t, err)
	var cosigned [][]byte
	for i := range 4 {
		s.append(100)
		_, err := Pull(ctx, dir, s.keys(), s)
		must(t, err)
		note, err := s.Checkpoint(ctx)
		must(t, err)
		by := one
		if i == 1 {
			by = two
		}
		note, err = by.Cosign(note, time.Unix(1_800_000_000, 0))
		must(t, err)
		must(t, Keep(dir, s.keys(), by.Key(), note))
		cosigned = append(cosigned, note)
	}
	s.append(30)
	_, err = Pull(ctx, dir, s.keys(), s)
	must(t, err)
	c, err := Open(dir)
	must(t, err)
	defer c.Close()

	note, err := c.Checkpoint(ctx)
	must(t, err)
	theirs, err := s.Checkpoint(ctx)
	must(t, err)
	if !bytes.Equal(note, theirs) {
		t.Error("the checkpoint is another")
	}
	witnessed, err := c.Witnessed(ctx)
	must(t, err)
	if len(witnessed) != 2 {
		t.Errorf("%d checkpoints that witnesses have cosigned", len(witnessed))
	}
	for i, want := range [][]byte{cosigned[1], cosigned[3]} {
		found := false
		for _, note := range witnessed {
			found = found || bytes.Equal(note, want)
		}
		if !found {
			t.Errorf("the newest of witness %d is missing", i)
		}
	}
	size := int64(s.size())
	for seq := range size {
		e, err := c.Entry(ctx, seq)
		must(t, err)
		want, err := s.Entries(ctx, seq)
		must(t, err)
		if got := e.AppendLine(nil); !bytes.Equal(got, want[0].AppendLine(nil)) {
			t.Fatalf("event %d: %s", seq, got)
		}
	}
	if _, err := c.Entry(ctx, size); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("the event after the last: %v", err)
	}
	// Tiles of smaller trees are the beginnings of those that are held.
	for _, at := range []int64{1, 255, 256, 257, 300, 511, 600, size} {
		for _, tile := range tlog.NewTiles(translog.TileHeight, 0, at) {
			got, err := c.Tile(ctx, tile.L, tile.N, tile.W)
			want, wrong := s.Tile(ctx, tile.L, tile.N, tile.W)
			must(t, wrong)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s of %d events: %v", fmt.Sprint(tile), at, err)
			}
		}
	}
	if _, err := c.Tile(ctx, 0, size/translog.TileWidth, translog.TileWidth); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("a tile beyond the end: %v", err)
	}
}
