// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Verified is what is proved of one epoch.
type Verified struct {
	Checkpoint *translog.Checkpoint
	// Pruned is how many entries are there without their record; Agreed with how
	// many checkpoints the entries agree, those that were given among them.
	Pruned, Agreed int64
	// Prunings are what the log's own events say was pruned, in its order, whether
	// the copy has it or not.
	Prunings []Pruned
}

// Verify checks the copy in dir: every entry, tile and checkpoint of every
// epoch, against the keys alone. An entry without a record must be named by one of
// the log's pruning events, and that must be one that could have been. Epochs must
// share what was before a restore. known are checkpoints from elsewhere, each of
// which must be of an epoch that is held, and not newer than what is held of it.
// Whatever is wrong is a *TamperedError.
func Verify(dir string, keys *translog.Keys, known ...*translog.Checkpoint) ([]*Verified, error) {
	release, err := share(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if _, _, err := epochs(dir); err != nil {
		return nil, &TamperedError{err}
	}
	var all []*Verified
	for _, f := range files {
		if _, err := broker.ParseID(f.Name()); err != nil || !f.IsDir() {
			continue
		}
		v, err := verifyEpoch(openEpoch(dir, f.Name()), keys, known)
		if err != nil {
			return nil, &TamperedError{fmt.Errorf("epoch %s: %w", f.Name(), err)}
		}
		if v != nil {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no log: 'postern log pull' makes a copy", dir)
	}
	for i, v := range all {
		for _, other := range all[:i] {
			if err := sameUpToARestore(dir, other.Checkpoint, v.Checkpoint); err != nil {
				return nil, &TamperedError{err}
			}
		}
	}
	for _, k := range known {
		if !slices.ContainsFunc(all, func(v *Verified) bool { return v.Checkpoint.Origin == k.Origin }) {
			return nil, tampered("nothing is held of the log %s, of which a checkpoint was given", k.Origin)
		}
	}
	return all, nil
}

func verifyEpoch(e *epoch, keys *translog.Keys, known []*translog.Checkpoint) (*Verified, error) {
	newest, err := e.checkpoint(keys)
	if err != nil {
		return nil, err
	}
	due, err := e.checkpoints(keys)
	if err != nil {
		return nil, err
	}
	if newest == nil {
		if len(due) > 0 {
			return nil, errors.New("the newest checkpoint is missing")
		}
		return nil, nil // a first pull that did not end
	}
	for _, k := range known {
		if k.Origin == newest.Origin {
			due = append(due, k)
		}
	}
	due = append(due, newest)
	slices.SortFunc(due, func(a, b *translog.Checkpoint) int { return int(a.Size - b.Size) })
	if last := due[len(due)-1]; last.Size > newest.Size {
		return nil, fmt.Errorf("%d events are held, and there is a checkpoint of %d: the copy was cut, or the log rolled back, or it must be pulled first", newest.Size, last.Size)
	}
	v := &verification{epoch: e, newest: newest, due: due, Verified: Verified{Checkpoint: newest, Agreed: int64(len(due))}}
	return &v.Verified, v.run()
}

// verification is of one epoch.
type verification struct {
	Verified
	epoch  *epoch
	newest *translog.Checkpoint
	due    []*translog.Checkpoint
	tree   translog.Tree
	// upper are the tiles above the lowest so far.
	upper    [][]byte
	prunings Prunings
}

// run reads every entry, and compares each tile that comes of them. The first
// fault is looked for in what the newest checkpoint's own tiles say, so that it
// is told where it is.
func (v *verification) run() error {
	for v.tree.Size() < v.newest.Size {
		number := v.tree.Size() / translog.TileWidth
		want := int(min(translog.TileWidth, v.newest.Size-v.tree.Size()))
		hashes, err := v.bundle(number, want)
		if err != nil {
			return err
		}
		if err := v.compare(0, number, hashes); err != nil {
			return err
		}
	}
	for i, hashes := range v.upper {
		if len(hashes) == 0 {
			continue
		}
		if err := v.compare(i+1, v.newest.Size>>((i+2)*translog.TileHeight), hashes); err != nil {
			return err
		}
	}
	v.Prunings = v.prunings.spans()
	return v.prunings.Fault()
}

// bundle puts a file of entries into the tree.
func (v *verification) bundle(number int64, want int) ([]byte, error) {
	content, err := os.ReadFile(v.epoch.entries(number))
	if err != nil {
		return nil, fmt.Errorf("events from %d on are missing: %w", number*translog.TileWidth, err)
	}
	entries, err := parseLines(content)
	if len(entries) < want {
		return nil, errors.Join(fmt.Errorf("events from %d on are missing", v.tree.Size()+int64(len(entries))), err)
	}
	hashes := make([]byte, 0, want*tlog.HashSize)
	var complete []translog.TileHash
	for _, e := range entries[:want] {
		leaf, err := e.LeafOf(v.tree.Size())
		if err != nil {
			return nil, err
		}
		if e.Pruned() {
			v.Pruned++
		}
		v.prunings.Add(e)
		hashes = append(hashes, leaf[:]...)
		complete = v.tree.Add(leaf, complete[:0])
		for _, c := range complete {
			if err := v.addUpper(c); err != nil {
				return nil, err
			}
		}
		for len(v.due) > 0 && v.due[0].Size == v.tree.Size() {
			if v.due[0].Root != v.tree.Root() {
				return nil, fmt.Errorf("the first %d events are not those of the checkpoint of that size: some were changed, removed or put in between%s", v.due[0].Size, v.where(hashes))
			}
			v.due = v.due[1:]
		}
	}
	return hashes, nil
}

// where tells, if the tiles can, which event of the last file is not the
// newest checkpoint's.
func (v *verification) where(hashes []byte) string {
	reader := translog.TileReader(tlog.Tree{N: v.newest.Size, Hash: v.newest.Root}, v.epoch.source())
	first := (v.tree.Size() - 1) / translog.TileWidth * translog.TileWidth
	for i := range len(hashes) / tlog.HashSize {
		proved, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, first+int64(i))})
		if err != nil {
			break
		}
		if !bytes.Equal(proved[0][:], hashes[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
			return fmt.Sprintf(" (event %d)", first+int64(i))
		}
	}
	return ""
}

func (v *verification) addUpper(c translog.TileHash) error {
	if len(v.upper) < c.Level {
		v.upper = append(v.upper, nil)
	}
	tile := &v.upper[c.Level-1]
	*tile = append(*tile, c.Hash[:]...)
	if len(*tile) < translog.TileWidth*tlog.HashSize {
		return nil
	}
	full := *tile
	*tile = nil
	return v.compare(c.Level, c.Number/translog.TileWidth, full)
}

// compare holds a tile of the copy against what its entries make of it.
func (v *verification) compare(level int, number int64, hashes []byte) error {
	path := v.epoch.tile(level, number, len(hashes)/tlog.HashSize)
	kept, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("a tile is missing: %w", err)
	}
	if !bytes.Equal(kept, hashes) {
		for i := range min(len(hashes), len(kept)) / tlog.HashSize {
			if level == 0 && !bytes.Equal(kept[i*tlog.HashSize:(i+1)*tlog.HashSize], hashes[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
				return fmt.Errorf("event %d is not the one that %s has the hash of", number*translog.TileWidth+int64(i), path)
			}
		}
		return fmt.Errorf("%s is not what the events make of it", path)
	}
	return nil
}
