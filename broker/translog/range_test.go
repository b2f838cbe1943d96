// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// Each range of each small tree, and some of a larger one, is proved; and no
// other leaf, place, end or size passes for it.
func TestRangeProof(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	const most = 700
	var leaves, roots []tlog.Hash
	for n := range int64(most) {
		leaf := tlog.RecordHash(fmt.Appendf(nil, "leaf %d", n))
		leaves = append(leaves, leaf)
		hashes, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		root, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	// check returns the root that a proof leads to.
	check := func(p *RangeProof, size, first int64, leaves []tlog.Hash) (tlog.Hash, error) {
		tree, err := p.Start(first)
		if err != nil {
			return tlog.Hash{}, err
		}
		for _, leaf := range leaves {
			tree.Add(leaf, nil)
		}
		if err := p.Finish(&tree, size); err != nil {
			return tlog.Hash{}, err
		}
		if tree.Size() != size {
			t.Fatalf("a tree of %d leaves has %d", size, tree.Size())
		}
		return tree.Root(), nil
	}
	tried := 0
	for _, size := range []int64{1, 2, 3, 7, 8, 9, 31, 40, 255, 256, 257, 512, 700} {
		for first := int64(0); first < size; first++ {
			for end := first + 1; end <= size; end++ {
				if size > 40 && (first*31+end*17)%101 != 0 && end != size && first != 0 {
					continue
				}
				tried++
				p, err := ProveRange(size, first, end, reader)
				if err != nil {
					t.Fatal(err)
				}
				root, err := check(p, size, first, leaves[first:end])
				if err != nil || root != roots[size-1] {
					t.Fatalf("leaves %d to %d of %d: %v", first, end-1, size, err)
				}
				changed := slices.Clone(leaves[first:end])
				changed[len(changed)/2][0] ^= 1
				for name, got := range map[string]func() (tlog.Hash, error){
					"a changed leaf": func() (tlog.Hash, error) { return check(p, size, first, changed) },
					"one less":       func() (tlog.Hash, error) { return check(p, size, first, leaves[first:end-1]) },
					"a later place":  func() (tlog.Hash, error) { return check(p, size, first+1, leaves[first:end]) },
				} {
					if root, err := got(); err == nil && root == roots[size-1] {
						t.Fatalf("leaves %d to %d of %d: %s passes", first, end-1, size, name)
					}
				}
			}
		}
	}
	if tried < 2000 {
		t.Errorf("only %d ranges were tried", tried)
	}
	for _, bad := range [][3]int64{{5, 3, 3}, {5, -1, 2}, {5, 4, 6}} {
		if _, err := ProveRange(bad[0], bad[1], bad[2], reader); err == nil {
			t.Errorf("%v was proved", bad)
		}
	}
}
