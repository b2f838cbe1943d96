// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/translog"
)

const (
	checkpointFile = "checkpoint"
	checkpointsDir = "checkpoints"
	entriesDir     = "entries"
	tileDir        = "tile"
	// partial is the ending of the directories of tiles that are not full.
	partial = ".p"
)

// epoch is the copy of one epoch of a log.
type epoch struct {
	dir string
	// made are directories that are known to be there.
	made map[string]bool
}

func openEpoch(dir, id string) *epoch {
	return &epoch{filepath.Join(dir, id), make(map[string]bool)}
}

// groups is a number as C2SP tlog-tiles writes it in paths.
func groups(n int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	return filepath.FromSlash(path)
}

func (e *epoch) entries(number int64) string {
	return filepath.Join(e.dir, entriesDir, groups(number)+".jsonl")
}

// readEntries reads a file of entries; nil: there is none.
func (e *epoch) readEntries(number int64) ([]byte, error) {
	content, err := os.ReadFile(e.entries(number))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

func (e *epoch) tile(level int, number int64, width int) string {
	path := filepath.Join(e.dir, tileDir, strconv.Itoa(level), groups(number))
	if width < translog.TileWidth {
		path = filepath.Join(path+partial, strconv.Itoa(width))
	}
	return path
}

// checkpoint reads the newest checkpoint that was proved; nil: there is none.
func (e *epoch) checkpoint(keys *translog.Keys) (*translog.Checkpoint, error) {
	b, err := os.ReadFile(filepath.Join(e.dir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := keys.Open(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(e.dir, checkpointFile), err)
	}
	if string(c.Origin.Epoch) != filepath.Base(e.dir) {
		return nil, fmt.Errorf("%s is of the epoch %s", filepath.Join(e.dir, checkpointFile), c.Origin.Epoch)
	}
	return c, nil
}

// checkpoints reads all that were proved.
func (e *epoch) checkpoints(keys *translog.Keys) ([]*translog.Checkpoint, error) {
	files, err := os.ReadDir(filepath.Join(e.dir, checkpointsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []*translog.Checkpoint
	for _, f := range files {
		if strings.HasSuffix(f.Name(), temporary) {
			continue
		}
		path := filepath.Join(e.dir, checkpointsDir, f.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		c, err := keys.Open(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if string(c.Origin.Epoch) != filepath.Base(e.dir) || f.Name() != strconv.FormatInt(c.Size, 10) {
			return nil, fmt.Errorf("%s is not the checkpoint that belongs there", path)
		}
		all = append(all, c)
	}
	return all, nil
}

// setCheckpoint makes a checkpoint the newest.
func (e *epoch) setCheckpoint(keys *translog.Keys, c *translog.Checkpoint, note []byte) error {
	note, err := e.withKept(keys, c, note, false)
	if err != nil {
		return err
	}
	// This first: there is none that is larger than the newest.
	if err := e.write(filepath.Join(e.dir, checkpointFile), note); err != nil {
		return err
	}
	return e.write(e.kept(c), note)
}

// keepNewest keeps the newest checkpoint by its size as well, where a power cut came
// in between.
func (e *epoch) keepNewest(c *translog.Checkpoint) error {
	if _, err := os.Stat(e.kept(c)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	note, err := os.ReadFile(filepath.Join(e.dir, checkpointFile))
	if err != nil {
		return err
	}
	return e.write(e.kept(c), note)
}

// kept is the file of a checkpoint.
func (e *epoch) kept(c *translog.Checkpoint) string {
	return filepath.Join(e.dir, checkpointsDir, strconv.FormatInt(c.Size, 10))
}

// withKept adds to a checkpoint the signatures that it is kept with. Of two by the
// same key the new one counts where it was verified, and else the one that is kept.
func (e *epoch) withKept(keys *translog.Keys, c *translog.Checkpoint, note []byte, verified bool) ([]byte, error) {
	kept, err := os.ReadFile(e.kept(c))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return note, err
	}
	before, err := keys.Open(kept)
	if err != nil {
		return note, nil // damaged: this mends it
	}
	if *before != *c {
		return nil, tampered("the log was forked: there are two logs of %d events", c.Size)
	}
	first, second := kept, note
	if verified {
		first, second = note, kept
	}
	merged, err := translog.Merge(first, second)
	if err != nil || len(merged) > translog.MaxCheckpoint {
		return first, err
	}
	return merged, nil
}

// source reads tiles of the copy.
func (e *epoch) source() translog.TileSource {
	return func(level int, number int64, width int) ([]byte, error) {
		b, err := os.ReadFile(e.tile(level, number, width))
		if errors.Is(err, fs.ErrNotExist) && width < translog.TileWidth {
			// It may be full by now.
			b, err = os.ReadFile(e.tile(level, number, translog.TileWidth))
			if err == nil && len(b) >= width*tlog.HashSize {
				b = b[:width*tlog.HashSize]
			}
		}
		return b, err
	}
}

// temporary is the ending of files that are being written.
const temporary = ".new"

// write replaces a file, all of it or nothing, durably.
func (e *epoch) write(path string, content []byte) error {
	dir := filepath.Dir(path)
	if !e.made[dir] {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		// Names of new directories must be durable as well.
		for d := dir; len(d) >= len(e.dir); d = filepath.Dir(d) {
			if err := syncDir(filepath.Dir(d)); err != nil {
				return err
			}
		}
		e.made[dir] = true
	}
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+temporary))
	}
	return errors.Join(os.Rename(path+temporary, path), syncDir(dir))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
