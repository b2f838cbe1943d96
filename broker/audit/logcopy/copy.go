// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Copy reads one epoch of a copy in the place of a server: it is a Source, and as
// little believed. It is one goroutine's.
type Copy struct {
	epoch     *epoch
	witnesses []*translog.WitnessKey
	release   func()
	// entries are those of the file that was read last.
	number  int64
	entries []*Entry
}

var _ Source = (*Copy)(nil)

// Open opens the newest epoch of the copy in dir, and keeps pulls out of it until
// Close. witnesses are those whose cosignatures matter: what says that it is theirs
// must be. NotFound: nothing is held.
func Open(dir string, witnesses ...*translog.WitnessKey) (*Copy, error) {
	release, err := share(dir)
	if err != nil {
		return nil, err
	}
	held, _, err := epochs(dir)
	if err == nil && len(held) == 0 {
		err = broker.Errorf(broker.NotFound, "%s holds no log: 'postern log pull' makes a copy", dir)
	}
	if err != nil {
		release()
		return nil, err
	}
	return &Copy{epoch: openEpoch(dir, string(held[len(held)-1])), witnesses: witnesses, release: release, number: -1}, nil
}

// Close lets go of the copy.
func (c *Copy) Close() { c.release() }

// Checkpoint returns the newest checkpoint that was proved.
func (c *Copy) Checkpoint(context.Context) ([]byte, error) {
	return os.ReadFile(filepath.Join(c.epoch.dir, checkpointFile))
}

// Witnessed returns the checkpoints that witnesses have cosigned, of each witness the
// newest.
func (c *Copy) Witnessed(context.Context) ([][]byte, error) {
	dir := filepath.Join(c.epoch.dir, checkpointsDir)
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	newest := make(map[string]int64)
	notes := make(map[int64][]byte)
	for _, f := range files {
		size, err := strconv.ParseInt(f.Name(), 10, 64)
		if err != nil {
			continue // one that was being written
		}
		note, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		claims, err := translog.Claims(note)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, f.Name()), err)
		}
		for _, claim := range claims {
			if c.forged(claim, note) {
				continue
			}
			newest[claim.Name] = max(newest[claim.Name], size)
			notes[size] = note
		}
	}
	var all [][]byte
	for size, note := range notes {
		for _, of := range newest {
			if of == size {
				all = append(all, note)
				break
			}
		}
	}
	return all, nil
}

// forged reports whether a cosignature says that it is of one of the witnesses, and is
// not.
func (c *Copy) forged(claim translog.Claim, note []byte) bool {
	return slices.ContainsFunc(c.witnesses, func(w *translog.WitnessKey) bool {
		_, err := w.Cosignature(note)
		return w.Name() == claim.Name && err != nil
	})
}

// Tile returns hashes of a tile, from one that holds as many or more.
func (c *Copy) Tile(_ context.Context, level int, number int64, width int) ([]byte, error) {
	paths := []string{c.epoch.tile(level, number, width), c.epoch.tile(level, number, translog.TileWidth)}
	larger, err := os.ReadDir(paths[1] + partial)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range larger {
		if w, err := strconv.Atoi(f.Name()); err == nil && w >= width {
			paths = append(paths, filepath.Join(paths[1]+partial, f.Name()))
		}
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(b) >= width*tlog.HashSize {
			return b[:width*tlog.HashSize], nil
		}
	}
	return nil, broker.Errorf(broker.NotFound, "the copy does not hold tile %d of level %d", number, level)
}

// Entries returns entries from first on, to the end of the file in which it is.
func (c *Copy) Entries(_ context.Context, first int64) ([]*Entry, error) {
	if number := first / translog.TileWidth; number != c.number {
		content, err := c.epoch.readEntries(number)
		if err != nil {
			return nil, err
		}
		entries, err := parseLines(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.epoch.entries(number), err)
		}
		c.number, c.entries = number, entries
	}
	return c.entries[min(int(first%translog.TileWidth), len(c.entries)):], nil
}

// Entry returns one entry.
func (c *Copy) Entry(ctx context.Context, seq int64) (*Entry, error) {
	some, err := c.Entries(ctx, seq)
	if err != nil {
		return nil, err
	}
	if len(some) == 0 {
		return nil, broker.Errorf(broker.Conflict, "the copy does not hold event %d, which its checkpoint tells of", seq)
	}
	return some[0], nil
}
