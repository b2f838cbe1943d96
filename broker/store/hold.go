// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"syscall"
)

// lockSuffix names the file beside a database whose lock says that somebody
// uses it: shared by all who do, exclusive to who puts another in its place.
// SQLite's own locks cannot say so: they belong to a file, and not to the name
// that a restore gives to another one.
const lockSuffix = ".lock"

// hold takes the lock of the database at path, or says that it cannot be had
// now. The kernel lets go of it when the process ends.
func hold(path string, exclusive bool) (release func() error, err error) {
	f, err := os.OpenFile(path+lockSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unavailable(err)
	}
	return flock(f, exclusive)
}

// holdIfThere is a shared hold that makes no file: one that root made would
// keep the server out.
func holdIfThere(path string) (release func() error, err error) {
	f, err := os.Open(path + lockSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, unavailable(err)
	}
	return flock(f, false)
}

func flock(f *os.File, exclusive bool) (release func() error, err error) {
	how, text := syscall.LOCK_SH, "the database is being replaced by a restore"
	if exclusive {
		how, text = syscall.LOCK_EX, "the database is in use: stop the server first"
	}
	for {
		err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f.Close, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(conflict("%s", text), f.Close())
		case !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(unavailable(err), f.Close())
		}
	}
}
