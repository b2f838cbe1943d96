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
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// Source is a server that has a log. It is not believed.
type Source interface {
	// Checkpoint returns the newest checkpoint, with its signatures.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Tile returns the first width hashes of a tile.
	Tile(ctx context.Context, level int, number int64, width int) ([]byte, error)
	// Entries returns entries from first on, as many of them as it likes.
	Entries(ctx context.Context, first int64) ([]*Entry, error)
}

const (
	// pruneTries and pruneWait are how often, and how long each time, a pull waits
	// for the checkpoint that covers a pruning event: one is signed each second.
	pruneTries = 30
	pruneWait  = time.Second
	// maxUnsigned bounds how many entries beyond a checkpoint are looked at.
	maxUnsigned = 64 << 10
)

// TamperedError says what is not as it was: it is never an outage.
type TamperedError struct{ error }

func (e *TamperedError) Unwrap() error { return e.error }

func tampered(format string, args ...any) error { return &TamperedError{fmt.Errorf(format, args...)} }

// Pulled says what a pull has done.
type Pulled struct {
	// Checkpoint is what the copy holds now; Before how many entries it held of
	// the same epoch.
	Checkpoint *translog.Checkpoint
	Before     int64
	// Pruned is how many of the new entries came without their record.
	Pruned int64
	// Lost is a *TamperedError when some of these are named by no pruning event. They
	// are copied all the same, with what follows.
	Lost error
}

// Pull brings the copy in dir up to the log's newest checkpoint. known are
// checkpoints from elsewhere, which the log must agree with. A *TamperedError
// says that the log is not what it was, or not what its checkpoint says; an
// *translog.UnknownKeyError that none of the keys signed it.
func Pull(ctx context.Context, dir string, keys *translog.Keys, source Source, known ...*translog.Checkpoint) (*Pulled, error) {
	release, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	var told Prunings
	done, err := pullOnce(ctx, dir, keys, source, &told, known)
	// A record can be pruned between the checkpoint and the entry: the next
	// checkpoint covers the event that says so.
	for try := 0; err == nil && done.Lost != nil && try < pruneTries; try++ {
		promised, err := told.promised(ctx, source, done.Checkpoint.Size)
		if err != nil {
			return nil, err
		}
		if !promised {
			break
		}
		select {
		case <-time.After(pruneWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		var more *Pulled
		if more, err = pullOnce(ctx, dir, keys, source, &told, known); err != nil {
			return nil, err
		}
		more.Before, more.Pruned = done.Before, done.Pruned+more.Pruned
		done = more
	}
	return done, err
}

func pullOnce(ctx context.Context, dir string, keys *translog.Keys, source Source, told *Prunings, known []*translog.Checkpoint) (*Pulled, error) {
	note, err := source.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	c, err := keys.Open(note)
	if err != nil {
		return nil, err
	}
	if told.epoch != c.Origin.Epoch {
		*told = Prunings{epoch: c.Origin.Epoch}
	}
	begin, err := admit(dir, c.Origin)
	if err != nil {
		return nil, err
	}
	p := &pull{ctx: ctx, epoch: openEpoch(dir, string(c.Origin.Epoch)), source: source, to: c}
	if p.held, err = p.epoch.checkpoint(keys); err != nil {
		return nil, err
	}
	done := &Pulled{Checkpoint: c}
	p.due = []*translog.Checkpoint{c}
	for _, k := range known {
		if k.Origin == c.Origin {
			p.due = append(p.due, k)
		} else if err := agrees(dir, keys, k); err != nil {
			return nil, err
		}
	}
	if p.held != nil {
		if err := p.epoch.keepNewest(p.held); err != nil {
			return nil, err
		}
		done.Before = p.held.Size
		p.due = append(p.due, p.held)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.held == nil || p.held.Size < c.Size {
		if err := p.run(); err != nil {
			return nil, err
		}
		done.Pruned = p.pruned
		told.join(&p.told)
	} else if err := p.proveKnown(); err != nil {
		return nil, err
	}
	// A new key may have signed the same.
	if err := begin(); err != nil {
		return nil, err
	}
	if err := p.epoch.setCheckpoint(keys, c, note); err != nil {
		return nil, err
	}
	if lost := told.lost(); lost != nil {
		done.Lost = tampered("%s", lost.takenAway())
	}
	return done, p.clean()
}

// pull is one under way.
type pull struct {
	ctx    context.Context
	epoch  *epoch
	source Source
	// held is what the copy has proved; nil: nothing. to is where it goes.
	held, to *translog.Checkpoint
	// due are checkpoints that the tree must agree with when it is as large.
	due    []*translog.Checkpoint
	tree   translog.Tree
	upper  [][]tlog.Hash // the tiles above the lowest that are not full
	pruned int64
	told   Prunings
	// ahead are entries that came with others.
	ahead []*Entry
	// unproved says that entries of an earlier pull, which ended early, were
	// used.
	unproved bool
}

// check finds what the checkpoints alone tell.
func (p *pull) check() error {
	for _, k := range p.due {
		switch {
		case k.Size > p.to.Size:
			return tampered("the log was rolled back: it has %d events, and had %d", p.to.Size, k.Size)
		case k.Size == p.to.Size && k.Root != p.to.Root:
			return tampered("the log was forked: there are two logs of %d events", k.Size)
		}
	}
	slices.SortFunc(p.due, func(a, b *translog.Checkpoint) int { return int(a.Size - b.Size) })
	return nil
}

// run copies entries, from the last full file on.
func (p *pull) run() error {
	err := p.copy(true)
	var wrong *TamperedError
	if errors.As(err, &wrong) && p.unproved {
		// What an earlier pull left may be the reason: ask for all of it.
		return p.copy(false)
	}
	return err
}

func (p *pull) copy(resume bool) error {
	from := int64(0)
	if p.held != nil {
		from = p.held.Size / translog.TileWidth * translog.TileWidth
	}
	if err := p.start(from); err != nil {
		return err
	}
	p.pruned, p.told, p.unproved, p.ahead = 0, Prunings{}, false, nil
	due := p.due
	for len(due) > 0 && due[0].Size <= from {
		// Older than what is held, or just it: proved by tiles.
		if err := p.proveOlder(due[0]); err != nil {
			return err
		}
		due = due[1:]
	}
	for p.tree.Size() < p.to.Size {
		number := p.tree.Size() / translog.TileWidth
		want := int(min(translog.TileWidth, p.to.Size-p.tree.Size()))
		var bundle []*Entry
		if resume {
			bundle = p.left(number, want)
		}
		fetched := bundle == nil
		if fetched {
			var err error
			if bundle, err = p.fetch(want); err != nil {
				return err
			}
			if err := p.keptWhole(number, bundle); err != nil {
				return err
			}
		} else {
			p.unproved = true
		}
		hashes, rest, err := p.take(bundle, due)
		if err != nil {
			return err
		}
		due = rest
		if err := p.keep(number, bundle, hashes, fetched); err != nil {
			return err
		}
	}
	return p.keepUpper()
}

// start sets the tree to what was proved of its first size leaves.
func (p *pull) start(size int64) error {
	p.tree, p.upper = translog.Tree{}, nil
	if size == 0 {
		return nil
	}
	reader := translog.TileReader(tlog.Tree{N: p.held.Size, Hash: p.held.Root}, p.epoch.source())
	var edge []byte
	for done, height := int64(0), 62; height >= 0; height-- {
		if size&(1<<height) == 0 {
			continue
		}
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(height, done>>height)})
		if err != nil {
			return fmt.Errorf("the copy is damaged ('postern log verify' tells where): %w", err)
		}
		edge = append(edge, hashes[0][:]...)
		done += 1 << height
	}
	var err error
	if p.tree, err = translog.ParseTree(size, edge); err != nil {
		return err
	}
	for level := 1; size>>(level*translog.TileHeight) > 0; level++ {
		n := size >> (level * translog.TileHeight)
		var indexes []int64
		for i := n / translog.TileWidth * translog.TileWidth; i < n; i++ {
			indexes = append(indexes, tlog.StoredHashIndex(level*translog.TileHeight, i))
		}
		hashes, err := reader.ReadHashes(indexes)
		if err != nil {
			return fmt.Errorf("the copy is damaged ('postern log verify' tells where): %w", err)
		}
		p.upper = append(p.upper, hashes)
	}
	return nil
}

// proveOlder finds that what is held follows from an older checkpoint.
func (p *pull) proveOlder(older *translog.Checkpoint) error {
	proof, err := tlog.ProveTree(p.held.Size, older.Size, translog.TileReader(tlog.Tree{N: p.held.Size, Hash: p.held.Root}, p.epoch.source()))
	if err != nil {
		return fmt.Errorf("the copy is damaged ('postern log verify' tells where): %w", err)
	}
	if tlog.CheckTree(proof, p.held.Size, p.held.Root, older.Size, older.Root) != nil {
		return tampered("the log was forked: what is held does not follow from the checkpoint of %d events", older.Size)
	}
	return nil
}

// proveKnown finds that what is held, of which the log has no more, agrees with every
// checkpoint that is known.
func (p *pull) proveKnown() error {
	for _, k := range p.due {
		if k.Size < p.held.Size {
			if err := p.proveOlder(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// agrees finds that a checkpoint of an epoch that the log has left is one of what is
// held of it.
func agrees(dir string, keys *translog.Keys, k *translog.Checkpoint) error {
	e := openEpoch(dir, string(k.Origin.Epoch))
	held, err := e.checkpoint(keys)
	switch {
	case err != nil:
		return err
	case held == nil || held.Origin != k.Origin:
		return broker.Errorf(broker.Conflict, "a checkpoint was given of the log %s, of which nothing is held, and which the server does not serve: it proves nothing here", k.Origin)
	case held.Size < k.Size:
		return broker.Errorf(broker.Conflict, "a checkpoint was given of %d events of the log %s, of which %d are held, and which the server does not serve: it proves nothing here", k.Size, k.Origin, held.Size)
	}
	p := &pull{epoch: e, held: held, to: held, due: []*translog.Checkpoint{k}}
	if err := p.check(); err != nil {
		return err
	}
	return p.proveKnown()
}

// left returns what an earlier pull left of a full file; nil: nothing of use.
func (p *pull) left(number int64, want int) []*Entry {
	if want < translog.TileWidth {
		return nil
	}
	content, err := os.ReadFile(p.epoch.entries(number))
	if err != nil {
		return nil
	}
	entries, err := parseLines(content)
	if err != nil || len(entries) != translog.TileWidth {
		return nil
	}
	for i, e := range entries {
		if _, err := e.LeafOf(number*translog.TileWidth + int64(i)); err != nil {
			return nil
		}
	}
	return entries
}

// fetch asks for the next want entries.
func (p *pull) fetch(want int) ([]*Entry, error) {
	if len(p.ahead) > 0 && p.ahead[0].Seq != p.tree.Size() {
		p.ahead = nil // files that were left from before came in between
	}
	for len(p.ahead) < want {
		next := p.tree.Size() + int64(len(p.ahead))
		some, err := p.source.Entries(p.ctx, next)
		if err != nil {
			return nil, err
		}
		if len(some) == 0 {
			return nil, tampered("events from %d on are missing", next)
		}
		p.ahead = append(p.ahead, some...)
	}
	bundle := p.ahead[:want]
	p.ahead = p.ahead[want:]
	return bundle, nil
}

// take puts entries into the tree, and finds that it agrees with the
// checkpoints that are due.
func (p *pull) take(entries []*Entry, due []*translog.Checkpoint) ([]tlog.Hash, []*translog.Checkpoint, error) {
	hashes := make([]tlog.Hash, len(entries))
	var complete []translog.TileHash
	for i, e := range entries {
		leaf, err := e.LeafOf(p.tree.Size())
		if err != nil {
			return nil, nil, &TamperedError{err}
		}
		if e.Pruned() {
			p.pruned++
		}
		p.told.Add(e)
		hashes[i] = leaf
		complete = p.tree.Add(leaf, complete[:0])
		for _, c := range complete {
			if err := p.addUpper(c); err != nil {
				return nil, nil, err
			}
		}
		for len(due) > 0 && due[0].Size == p.tree.Size() {
			if due[0].Root != p.tree.Root() {
				return nil, nil, p.differs(due[0])
			}
			due = due[1:]
		}
	}
	return hashes, due, nil
}

// differs says of which checkpoint the log is not.
func (p *pull) differs(c *translog.Checkpoint) error {
	switch c {
	case p.to:
		return tampered("the log's %d events are not those of its checkpoint: some were changed, removed or put in between", c.Size)
	case p.held:
		return tampered("the log was forked or changed: its first %d events are not those that are held", c.Size)
	}
	return tampered("the log was forked or changed: its first %d events are not those of the checkpoint that was given", c.Size)
}

// keep writes a file of entries, and its tile.
func (p *pull) keep(number int64, entries []*Entry, hashes []tlog.Hash, fetched bool) error {
	if fetched {
		var lines []byte
		for _, e := range entries {
			lines = e.AppendLine(lines)
		}
		if err := p.epoch.write(p.epoch.entries(number), lines); err != nil {
			return err
		}
	}
	return p.keepTile(0, number, hashes)
}

func (p *pull) keepTile(level int, number int64, hashes []tlog.Hash) error {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for i := range hashes {
		b = append(b, hashes[i][:]...)
	}
	return p.epoch.write(p.epoch.tile(level, number, len(hashes)), b)
}

// addUpper adds a hash to the tiles above the lowest.
func (p *pull) addUpper(c translog.TileHash) error {
	if len(p.upper) < c.Level {
		p.upper = append(p.upper, nil)
	}
	tile := &p.upper[c.Level-1]
	*tile = append(*tile, c.Hash)
	if len(*tile) < translog.TileWidth {
		return nil
	}
	full := *tile
	*tile = nil
	return p.keepTile(c.Level, c.Number/translog.TileWidth, full)
}

// keepUpper writes the upper tiles that are not full, and has the server show
// that its own are the same: others read those.
func (p *pull) keepUpper() error {
	for i, hashes := range p.upper {
		if len(hashes) == 0 {
			continue
		}
		if err := p.keepTile(i+1, p.to.Size>>((i+2)*translog.TileHeight), hashes); err != nil {
			return err
		}
	}
	from := int64(0)
	if p.held != nil {
		from = p.held.Size
	}
	own := p.epoch.source()
	for _, t := range tlog.NewTiles(translog.TileHeight, from, p.to.Size) {
		theirs, err := p.source.Tile(p.ctx, t.L, t.N, t.W)
		if broker.CodeOf(err) == broker.NotFound {
			return tampered("tile %d of level %d is missing: %w", t.N, t.L, err)
		}
		if err != nil {
			return err
		}
		ours, err := own(t.L, t.N, t.W)
		if err != nil {
			return err
		}
		if string(ours) != string(theirs) {
			return tampered("tile %d of level %d is not the log's", t.N, t.L)
		}
	}
	return nil
}

// clean removes the tiles that were not full and have grown since.
func (p *pull) clean() error {
	return filepath.WalkDir(filepath.Join(p.epoch.dir, tileDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(filepath.Dir(path)) != partial {
			return err
		}
		for level, size := 0, p.to.Size; size > 0; level, size = level+1, size>>translog.TileHeight {
			if path == p.epoch.tile(level, size/translog.TileWidth, int(size%translog.TileWidth)) {
				return nil
			}
		}
		return os.Remove(path)
	})
}
