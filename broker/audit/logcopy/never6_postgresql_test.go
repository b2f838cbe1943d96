// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"database/sql"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/postern-mail/postern/broker/audit/witness"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// TestNever6PostgreSQLIsTamperedWith: rows of events and of the tree's hashes in
// PostgreSQL, as in SQLite.
func TestNever6PostgreSQLIsTamperedWith(t *testing.T) {
	d := servers.StartPostgreSQL(t).NewDatabase()
	s := &served{t: t, database: &store.PostgreSQL{DSN: d.DSN(0), PasswordFile: d.PasswordFile}}
	s.open()
	s.world = storetest.Build(t, s.store)
	s.firm = s.world.Firm.ID
	s.append(300 - s.size())
	held := s.now()
	cosign := newWitness(t)
	must(t, cosign(s))
	s.append(300)
	size := int(s.now().Size)
	password, err := os.ReadFile(d.PasswordFile)
	must(t, err)
	db, err := sql.Open("pgx", d.DSN(0)+" password="+strings.TrimSpace(string(password)))
	must(t, err)
	defer db.Close()
	change := func(statement string, args ...any) {
		t.Helper()
		_, err := db.Exec(strings.NewReplacer(
			"LOG", "(SELECT number FROM logs WHERE firm_id = '"+string(s.firm)+"')",
		).Replace(statement), args...)
		must(t, err)
	}
	for _, table := range []string{"events", "log_hashes"} {
		change(`CREATE TABLE kept_` + table + ` AS SELECT * FROM ` + table)
	}
	entries := map[string]func(at int){
		"a record changed": func(at int) {
			change(`UPDATE events SET record = record || '\x20'::bytea WHERE log = LOG AND seq = $1`, at)
		},
		"a salt changed": func(at int) {
			change(`UPDATE events SET salt = decode(md5('x'), 'hex') WHERE log = LOG AND seq = $1`, at)
		},
		"a leaf hash changed": func(at int) { change(`UPDATE events SET leaf_hash = sha256('x') WHERE log = LOG AND seq = $1`, at) },
		"a row deleted":       func(at int) { change(`DELETE FROM events WHERE log = LOG AND seq = $1`, at) },
		"the log cut":         func(at int) { change(`DELETE FROM events WHERE log = LOG AND seq >= $1`, at) },
		"a row put in the place of the next": func(at int) {
			change(`UPDATE events SET (record, salt, leaf_hash) = (SELECT record, salt, leaf_hash FROM kept_events k WHERE k.log = LOG AND k.seq = $1)
				WHERE log = LOG AND seq = $2`, at, (at+1)%size)
		},
		"two rows swapped": func(at int) {
			for _, step := range [][2]int{{at, 9999}, {(at + 1) % size, at}, {9999, (at + 1) % size}} {
				change(`UPDATE events SET seq = $2 WHERE log = LOG AND seq = $1`, step[0], step[1])
			}
		},
	}
	hashes := map[string]func(at int){
		"a hash changed": func(at int) { change(`UPDATE log_hashes SET hash = sha256('x') WHERE log = LOG AND number = $1`, at) },
		"a hash deleted": func(at int) { change(`DELETE FROM log_hashes WHERE log = LOG AND number = $1`, at) },
		"a hash put in another's place": func(at int) {
			change(`UPDATE log_hashes SET hash = (SELECT hash FROM kept_log_hashes k WHERE k.log = LOG AND k.number = $1) WHERE log = LOG AND number = $2`, at, 1-at)
		},
	}
	found := func(name string, at int, withWitness bool) {
		t.Helper()
		var wrong *TamperedError
		if _, err := Pull(ctx, t.TempDir(), s.keys(), s, held); !errors.As(err, &wrong) {
			t.Errorf("%s, %d: a pull: %v", name, at, err)
		}
		if withWitness {
			var no *witness.RefusedError
			if err := cosign(s); !errors.As(err, &no) {
				t.Errorf("%s, %d: a witness: %v", name, at, err)
			}
		}
		for _, table := range []string{"events", "log_hashes"} {
			change(`DELETE FROM ` + table)
			change(`INSERT INTO ` + table + ` SELECT * FROM kept_` + table)
		}
	}
	for turn, name := range slices.Sorted(maps.Keys(entries)) {
		for _, at := range []int{[]int{0, 255, 256, size - 1}[turn%4], 17 * (turn + 1)} {
			entries[name](at)
			found(name, at, false)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		for at := range 2 {
			hashes[name](at)
			found(name, at, true)
		}
	}
	_, err = Pull(ctx, t.TempDir(), s.keys(), s, held)
	must(t, err)
	must(t, cosign(s))
}
