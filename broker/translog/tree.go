// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// TileHeight is the height of tiles (C2SP tlog-tiles), TileWidth how many
	// hashes a full one holds.
	TileHeight = 8
	TileWidth  = 1 << TileHeight
	// SaltSize is the salt of a leaf, in octets.
	SaltSize = 16
)

// Tree is what a Merkle tree (RFC 6962 §2.1) must know of itself to grow and to
// tell its root: how many leaves it has, and the hashes of the complete
// subtrees that they make up, widest first, one for each bit of the size. So a
// leaf costs one hash on average, however large the tree is. The zero Tree is
// empty.
type Tree struct {
	size int64
	edge []tlog.Hash
}

// TileHash is a hash's place in tiles above the lowest: it is the root of the
// Number-th complete subtree of 256^Level leaves.
type TileHash struct {
	Level  int
	Number int64
	Hash   tlog.Hash
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Add appends the hash of a leaf, and returns complete with the roots of the
// subtrees as wide as tiles that it completed.
func (t *Tree) Add(leaf tlog.Hash, complete []TileHash) []TileHash {
	hash, last := leaf, t.size
	for height := 1; last&1 == 1; height++ {
		hash = tlog.NodeHash(t.edge[len(t.edge)-1], hash)
		t.edge = t.edge[:len(t.edge)-1]
		last >>= 1
		if height%TileHeight == 0 {
			complete = append(complete, TileHash{height / TileHeight, last, hash})
		}
	}
	t.edge = append(t.edge, hash)
	t.size++
	return complete
}

// Root is the tree's hash; of an empty one, that of nothing.
func (t *Tree) Root() tlog.Hash {
	if t.size == 0 {
		hash, _ := tlog.TreeHash(0, nil) // it reads nothing
		return hash
	}
	hash := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		hash = tlog.NodeHash(t.edge[i], hash)
	}
	return hash
}

// AppendEdge appends the octets of the edge, for ParseTree.
func (t *Tree) AppendEdge(to []byte) []byte {
	for i := range t.edge {
		to = append(to, t.edge[i][:]...)
	}
	return to
}

// ParseTree returns the tree of so many leaves that has this edge.
func ParseTree(size int64, edge []byte) (Tree, error) {
	n := bits.OnesCount64(uint64(size))
	if size < 0 || len(edge) != n*tlog.HashSize {
		return Tree{}, fmt.Errorf("translog: the edge of a tree of %d leaves has %d octets", size, len(edge))
	}
	t := Tree{size: size, edge: make([]tlog.Hash, n, n+1)}
	for i := range t.edge {
		copy(t.edge[i][:], edge[i*tlog.HashSize:])
	}
	return t, nil
}
