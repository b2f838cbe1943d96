// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// epochsFile names a copy's epochs, one a line, in the order in which they were first
// pulled.
const epochsFile = "epochs"

// epochs are those of a copy of which something is held, the newest last, and all in
// the order that the copy tells; nil: it is an earlier version's, and tells none. Then
// it goes by the ids, which grow with time.
func epochs(dir string) (held, order []broker.ID, err error) {
	if order, err = readOrder(dir); err != nil {
		return nil, nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		id, err := broker.ParseID(f.Name())
		if err != nil || !f.IsDir() {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, f.Name(), checkpointFile)); errors.Is(err, fs.ErrNotExist) {
			continue // a first pull that did not end
		}
		if order != nil && !slices.Contains(order, id) {
			return nil, nil, fmt.Errorf("%s does not name the epoch %s, which is held", filepath.Join(dir, epochsFile), id)
		}
		held = append(held, id)
	}
	if order != nil {
		slices.SortFunc(held, func(a, b broker.ID) int { return slices.Index(order, a) - slices.Index(order, b) })
	}
	return held, order, nil
}

// readOrder reads the file; nil: there is none.
func readOrder(dir string) (order []broker.ID, err error) {
	b, err := os.ReadFile(filepath.Join(dir, epochsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		id, err := broker.ParseID(strings.TrimSuffix(line, "\n"))
		if err != nil || !strings.HasSuffix(line, "\n") || slices.Contains(order, id) {
			return nil, fmt.Errorf("%s is damaged", filepath.Join(dir, epochsFile))
		}
		order = append(order, id)
	}
	if order == nil {
		return nil, fmt.Errorf("%s is empty", filepath.Join(dir, epochsFile))
	}
	return order, nil
}

// admit finds that a log may be copied beside what is held: it is the same firm's,
// and of the newest epoch, or of one that was not pulled yet. begin writes down that
// it is the newest.
func admit(dir string, o translog.Origin) (begin func() error, err error) {
	held, order, err := epochs(dir)
	if err != nil {
		return nil, err
	}
	for _, id := range held {
		path := filepath.Join(dir, string(id), checkpointFile)
		note, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		c, err := translog.Read(note)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if c.Origin.FirmID != o.FirmID {
			return nil, broker.Errorf(broker.Conflict, "%s holds the log %s, and this is %s: each needs a directory of its own", dir, c.Origin, o)
		}
	}
	switch i := slices.Index(order, o.Epoch); {
	case i >= 0 && i < len(order)-1:
		return nil, tampered("the log went back to the epoch %s, which it had left: an older database was put into place", o.Epoch)
	case i >= 0:
		return func() error { return nil }, nil
	case order == nil:
		order = slices.DeleteFunc(held, func(id broker.ID) bool { return id == o.Epoch })
	}
	order = append(order, o.Epoch)
	return func() error {
		var text strings.Builder
		for _, id := range order {
			fmt.Fprintln(&text, id)
		}
		return openEpoch(dir, "").write(filepath.Join(dir, epochsFile), []byte(text.String()))
	}, nil
}

// sameUpToARestore finds that of two epochs, both verified, one tells of a restore
// where they part: what was before a backup is in both.
func sameUpToARestore(dir string, a, b *translog.Checkpoint) error {
	if a.Origin.FirmID != b.Origin.FirmID {
		return nil
	}
	one, other := openEpoch(dir, string(a.Origin.Epoch)), openEpoch(dir, string(b.Origin.Epoch))
	at, err := parted(one, other, a, b)
	if err != nil || at == min(a.Size, b.Size) {
		return err
	}
	for _, e := range []*epoch{one, other} {
		if restored, err := e.restoredAt(at); err != nil || restored {
			return err
		}
	}
	return fmt.Errorf("the epochs %s and %s part at event %d, and neither tells there of a restore: what was before the backup was rewritten in one of them", a.Origin.Epoch, b.Origin.Epoch, at)
}

// parted returns the first event that two epochs do not share; how many the smaller
// has, where they share those.
func parted(one, other *epoch, a, b *translog.Checkpoint) (int64, error) {
	of, and := translog.TileReader(tlog.Tree{N: a.Size, Hash: a.Root}, one.source()), translog.TileReader(tlog.Tree{N: b.Size, Hash: b.Root}, other.source())
	var failed error
	differ := func(size int64) bool {
		x, err := tlog.TreeHash(size, of)
		y, wrong := tlog.TreeHash(size, and)
		failed = errors.Join(failed, err, wrong)
		return x != y
	}
	size := min(a.Size, b.Size)
	if !differ(size) {
		return size, failed
	}
	return int64(sort.Search(int(size), func(i int) bool { return differ(int64(i) + 1) })), failed
}

// restoredAt reports whether an event says that the log was restored up to there.
func (e *epoch) restoredAt(seq int64) (bool, error) {
	content, err := e.readEntries(seq / translog.TileWidth)
	if err != nil {
		return false, err
	}
	entries, err := parseLines(content)
	if err != nil {
		return false, err
	}
	if i := seq % translog.TileWidth; i < int64(len(entries)) {
		var r record
		return json.Unmarshal(entries[i].Record, &r) == nil && r.Type == broker.EventStateRestored, nil
	}
	return false, nil
}
