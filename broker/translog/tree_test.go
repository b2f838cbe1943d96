// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// A tree's roots and tile hashes are those of golang.org/x/mod's, leaf by leaf,
// and survive being stored.
func TestTreeAgainstTlog(t *testing.T) {
	const leaves = 256*256 + 300
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	var own Tree
	var complete int
	var found []TileHash
	for n := range int64(leaves) {
		leaf := tlog.RecordHash(fmt.Appendf(nil, "leaf %d", n))
		hashes, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		found = own.Add(leaf, found[:0])
		for _, c := range found {
			complete++
			if want := stored[tlog.StoredHashIndex(c.Level*8, c.Number)]; c.Hash != want {
				t.Fatalf("after %d leaves: hash %d of level %d is %v, want %v", n+1, c.Number, c.Level, c.Hash, want)
			}
		}
		if n > 600 && n%251 != 0 && n < leaves-3 {
			continue // the rest is slow
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := own.Root(); got != want {
			t.Fatalf("the root of %d leaves is %v, want %v", n+1, got, want)
		}
		if own, err = ParseTree(own.Size(), own.AppendEdge(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if want := leaves/256 + 1; complete != want {
		t.Errorf("%d subtrees were completed, want %d", complete, want)
	}
	if _, err := ParseTree(3, make([]byte, 32)); err == nil {
		t.Error("an edge that is too short was taken")
	}
}
