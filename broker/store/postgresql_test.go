// SPDX-License-Identifier: Apache-2.0

package store

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// openDatabase opens a store on a database of PostgreSQL.
func openDatabase(t testing.TB, d *servers.Database, cfg Config) *Store {
	t.Helper()
	cfg.PostgreSQL = &PostgreSQL{DSN: d.DSN(0), PasswordFile: d.PasswordFile}
	return open(t, cfg)
}

// TestPostgreSQL is all that needs a server and does not end it.
func TestPostgreSQL(t *testing.T) {
	server := servers.StartPostgreSQL(t)
	t.Run("Contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Store { return openDatabase(t, server.NewDatabase(), Config{}) })
	})
	t.Run("Shared", func(t *testing.T) {
		storetest.RunShared(t, func(t *testing.T) (storetest.Store, storetest.Store) {
			d := server.NewDatabase()
			return openDatabase(t, d, Config{}), openDatabase(t, d, Config{})
		})
	})
	t.Run("Retention", func(t *testing.T) {
		storetest.RunRetention(t, func(t *testing.T, now func() time.Time) storetest.Store {
			return openDatabase(t, server.NewDatabase(), Config{Now: now})
		})
	})
	t.Run("PruneTogether", func(t *testing.T) {
		d := server.NewDatabase()
		storetest.RunPruneTogether(t, func(now func() time.Time) (storetest.Store, storetest.Store) {
			return openDatabase(t, d, Config{Now: now}), openDatabase(t, d, Config{Now: now})
		})
	})
	t.Run("Told", func(t *testing.T) {
		d := server.NewDatabase()
		storetest.RunTold(t, openDatabase(t, d, Config{}), openDatabase(t, d, Config{}))
	})
	for name, test := range map[string]func(*testing.T, *servers.PostgreSQL){
		"SchemasAreInStep":       testSchemasAreInStep,
		"QuestionsSeek":          testQuestionsSeek,
		"StoppedInATransaction":  testStoppedInATransaction,
		"SilentDatabase":         testSilentDatabase,
		"ForgedNotices":          testForgedNotices,
		"NoticesLost":            testNoticesLost,
		"ConnectionsEndedAtRest": testConnectionsEnded,
	} {
		t.Run(name, func(t *testing.T) { test(t, server) })
	}
}

// testSchemasAreInStep: both databases have the same tables, columns and
// indexes, and each migration of the one has its like in the other.
func testSchemasAreInStep(t *testing.T, postgres *servers.PostgreSQL) {
	lite, server := open(t, Config{}), openDatabase(t, postgres.NewDatabase(), Config{})
	for what, queries := range map[string][2]string{
		"columns": {
			`SELECT t.name || '.' || c.name || CASE c."notnull" WHEN 1 THEN ' NOT NULL' ELSE '' END
				FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'`,
			`SELECT table_name || '.' || column_name || CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END
				FROM information_schema.columns WHERE table_schema = 'public'`,
		},
		"indexes": {
			`SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL`,
			`SELECT indexname FROM pg_indexes WHERE schemaname = 'public'
				AND indexname NOT IN (SELECT conname FROM pg_constraint)`,
		},
	} {
		want := texts(t, lite.readers, queries[0])
		if diff := cmp.Diff(want, texts(t, server.readers, queries[1])); diff != "" || len(want) == 0 {
			t.Errorf("%s: SQLite (-) and PostgreSQL (+) differ:\n%s", what, diff)
		}
	}
	var names [2][]string
	for i, folder := range []string{"migrations", "migrations/postgresql"} {
		files, err := fs.Glob(migrations, folder+"/*.sql")
		must(t, err)
		for _, f := range files {
			names[i] = append(names[i], filepath.Base(f)[:len("00000")])
		}
	}
	// PostgreSQL begins with what SQLite had come to.
	if diff := cmp.Diff(names[0][2:], names[1]); diff != "" {
		t.Errorf("migrations of SQLite (-) and PostgreSQL (+): %s", diff)
	}
}

// texts returns the one column of a query, without goose's own table.
func texts(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(ctx, query)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var s string
		must(t, rows.Scan(&s))
		if !strings.HasPrefix(s, "goose_db_version") && !strings.HasPrefix(s, "sqlite_") {
			all = append(all, s)
		}
	}
	must(t, rows.Err())
	slices.Sort(all)
	return all
}
