// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

const (
	// memoryFile holds the key, and what was cosigned last.
	memoryFile = "witness.json"
	lockFile   = ".lock"
	// temporary is the ending of a file that is being written.
	temporary = ".new"
)

// memory is the file's content.
type memory struct {
	// Key is the secret key.
	Key string `json:"key"`
	// Checkpoint is the newest that was, or was about to be, cosigned, as the log
	// signed it; empty: none was.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Left are the epochs before that one.
	Left []broker.ID `json:"left_epochs,omitempty"`
}

// Create makes a witness's key in a new directory, and returns the public half.
func Create(dir, name string) (*translog.WitnessKey, error) {
	signer, err := translog.NewWitnessSigner(name, rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	release, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	if _, err := os.Lstat(filepath.Join(dir, memoryFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds a witness already", dir)
	}
	return signer.Key(), (&memory{Key: signer.Secret()}).save(dir)
}

// load reads the file.
func load(dir string) (*memory, *translog.WitnessSigner, error) {
	path := filepath.Join(dir, memoryFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, nil, fmt.Errorf("%s has mode %04o: others could read the key; chmod 0600 it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer clear(b)
	m := new(memory)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	signer, err := translog.ParseWitnessSigner(m.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return m, signer, nil
}

// save replaces the file, all of it or nothing, durably.
func (m *memory) save(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	defer clear(b)
	return replace(filepath.Join(dir, memoryFile), append(b, '\n'))
}

func replace(path string, content []byte) error {
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+temporary))
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// held is the last checkpoint; nil: there is none. It was verified before it was
// kept, with keys that may be given no more.
func (m *memory) held() (*translog.Checkpoint, error) {
	if m.Checkpoint == "" {
		return nil, nil
	}
	return translog.Read([]byte(m.Checkpoint))
}

// hold makes a checkpoint the last one.
func (m *memory) hold(before, c *translog.Checkpoint, signed []byte) {
	if before != nil && before.Origin.Epoch != c.Origin.Epoch {
		m.Left = append(slices.Clone(m.Left), before.Origin.Epoch)
	}
	m.Checkpoint = string(signed)
}

// lock keeps other processes out of a directory. The kernel lets go of it when
// the process ends.
func lock(dir string) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process is the witness of %s", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// evidence keeps the two checkpoints that cannot both be true.
func evidence(dir string, at time.Time, held, other []byte) (string, error) {
	path := filepath.Join(dir, "evidence-"+at.UTC().Format("20060102T150405Z"))
	return path, replace(path, fmt.Appendf(nil, "%s\n%s", held, other))
}
