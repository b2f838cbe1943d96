// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FileConfig is a file of JSON Lines.
type FileConfig struct {
	// Path is in a directory that is there. The file is made when it is not.
	Path string
	// Mode is that of a file that is made; 0: 0600.
	Mode fs.FileMode
	// RotateOctets is how large it may grow before it is renamed and another is
	// begun; 0: it is never renamed by Postern. Keep is how many renamed ones stay,
	// the newest; 0: all.
	RotateOctets int64
	Keep         int
	Format       Format
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// File appends events to a file, one a line, and has them on the disk before it
// says that they are taken. Who renames or removes the file, as logrotate does,
// finds another in its place with the next events, without a signal.
type File struct {
	cfg  FileConfig
	file *os.File // nil: not open
	size int64
}

var _ Receiver = (*File)(nil)

// NewFile makes a file's receiver. Nothing is opened before the first delivery.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" || cfg.Format == nil {
		return nil, errors.New("sink: a file's path and a format are needed")
	}
	if cfg.Mode == 0 {
		cfg.Mode = 0o600
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &File{cfg: cfg}, nil
}

// Deliver is described at Receiver.
func (f *File) Deliver(_ context.Context, events []*Event) (int, error) {
	if err := f.ready(); err != nil {
		return 0, err
	}
	var lines bytes.Buffer
	for _, e := range events {
		b, err := f.cfg.Format(e)
		if err != nil {
			return 0, &RefusedError{Events: 1, cause: err}
		}
		lines.Write(b)
		lines.WriteByte('\n')
	}
	_, err := f.file.Write(lines.Bytes())
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		// All of them come again. After a write that failed nobody knows what is on
		// the disk: the next delivery opens it anew.
		return 0, errors.Join(err, f.file.Truncate(f.size), f.Close())
	}
	if f.atPath() == nil {
		// Who renamed it may have read it before they were in it, and remove it.
		return 0, errors.Join(errors.New("the file was renamed while it was written"), f.Close())
	}
	f.size += int64(lines.Len())
	return len(events), nil
}

// atPath describes the open file if it is still the one at the path; else it is nil.
func (f *File) atPath() fs.FileInfo {
	there, err := os.Lstat(f.cfg.Path)
	open, openErr := f.file.Stat()
	if err != nil || openErr != nil || !os.SameFile(there, open) {
		return nil
	}
	return open
}

// ready sees to it that the file at the path is open, and has room.
func (f *File) ready() error {
	if f.file != nil {
		if open := f.atPath(); open != nil {
			f.size = open.Size()
		} else if err := f.Close(); err != nil {
			return err
		}
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.cfg.RotateOctets > 0 && f.size >= f.cfg.RotateOctets {
		return f.rotate()
	}
	return nil
}

// open opens the file to append to it. What a crash left of a last line is taken
// away: its event was not taken, and comes again.
func (f *File) open() (err error) {
	file, err := os.OpenFile(f.cfg.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE|openFlags, f.cfg.Mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.cfg.Path)
	}
	size, err := wholeLines(file, info.Size())
	if err != nil {
		return err
	}
	if size < info.Size() {
		if err := file.Truncate(size); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Dir(f.cfg.Path)); err != nil { // its name
		return err
	}
	f.file, f.size = file, size
	return nil
}

// wholeLines is the size of the file up to the end of its last line.
func wholeLines(file io.ReaderAt, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(end-int64(len(block)), 0)
		b := block[:end-start]
		if _, err := file.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// rotated is the form of the time in a renamed file's name, which sorts.
const rotated = "20060102T150405.000000Z"

// rotate renames the file, and begins another.
func (f *File) rotate() error {
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.cfg.Path, f.cfg.Path+"."+f.cfg.Now().UTC().Format(rotated)); err != nil {
		return err
	}
	if err := f.open(); err != nil {
		return err
	}
	return f.removeOld()
}

// removeOld removes the oldest renamed files beyond those that are to stay.
func (f *File) removeOld() error {
	if f.cfg.Keep == 0 {
		return nil
	}
	dir, name := filepath.Split(f.cfg.Path)
	files, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return err
	}
	var old []string
	for _, x := range files {
		stamp, ours := strings.CutPrefix(x.Name(), name+".")
		if _, err := time.Parse(rotated, stamp); ours && err == nil && x.Type().IsRegular() {
			old = append(old, x.Name())
		}
	}
	slices.Sort(old)
	for len(old) > f.cfg.Keep {
		if err := os.Remove(filepath.Join(dir, old[0])); err != nil {
			return err
		}
		old = old[1:]
	}
	return nil
}

// Close is described at Receiver.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file, f.size = nil, 0
	return file.Close()
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
