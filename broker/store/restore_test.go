// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
)

func TestBackup(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	path := filepath.Join(t.TempDir(), "copy.db")
	must(t, Backup(ctx, s.cfg.Path, path))
	wantCode(t, Backup(ctx, s.cfg.Path, path), broker.Conflict)
	copied := open(t, Config{Path: path}) // refuses a file that is open to others
	log := storetest.All(t, copied, w.Firm.ID)
	storetest.Verify(t, log)
	if len(log) != 4 {
		t.Errorf("%d events in the copy", len(log))
	}
	failed := filepath.Join(t.TempDir(), "failed.db")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	wantCode(t, Backup(gone, s.cfg.Path, failed), broker.Unavailable)
	wantCode(t, Backup(ctx, filepath.Join(t.TempDir(), "none.db"), failed), broker.Unavailable)
	if _, err := os.Stat(failed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an incomplete copy is left: %v", err)
	}
}

// closed returns the path of a database with a firm's things in it.
func closed(t *testing.T) (string, *storetest.World) {
	t.Helper()
	s := open(t, Config{})
	w := storetest.Build(t, s)
	must(t, s.Close())
	return s.cfg.Path, w
}

func TestInspect(t *testing.T) {
	path, w := closed(t)
	logs, err := Inspect(ctx, path)
	must(t, err)
	sizes := make(map[broker.ID]int64)
	for _, l := range logs {
		sizes[l.FirmID] = l.Events
	}
	if len(logs) != 2 || sizes[w.Firm.ID] != 4 || sizes[""] == 0 {
		t.Errorf("logs %+v", logs)
	}
	for what, statement := range map[string]string{
		"an event is missing":       `DELETE FROM events WHERE log = 2 AND seq = 1`,
		"the last event is missing": `DELETE FROM events WHERE log = 2 AND seq = 3`,
		"a record was altered":      `UPDATE events SET record = replace(record, 'created', 'deleted') WHERE log = 2 AND seq = 0`,
		"a leaf hash was altered":   `UPDATE events SET salt = x'', record = x'', leaf_hash = zeroblob(32) WHERE log = 2 AND seq = 0`,
		"a leaf hash is short":      `UPDATE events SET leaf_hash = x'00' WHERE log = 2 AND seq = 0`,
		"a later schema":            `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`,
		"a firm is gone":            `PRAGMA foreign_keys = off; DELETE FROM firms`,
		"not a database of ours":    `DROP TABLE goose_db_version`,
	} {
		path, _ := closed(t)
		db, err := openSQLite(path, false)
		must(t, err)
		_, err = db.ExecContext(ctx, statement)
		must(t, errors.Join(err, db.Close()))
		if _, err = Inspect(ctx, path); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	b, err := os.ReadFile(path)
	must(t, err)
	for i := 5000; i < len(b); i += 4096 {
		b[i] ^= 0xff
	}
	must(t, os.WriteFile(path, b, 0o600))
	if _, err = Inspect(ctx, path); broker.CodeOf(err) != broker.Invalid {
		t.Errorf("flipped bits: %v", err)
	}
}

// TestPrunedDatabaseIsRestored: what was pruned is no damage.
func TestPrunedDatabaseIsRestored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	s, firm, now := prunable(t, path, 500)
	pruneAll(t, s, now(), func() {})
	if gone := storetest.CheckPruned(t, s, firm); len(gone) < 500 {
		t.Fatalf("%d are pruned", len(gone))
	}
	must(t, s.Close())
	logs, err := Inspect(ctx, path)
	must(t, err)
	seized, err := Seize(path)
	must(t, err)
	lost, _, err := seized.Lost(ctx, nil)
	must(t, errors.Join(err, seized.Release()))
	if len(logs) != 2 || lost[""] != 0 || lost[broker.EventLogPruned] == 0 {
		t.Errorf("%+v, and without it would be lost %v", logs, lost)
	}
}

// A database that is in use is not replaced, and one that is being replaced
// is not used: neither by this process nor by another.
func TestSeize(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	path := s.cfg.Path
	_, err := Seize(path)
	wantCode(t, err, broker.Conflict)
	second := open(t, Config{Path: path}) // two servers may share it
	must(t, errors.Join(s.Close(), second.Close()))

	seized, err := Seize(path)
	must(t, err)
	_, err = Open(ctx, s.cfg)
	wantCode(t, err, broker.Conflict)
	wantCode(t, Backup(ctx, path, path+".copy"), broker.Conflict)

	other, _ := closed(t)
	must(t, seized.Replace(ctx, other, path+".kept"))
	must(t, seized.Release())
	_, err = open(t, Config{Path: path}).Firm(ctx, w.Firm.ID)
	wantCode(t, err, broker.NotFound)
	_, err = open(t, Config{Path: path + ".kept"}).Firm(ctx, w.Firm.ID)
	must(t, err)
}

// What is still in the write-ahead log of the replaced database, as after a
// crash, stays with it, and does not become part of the other.
func TestReplaceAfterACrash(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	path := filepath.Join(t.TempDir(), "postern.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.cfg.Path + suffix)
		must(t, err)
		must(t, os.WriteFile(path+suffix, b, 0o600))
	}
	other, _ := closed(t)
	seized, err := Seize(path)
	must(t, err)
	lost, own, err := seized.Lost(ctx, nil)
	must(t, err)
	if lost["mailbox.created"] != 1 || len(own) != 2 {
		t.Errorf("lost %v of %v", lost, own)
	}
	must(t, seized.Replace(ctx, other, path+".kept"))
	must(t, seized.Release())
	if _, err := Inspect(ctx, path); err != nil {
		t.Error(err)
	}
	_, err = open(t, Config{Path: path + ".kept"}).Firm(ctx, w.Firm.ID)
	must(t, err)

	alone := filepath.Join(t.TempDir(), "postern.db")
	must(t, os.WriteFile(alone+"-wal", []byte("x"), 0o600))
	seized, err = Seize(alone)
	must(t, err)
	wantCode(t, seized.Replace(ctx, path, ""), broker.Conflict)
	must(t, seized.Release())
}
