// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// migrations only go forward, and each leaves a database that the version of
// Postern before it can still use: nodes are upgraded one after another.
//
// Those of SQLite and of PostgreSQL with the same number make the same tables
// and columns.
//
//go:embed migrations/*.sql migrations/postgresql/*.sql
var migrations embed.FS

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return dbError(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithVerbose(false))
	if err != nil {
		return dbError(fmt.Errorf("reading the migrations: %w", err))
	}
	if _, err := provider.Up(ctx); err != nil {
		return dbError(fmt.Errorf("migrating the database: %w", err))
	}
	return nil
}

// migratePostgreSQL has nodes that start together wait for each other.
func migratePostgreSQL(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations/postgresql")
	if err != nil {
		return dbError(err)
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return dbError(err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithVerbose(false), goose.WithSessionLocker(locker))
	if err != nil {
		return dbError(fmt.Errorf("reading the migrations: %w", err))
	}
	if _, err := provider.Up(ctx); err != nil {
		return dbError(fmt.Errorf("migrating the database: %w", err))
	}
	return nil
}
