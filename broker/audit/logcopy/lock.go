// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lock makes the copy's directory, and keeps other processes out of it. The kernel
// lets go of it when the process ends.
func lock(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is being pulled, or read, by another process", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// share keeps pulls out of a copy that is read. A copy that nobody can pull into, such
// as one on a disk that cannot be written, may have no lock.
func share(dir string) (release func(), err error) {
	f, err := os.Open(filepath.Join(dir, ".lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is being pulled by another process", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
