// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/broker/translog"
)

// tamper changes the database under the server.
func (s *served) tamper(statement string, args ...any) {
	s.t.Helper()
	db, err := sql.Open("sqlite", s.path+"?_pragma=busy_timeout(10000)")
	must(s.t, err)
	defer db.Close()
	_, err = db.Exec(statement, args...)
	must(s.t, err)
}

// restart is a server that starts anew, and remembers nothing.
func (s *served) restart() { s.open() }

// everyPlace has each fault tried at every row, and not at every third.
const everyPlace = "POSTERN_LOG_FAULTS"

// Each row of a small log is changed, deleted, swapped, duplicated and cut, in
// the database: whoever pulls it with an older checkpoint finds each, and the
// copy that he made before stays good. The faults take turns, so that there is no
// row that none was tried at.
func TestNever6DatabaseIsTamperedWith(t *testing.T) {
	const events = 20
	firmLog := `(SELECT l.number FROM logs l WHERE l.firm_id = $1)`
	faults := map[string]func(s *served, at int){
		"a record changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET record = CAST(replace(CAST(record AS TEXT), '"version":1', '"version":2') AS BLOB) WHERE log = `+firmLog+` AND seq = $2`, s.firm, at)
		},
		"a salt changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET salt = randomblob(16) WHERE log = `+firmLog+` AND seq = $2`, s.firm, at)
		},
		"a leaf hash changed": func(s *served, at int) {
			s.tamper(`UPDATE events SET leaf_hash = randomblob(32) WHERE log = `+firmLog+` AND seq = $2`, s.firm, at)
		},
		"a record changed with its leaf hash": func(s *served, at int) {
			all, err := s.store.LogEntries(ctx, s.firm, int64(at), 1)
			must(s.t, err)
			record := append([]byte(nil), all[0].Record...)
			record[len(record)-2] = ' '
			leaf := tlog.RecordHash(append(append([]byte(nil), all[0].Salt...), record...))
			s.tamper(`UPDATE events SET record = $3, leaf_hash = $4 WHERE log = `+firmLog+` AND seq = $2`, s.firm, at, record, leaf[:])
		},
		"a row deleted": func(s *served, at int) {
			s.tamper(`DELETE FROM events WHERE log = `+firmLog+` AND seq = $2`, s.firm, at)
		},
		"a row put in the place of the next": func(s *served, at int) {
			if at == events-1 {
				at--
			}
			s.tamper(`UPDATE events SET (record, salt, leaf_hash) = (SELECT record, salt, leaf_hash FROM events e WHERE e.log = `+firmLog+` AND e.seq = $2)
				WHERE log = `+firmLog+` AND seq = $2 + 1`, s.firm, at)
		},
		"two rows swapped": func(s *served, at int) {
			if at == events-1 {
				at--
			}
			for _, step := range []string{"seq = 999 WHERE seq = $2", "seq = $2 WHERE seq = $2 + 1", "seq = $2 + 1 WHERE seq = 999"} {
				s.tamper(`UPDATE events SET `+step+` AND log = `+firmLog, s.firm, at)
			}
		},
		"a row pruned by nobody's leave": func(s *served, at int) {
			s.tamper(`UPDATE events SET record = x'7b7d' WHERE log = `+firmLog+` AND seq = $2`, s.firm, at)
		},
		"the log cut": func(s *served, at int) {
			s.tamper(`DELETE FROM events WHERE log = `+firmLog+` AND seq >= $2`, s.firm, at)
		},
		// Whoever knows how makes a whole tree of what he left.
		"the log cut, and a tree made of it": func(s *served, at int) { s.rebuild(at + 1) },
		"a log made of other events":         func(s *served, at int) { s.forge(at) },
	}
	for turn, name := range slices.Sorted(maps.Keys(faults)) {
		fault := faults[name]
		t.Run(name, func(t *testing.T) {
			s := serve(t, events)
			held := s.now()
			dir := t.TempDir()
			_, err := Pull(ctx, dir, s.keys(), s)
			must(t, err)
			s.append(3)
			must(t, s.store.Close())
			var at []int
			for place := range events {
				if place%3 == turn%3 || os.Getenv(everyPlace) != "" {
					at = append(at, place)
				}
			}
			whole := s.path
			for i, place := range at {
				s.path = fmt.Sprintf("%s.%d", whole, i)
				s.copyOf(whole)
				s.restart()
				if name == "the log cut, and a tree made of it" && place == events-1 {
					continue // nothing of what is held was cut
				}
				fault(s, place)
				var wrong *TamperedError
				if _, err := Pull(ctx, t.TempDir(), s.keys(), s, held); !errors.As(err, &wrong) {
					t.Errorf("event %d: %v", place, err)
				}
				_, err := Verify(dir, s.keys(), held)
				must(t, err)
			}
		})
	}
}

// copyOf puts a copy of a database at the path.
func (s *served) copyOf(path string) {
	s.t.Helper()
	db, err := sql.Open("sqlite", path)
	must(s.t, err)
	defer db.Close()
	_, err = db.Exec(`VACUUM INTO $1`, s.path)
	must(s.t, err)
	must(s.t, os.Chmod(s.path, 0o600))
}

// rebuild leaves the first events alone, with a tree that fits them.
func (s *served) rebuild(size int) {
	s.t.Helper()
	all, err := s.store.LogEntries(ctx, s.firm, 0, size)
	must(s.t, err)
	var tree translog.Tree
	for _, e := range all {
		tree.Add(tlog.Hash(e.LeafHash), nil)
	}
	s.tamper(`DELETE FROM events WHERE log = (SELECT number FROM logs WHERE firm_id = $1) AND seq >= $2`, s.firm, size)
	s.tamper(`DELETE FROM log_hashes WHERE log = (SELECT number FROM logs WHERE firm_id = $1) AND number >= $2`, s.firm, size/translog.TileWidth)
	s.tamper(`DELETE FROM log_checkpoints WHERE log = (SELECT number FROM logs WHERE firm_id = $1)`, s.firm)
	s.tamper(`UPDATE logs SET next_seq = $2, keyed = 0, tree_size = $2, tree_edge = $3 WHERE firm_id = $1`, s.firm, size, tree.AppendEdge(nil))
}

// forge has the log go on from an event in another way.
func (s *served) forge(from int) {
	s.t.Helper()
	if from > 0 {
		from--
	}
	s.rebuild(from + 1)
	s.append(40)
}

// An older database that is put under a running server is not signed, and
// whoever pulls it finds it.
func TestNever6OlderDatabase(t *testing.T) {
	s := serve(t, 30)
	dir := t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	for _, then := range []int{0, 5, 30, 300} {
		older := serve(t, 1)
		must(t, older.store.Close())
		older.path = s.path + fmt.Sprint(".", then)
		older.copyOf(s.path)
		older.world, older.firm = s.world, s.firm
		older.restart()
		publisher := older.publisher
		older.append(20)
		_, err := Pull(ctx, t.TempDir(), older.keys(), older)
		must(t, err)
		held := older.now()
		older.rebuild(30)
		older.append(then)
		older.publisher = publisher
		publisher.Round(ctx)
		if then > 0 && publisher.Healthy() == nil {
			t.Errorf("%d events later nobody has noticed", then)
		}
		older.restart() // even a server that remembers nothing
		var wrong *TamperedError
		if _, err := Pull(ctx, t.TempDir(), older.keys(), older, held); !errors.As(err, &wrong) {
			t.Errorf("%d events later: %v", then, err)
		}
	}
}

// Two readers who were shown two logs find it when they compare.
func TestNever6ForkedLog(t *testing.T) {
	one := serve(t, 300)
	other := serve(t, 1)
	must(t, other.store.Close())
	other.path = one.path + ".other"
	other.copyOf(one.path)
	other.world, other.firm = one.world, one.firm
	other.restart()
	first, second := t.TempDir(), t.TempDir()
	for range 3 {
		one.append(7)
		other.append(9)
		for s, dir := range map[*served]string{one: first, other: second} {
			_, err := Pull(ctx, dir, s.keys(), s)
			must(t, err)
			_, err = Verify(dir, s.keys())
			must(t, err)
		}
		var wrong *TamperedError
		if _, err := Verify(second, other.keys(), one.now()); !errors.As(err, &wrong) {
			t.Errorf("the second reader, with the first's checkpoint: %v", err)
		}
	}
	var wrong *TamperedError
	if _, err := Pull(ctx, first, other.keys(), other); !errors.As(err, &wrong) {
		t.Errorf("the first reader at the second's server: %v", err)
	}
}
