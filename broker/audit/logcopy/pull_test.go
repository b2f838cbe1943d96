// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// files lists what is below a directory.
func files(t testing.TB, dir string) (all []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != ".lock" {
			all = append(all, path)
		}
		return err
	}))
	return all
}

// A copy grows with its log, by any number of events, and is good at each step.
func TestPullGrows(t *testing.T) {
	s := serve(t, 5)
	dir := t.TempDir()
	var first *translog.Checkpoint
	for _, more := range []int{0, 1, 250, 0, 1, 255, 256, 3, 600} {
		s.append(more)
		before := int64(s.size() - more)
		if more == 0 && first == nil {
			before = 0
		}
		p, err := Pull(ctx, dir, s.keys(), s)
		must(t, err)
		if p.Checkpoint.Size != int64(s.size()) || p.Before != before || p.Pruned != 0 {
			t.Fatalf("after %d more: %+v", more, p)
		}
		if first == nil {
			first = p.Checkpoint
		}
		all, err := Verify(dir, s.keys(), first)
		must(t, err)
		if len(all) != 1 || *all[0].Checkpoint != *p.Checkpoint {
			t.Fatalf("verified: %+v", all)
		}
	}
	// What is there is what a first pull of all makes.
	fresh := t.TempDir()
	_, err := Pull(ctx, fresh, s.keys(), s, first)
	must(t, err)
	for _, path := range files(t, fresh) {
		name, err := filepath.Rel(fresh, path)
		must(t, err)
		want, err := os.ReadFile(path)
		must(t, err)
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs (%v)", name, err)
		}
	}
	for _, path := range files(t, dir) {
		name, err := filepath.Rel(dir, path)
		must(t, err)
		if _, err := os.Stat(filepath.Join(fresh, name)); err != nil && !strings.Contains(name, checkpointsDir) {
			t.Errorf("%s is of no use", name)
		}
	}
}

// A pull that ends anywhere is taken up where it ended, whatever it left.
func TestPullResumes(t *testing.T) {
	s := serve(t, 700)
	whole := t.TempDir()
	_, err := Pull(ctx, whole, s.keys(), s)
	must(t, err)
	cut := errors.New("cut")
	s.asked = 0
	dir := t.TempDir()
	for at := 1; ; at++ {
		s.asked, s.fail = 0, func(asked int) error {
			if asked == at {
				return cut
			}
			return nil
		}
		_, err := Pull(ctx, dir, s.keys(), s)
		if err == nil {
			break
		}
		if !errors.Is(err, cut) {
			t.Fatal(err)
		}
		for _, path := range files(t, dir) {
			if strings.Contains(path, checkpointFile) {
				t.Fatalf("%s is there after %d questions", path, at)
			}
		}
	}
	s.fail = nil
	_, err = Verify(dir, s.keys(), s.now())
	must(t, err)

	// What an earlier pull left of another log, or damaged, does not matter
	// while it was not proved.
	other := serve(t, 700)
	mixed := t.TempDir()
	_, err = Pull(ctx, mixed, other.keys(), other)
	must(t, err)
	theirs, ours := filepath.Join(mixed, string(other.now().Origin.Epoch)), filepath.Join(mixed, string(s.now().Origin.Epoch))
	must(t, os.Rename(theirs, ours))
	must(t, os.RemoveAll(filepath.Join(ours, checkpointsDir)))
	must(t, os.Remove(filepath.Join(ours, checkpointFile)))
	must(t, os.WriteFile(filepath.Join(ours, entriesDir, "001.jsonl"), []byte("{\n"), 0o600))
	_, err = Pull(ctx, mixed, s.keys(), s)
	must(t, err)
	_, err = Verify(mixed, s.keys(), s.now())
	must(t, err)
}

// A copy of each epoch is kept, and none is begun without its key.
func TestPullOfANewEpoch(t *testing.T) {
	s := serve(t, 300)
	dir := t.TempDir()
	old := s.keys()
	_, err := Pull(ctx, dir, old, s)
	must(t, err)
	before := s.now()
	must(t, s.store.BeginEpochs(ctx))
	s.append(10)
	var unknown *translog.UnknownKeyError
	if _, err := Pull(ctx, dir, old, s); !errors.As(err, &unknown) || !unknown.OtherEpoch {
		t.Fatalf("a new epoch: %v", err)
	}
	keys := both(t, s, before)
	_, err = Pull(ctx, dir, keys, s)
	must(t, err)
	all, err := Verify(dir, keys, before, s.now())
	must(t, err)
	if len(all) != 2 {
		t.Fatalf("verified: %+v", all)
	}
	if _, err := Verify(dir, old); err == nil {
		t.Error("an epoch was verified without its key")
	}
}

// both are the keys of an epoch that ended and of the present one.
func both(t *testing.T, s *served, old *translog.Checkpoint) *translog.Keys {
	t.Helper()
	var text string
	for _, epoch := range []broker.ID{old.Origin.Epoch, s.now().Origin.Epoch} {
		lines, err := s.publisher.Keys(ctx, translog.Origin{FirmID: s.firm, Epoch: epoch})
		must(t, err)
		text += strings.Join(lines, "\n") + "\n"
	}
	keys, err := translog.ParseKeys(text)
	must(t, err)
	return keys
}

// Every file of a copy matters: one that is changed, cut, gone or another's is
// found without the server.
func TestNever6CopyIsTamperedWith(t *testing.T) {
	s := serve(t, 300)
	dir := t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	s.append(300)
	_, err = Pull(ctx, dir, s.keys(), s)
	must(t, err)
	keys := s.keys()
	found := func(what string) {
		t.Helper()
		var wrong *TamperedError
		if _, err := Verify(dir, keys); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", what, err)
		}
	}
	all := files(t, dir)
	if len(all) < 8 {
		t.Fatalf("files: %v", all)
	}
	for i, path := range all {
		content, err := os.ReadFile(path)
		must(t, err)
		for at := 0; at < len(content); at += 1 + len(content)/40 {
			changed := slices.Clone(content)
			changed[at] ^= 1
			must(t, os.WriteFile(path, changed, 0o600))
			found(path + " with a changed octet")
		}
		must(t, os.WriteFile(path, content[:len(content)/2], 0o600))
		found(path + " cut")
		must(t, os.Remove(path))
		// The checkpoints are all that anybody has to prove it by; and copies of
		// earlier versions have no list of epochs.
		if !strings.Contains(path, checkpointsDir) && filepath.Base(path) != epochsFile {
			found(path + " removed")
		}
		other, err := os.ReadFile(all[(i+1)%len(all)])
		must(t, err)
		must(t, os.WriteFile(path, other, 0o600))
		if !bytes.Equal(other, content) {
			found(path + " replaced by another")
		}
		must(t, os.WriteFile(path, content, 0o600))
	}
	_, err = Verify(dir, keys)
	must(t, err)
}

// A power cut between a checkpoint and its place by its size damages nothing, and the
// next pull puts it there.
func TestPullIsCutBetweenCheckpoints(t *testing.T) {
	s := serve(t, 300)
	dir := t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	s.append(10)
	kept := openEpoch(dir, string(s.now().Origin.Epoch)).kept(s.now())
	must(t, os.Mkdir(kept+temporary, 0o700)) // in the way
	if _, err := Pull(ctx, dir, s.keys(), s); err == nil {
		t.Fatal("nothing was in the way")
	}
	must(t, os.Remove(kept+temporary))
	all, err := Verify(dir, s.keys())
	must(t, err)
	if all[0].Checkpoint.Size != s.now().Size {
		t.Errorf("%d events are held", all[0].Checkpoint.Size)
	}
	s.append(10)
	_, err = Pull(ctx, dir, s.keys(), s)
	must(t, err)
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}

// A copy that is being pulled is not called false by who reads it meanwhile.
func TestVerifyBesideAPull(t *testing.T) {
	s := serve(t, 30)
	dir := t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	var wrong *TamperedError
	release, err := lock(dir)
	must(t, err)
	if _, err := Verify(dir, s.keys()); err == nil || errors.As(err, &wrong) {
		t.Errorf("verified while it is pulled: %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("opened while it is pulled")
	}
	release()
	c, err := Open(dir)
	must(t, err)
	_, err = Verify(dir, s.keys())
	must(t, err)
	if _, err := Pull(ctx, dir, s.keys(), s); err == nil || errors.As(err, &wrong) {
		t.Errorf("pulled while it is read: %v", err)
	}
	c.Close()
	_, err = Pull(ctx, dir, s.keys(), s)
	must(t, err)
}

// What an earlier pull left, and turned out to be false, tells nothing of the log.
func TestPullForgetsWhatWasFalse(t *testing.T) {
	s := serve(t, 300)
	dir := t.TempDir()
	e := openEpoch(dir, string(s.now().Origin.Epoch))
	var lines []byte
	for seq := range translog.TileWidth {
		lines = (&Entry{Seq: int64(seq), Leaf: fmt.Sprintf("%064x", seq)}).AppendLine(lines)
	}
	must(t, e.write(e.entries(0), lines))
	p, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	if p.Lost != nil || p.Pruned != 0 {
		t.Errorf("pulled: %+v", p)
	}
}
