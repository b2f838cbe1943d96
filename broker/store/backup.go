// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"os"

	"github.com/postern-mail/postern/broker"
)

// Backup writes a consistent copy of the database at path to a file, which
// must not exist, with mode 0600, while a server may be using the database.
// What is incomplete is removed again.
func Backup(ctx context.Context, path, to string) (err error) {
	release, err := holdIfThere(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return conflict("the file %s exists already", to)
	}
	if err != nil {
		return broker.InvalidField("path", "it cannot be created").WithCause(err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	db, err := openSQLite(path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// SQLite accepts an empty file as the target.
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, to); err != nil {
		return dbError(err)
	}
	if err := errors.Join(f.Sync(), syncFolder(to)); err != nil {
		return unavailable(err)
	}
	return nil
}
