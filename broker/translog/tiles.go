// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"golang.org/x/mod/sumdb/tlog"
)

// TileSource returns the first width hashes of a tile, from somewhere that is
// not believed.
type TileSource func(level int, number int64, width int) ([]byte, error)

// TileReader reads a tree's hashes from tiles, each of which it proves to be
// the tree's.
func TileReader(tree tlog.Tree, source TileSource) tlog.HashReader {
	return tlog.TileHashReader(tree, tiles{source, nil})
}

// tiles is tlog's interface to a source. keep is told of tiles once they are
// proved.
type tiles struct {
	source TileSource
	keep   func(tlog.Tile, []byte)
}

func (tiles) Height() int { return TileHeight }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(wanted))
	for i, w := range wanted {
		var err error
		if all[i], err = t.source(w.L, w.N, w.W); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (t tiles) SaveTiles(proved []tlog.Tile, hashes [][]byte) {
	for i := range proved {
		if t.keep != nil {
			t.keep(proved[i], hashes[i])
		}
	}
}
