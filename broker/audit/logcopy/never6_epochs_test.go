// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// restored is what a restore writes into the log of a backup.
func (s *served) restored() {
	s.t.Helper()
	must(s.t, s.store.AppendEvents(ctx, []*broker.Event{{
		Type: broker.EventStateRestored, FirmID: s.firm, Actor: broker.Actor{Kind: "admin", Name: "root"},
		Data: broker.StateRestored{Backup: strings.Repeat("0", 64), Events: int64(s.size())},
	}}))
	must(s.t, s.store.BeginEpochs(ctx))
}

// backups are a log that goes on after some backups of it were made, and those; dir
// is the firm's copy of it, and text its keys.
func backups(t *testing.T, n int) (s *served, backups []*served, dir, text string) {
	t.Helper()
	s = serve(t, 300)
	s.stop()
	for range n {
		backups = append(backups, s.fork(t))
	}
	s.restart()
	s.append(30)
	dir = t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	return s, backups, dir, s.keyLine()
}

func (s *served) keyLine() string {
	s.t.Helper()
	h, err := s.store.LogHead(ctx, s.firm)
	must(s.t, err)
	lines, err := s.publisher.Keys(ctx, translog.Origin{FirmID: s.firm, Epoch: h.Epoch})
	must(s.t, err)
	return lines[0] + "\n"
}

// TestPullOfRestores: whatever backups a log is restored from, a copy of all of its
// epochs is good.
func TestPullOfRestores(t *testing.T) {
	s, olds, dir, text := backups(t, 2)
	known := []*translog.Checkpoint{s.now()}
	for _, restore := range olds {
		restore.restored()
		restore.append(50)
		text += restore.keyLine()
		keys, err := translog.ParseKeys(text)
		must(t, err)
		for range 2 { // with news, and without
			_, err = Pull(ctx, dir, keys, restore, known...)
			must(t, err)
		}
		known = append(known, restore.now())
		all, err := Verify(dir, keys, known...)
		must(t, err)
		c, err := Open(dir)
		must(t, err)
		c.Close()
		if want := filepath.Join(dir, string(restore.now().Origin.Epoch)); len(all) != len(known) || c.epoch.dir != want {
			t.Errorf("%d epochs, of which %s is the newest", len(all), c.epoch.dir)
		}
	}
}

// TestNever6EpochThatWasLeft: a log does not go back to what was before a restore,
// as if that had never been.
func TestNever6EpochThatWasLeft(t *testing.T) {
	s, olds, dir, text := backups(t, 1)
	restored := olds[0]
	restored.restored()
	keys, err := translog.ParseKeys(text + restored.keyLine())
	must(t, err)
	_, err = Pull(ctx, dir, keys, restored)
	must(t, err)
	// A copy of an earlier version does not tell which is the newest, until it is
	// pulled again.
	must(t, os.Remove(filepath.Join(dir, epochsFile)))
	_, err = Verify(dir, keys)
	must(t, err)
	_, err = Pull(ctx, dir, keys, restored)
	must(t, err)
	s.append(10)
	var wrong *TamperedError
	if _, err := Pull(ctx, dir, keys, s); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "went back") {
		t.Errorf("the epoch before: %v", err)
	}
	restored.append(10)
	_, err = Pull(ctx, dir, keys, restored)
	must(t, err)
}

// TestNever6EpochThatWasRewritten: what was before a backup stands in the epoch that
// begins with it as it stood in the one before.
func TestNever6EpochThatWasRewritten(t *testing.T) {
	for _, at := range []int{1, 100, 299} {
		_, olds, dir, text := backups(t, 1)
		rewritten := olds[0]
		rewritten.forge(at)
		rewritten.restored()
		rewritten.append(300)
		keys, err := translog.ParseKeys(text + rewritten.keyLine())
		must(t, err)
		_, err = Pull(ctx, dir, keys, rewritten)
		must(t, err)
		var wrong *TamperedError
		if _, err := Verify(dir, keys); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "tells there of a restore") {
			t.Errorf("rewritten from event %d on: %v", at, err)
		}
	}
}

// TestNever6AnotherFirmsLog: a copy is of one log. Nor is it one of another's epochs.
func TestNever6AnotherFirmsLog(t *testing.T) {
	s, _, dir, text := backups(t, 0)
	other := serve(t, 300)
	keys, err := translog.ParseKeys(text + other.keyLine())
	must(t, err)
	if _, err := Pull(ctx, dir, keys, other); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("another firm's log: %v", err)
	}
	if _, err := Pull(ctx, dir, keys, s, other.now()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("with another's checkpoint: %v", err)
	}
	_, err = Pull(ctx, dir, keys, s)
	must(t, err)
}

// TestNever6KnownCheckpointWithoutNews: a checkpoint of somebody who was shown
// another log is held against what is held, whether the log has more or not.
func TestNever6KnownCheckpointWithoutNews(t *testing.T) {
	s, olds, dir, text := backups(t, 2)
	olds[0].forge(200)
	keys, err := translog.ParseKeys(text)
	must(t, err)
	var wrong *TamperedError
	if _, err := Pull(ctx, dir, keys, s, olds[0].now()); !errors.As(err, &wrong) {
		t.Errorf("of another log: %v", err)
	}
	// Nor is it passed over when the log has left its epoch.
	olds[1].restored()
	if keys, err = translog.ParseKeys(text + olds[1].keyLine()); err != nil {
		t.Fatal(err)
	}
	if _, err := Pull(ctx, dir, keys, olds[1], olds[0].now()); !errors.As(err, &wrong) {
		t.Errorf("of another log, before a restore: %v", err)
	}
	s.append(1)
	if _, err := Pull(ctx, dir, keys, olds[1], s.now()); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("of more than is held, before a restore: %v", err)
	}
}
