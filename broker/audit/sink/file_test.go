// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/broker"
)

// some makes events of a log that stand nowhere.
func some(t testing.TB, n int) (all []*Event) {
	t.Helper()
	for seq := range n {
		e := broker.Event{ID: broker.NewID(), Time: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), Seq: int64(seq), Type: broker.EventAuthFailed, Version: 1}
		record, err := json.Marshal(e)
		must(t, err)
		all = append(all, &Event{Event: e, Record: record, Severity: broker.SeverityInfo})
	}
	return all
}

// idsIn reads the ids of the lines of files, each of which must be whole.
func idsIn(t testing.TB, paths ...string) (ids []broker.ID) {
	t.Helper()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		must(t, err)
		for line := range bytes.Lines(content) {
			var e broker.Event
			if err := json.Unmarshal(line, &e); err != nil || line[len(line)-1] != '\n' {
				t.Fatalf("%s holds %q: %v", path, line, err)
			}
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func idsOf(events []*Event) (ids []broker.ID) {
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	return ids
}

func newFile(t testing.TB, cfg FileConfig) *File {
	t.Helper()
	cfg.Format = JSON
	f, err := NewFile(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func deliver(t testing.TB, r Receiver, events []*Event) {
	t.Helper()
	if n, err := r.Deliver(ctx, events); n != len(events) || err != nil {
		t.Fatalf("%d of %d were taken: %v", n, len(events), err)
	}
}

// TestFile: lines are whole whatever a crash left, and the file is the one at its
// path, private, after a rename as well.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := newFile(t, FileConfig{Path: path})
	events := some(t, 6)
	deliver(t, f, events[:2])
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("the file has mode %v", info.Mode())
	}
	// A crash in the middle of a line, longer than one look backwards.
	must(t, f.Close())
	half, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = half.WriteString(`{"id":"` + strings.Repeat("x", 200<<10))
	must(t, errors.Join(err, half.Close()))
	deliver(t, f, events[2:3])
	// logrotate's rename, and its removal.
	must(t, os.Rename(path, path+".1"))
	deliver(t, f, events[3:4])
	if got, want := idsIn(t, path+".1", path), idsOf(events[:4]); !slices.Equal(got, want) {
		t.Errorf("the files hold %v, not %v", got, want)
	}
	must(t, os.Remove(path))
	deliver(t, f, events[4:])
	if got, want := idsIn(t, path), idsOf(events[4:]); !slices.Equal(got, want) {
		t.Errorf("the file holds %v, not %v", got, want)
	}
	// A file of one unfinished line alone.
	must(t, f.Close())
	must(t, os.WriteFile(path, []byte("half"), 0o600))
	deliver(t, f, events[:1])
	if got, want := idsIn(t, path), idsOf(events[:1]); !slices.Equal(got, want) {
		t.Errorf("the file holds %v, not %v", got, want)
	}
}

// TestFileRotates: by size, and the newest stay.
func TestFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	f := newFile(t, FileConfig{Path: path, RotateOctets: 1000, Keep: 2, Mode: 0o640, Now: func() time.Time { now = now.Add(time.Second); return now }})
	must(t, os.WriteFile(path+".mine", nil, 0o600))
	events := some(t, 60)
	var want []broker.ID
	for i := 0; i < len(events); i += 10 { // each is more than 1000 octets
		deliver(t, f, events[i:i+10])
	}
	files, err := filepath.Glob(path + "*Z")
	must(t, err)
	if len(files) != 2 {
		t.Fatalf("renamed: %v", files)
	}
	want = idsOf(events[30:])
	if got := idsIn(t, append(files, path)...); !slices.Equal(got, want) {
		t.Errorf("the files hold %v, not %v", got, want)
	}
	if _, err := os.Stat(path + ".mine"); err != nil {
		t.Errorf("another's file: %v", err)
	}
}

// TestFileOnAFullDisk: what was written of events before there was no room is not
// there once more for each attempt.
func TestFileOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f := newFile(t, FileConfig{Path: path})
	events := some(t, 5)
	deliver(t, f, events[:2])
	// A limit on files' sizes is a disk without root: a part is written, then EFBIG.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var usual syscall.Rlimit
	must(t, syscall.Getrlimit(unix.RLIMIT_FSIZE, &usual))
	full := usual
	full.Cur = uint64(f.size) + uint64(len(events[2].Record)) + 10 // one of the three
	for range 3 {
		must(t, syscall.Setrlimit(unix.RLIMIT_FSIZE, &full))
		n, err := f.Deliver(ctx, events[2:])
		must(t, syscall.Setrlimit(unix.RLIMIT_FSIZE, &usual))
		if n != 0 || !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%d, %v", n, err)
		}
		if got, want := idsIn(t, path), idsOf(events[:2]); !slices.Equal(got, want) {
			t.Errorf("the file holds %v, not %v", got, want)
		}
	}
	deliver(t, f, events[2:])
	if got, want := idsIn(t, path), idsOf(events); !slices.Equal(got, want) {
		t.Errorf("the file holds %v, not %v", got, want)
	}
}

// TestFileRenamedWhileItIsWritten: what may have come too late for who renamed,
// compressed and removed it is written to the next one.
func TestFileRenamedWhileItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	events, late := some(t, 4), false
	f, err := NewFile(FileConfig{Path: path, Format: func(e *Event) ([]byte, error) {
		if late && e == events[2] { // the file is open
			late = false
			return e.Record, errors.Join(os.Rename(path, path+".1"), os.Remove(path+".1"))
		}
		return e.Record, nil
	}})
	must(t, err)
	deliver(t, f, events[:2])
	late = true
	var refused *RefusedError
	if n, err := f.Deliver(ctx, events[2:]); n != 0 || err == nil || errors.As(err, &refused) {
		t.Errorf("into a file that is gone: %d, %v", n, err)
	}
	deliver(t, f, events[2:])
	if got, want := idsIn(t, path), idsOf(events[2:]); !slices.Equal(got, want) {
		t.Errorf("the file holds %v, not %v", got, want)
	}
	must(t, f.Close())
}

// TestFileOutage: what cannot be written is an outage, and is written when it can.
func TestFileOutage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	path := filepath.Join(dir, "events.jsonl")
	f := newFile(t, FileConfig{Path: path})
	events := some(t, 2)
	var refused *RefusedError
	if n, err := f.Deliver(ctx, events); n != 0 || !errors.Is(err, fs.ErrNotExist) || errors.As(err, &refused) {
		t.Errorf("without its directory: %d, %v", n, err)
	}
	must(t, os.Mkdir(dir, 0o700))
	deliver(t, f, events)
	// A name that leads elsewhere.
	other := filepath.Join(dir, "other")
	must(t, os.WriteFile(other, nil, 0o600))
	must(t, os.Remove(path))
	must(t, os.Symlink(other, path))
	if n, err := f.Deliver(ctx, events); n != 0 || err == nil {
		t.Errorf("through a symbolic link: %d, %v", n, err)
	}
}
