// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// RangeProof proves that leaves, one after another, are those of a tree at their
// places: it holds the hashes of the complete subtrees that make up the tree
// before them and after them, from left to right. So the proof of any number of
// leaves in a row is some dozens of hashes.
type RangeProof struct {
	Before, After []tlog.Hash
}

// subtree is a complete subtree: the number-th of 2^height leaves.
type subtree struct {
	height int
	number int64
}

// cover returns the widest complete subtrees that make up the leaves from first
// to end-1 of a tree, from left to right.
func cover(first, end int64) []subtree {
	var all []subtree
	for first < end {
		height := bits.Len64(uint64(end-first)) - 1
		if first > 0 {
			height = min(height, bits.TrailingZeros64(uint64(first)))
		}
		all = append(all, subtree{height, first >> height})
		first += 1 << height
	}
	return all
}

// ProveRange makes the proof of the leaves from first to end-1 in a tree of size
// leaves, whose hashes the reader has.
func ProveRange(size, first, end int64, reader tlog.HashReader) (*RangeProof, error) {
	if first < 0 || end <= first || size < end {
		return nil, fmt.Errorf("translog: there are no leaves %d to %d in a tree of %d", first, end-1, size)
	}
	before, after := cover(0, first), cover(end, size)
	var indexes []int64
	for _, s := range append(before, after...) {
		indexes = append(indexes, tlog.StoredHashIndex(s.height, s.number))
	}
	hashes, err := reader.ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	return &RangeProof{Before: hashes[:len(before)], After: hashes[len(before):]}, nil
}

// Start returns the tree of the leaves before the range, to which the range's
// own are then added.
func (p *RangeProof) Start(first int64) (Tree, error) {
	if first < 0 || len(p.Before) != bits.OnesCount64(uint64(first)) {
		return Tree{}, errors.New("the proof is not of leaves that begin there")
	}
	t := Tree{size: first, edge: make([]tlog.Hash, len(p.Before), len(p.Before)+1)}
	copy(t.edge, p.Before)
	return t, nil
}

// Finish adds what comes after the range up to a tree of size leaves. Whether
// the root is then the tree's is what the proof is about. A root does not tell
// its tree's size: that must be known, as a checkpoint's is.
func (p *RangeProof) Finish(t *Tree, size int64) error {
	after := cover(t.size, size)
	if t.size > size || len(p.After) != len(after) {
		return errors.New("the proof is not of leaves that end there")
	}
	for i, s := range after {
		t.addSubtree(s.height, p.After[i])
	}
	return nil
}

// addSubtree appends a complete subtree, whose place must be the next of its
// width.
func (t *Tree) addSubtree(height int, hash tlog.Hash) {
	for last := t.size >> height; last&1 == 1; last >>= 1 {
		hash = tlog.NodeHash(t.edge[len(t.edge)-1], hash)
		t.edge = t.edge[:len(t.edge)-1]
	}
	t.edge = append(t.edge, hash)
	t.size += 1 << height
}
