// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"os"

	"github.com/postern-mail/postern/broker"
)

// Backup writes a consistent copy of the database to path, which must not
// exist, with mode 0600, while the store is in use. What is incomplete is
// removed again.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return conflict("the file %s exists already", path)
	}
	if err != nil {
		return broker.InvalidField("path", "it cannot be created").WithCause(err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	select {
	case <-s.stopped:
		return unavailable(errClosed)
	default:
	}
	// A pool of its own: those that read cannot write, and the one that writes
	// has more urgent work.
	db, err := openSQLite(s.cfg.Path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	// SQLite accepts an empty file as the target.
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, path); err != nil {
		return dbError(err)
	}
	if err := errors.Join(f.Sync(), syncFolder(path)); err != nil {
		return unavailable(err)
	}
	return nil
}
