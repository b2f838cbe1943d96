// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// maxFiles is how many files a bundle may have.
	maxFiles = 7 + maxOlder
	// maxRatio is how many times its packed size a file may have. Salts and
	// hashes do not pack, so that no real file comes near.
	maxRatio = 100
	// archived is the ending of bundles that are ZIP archives.
	archived = ".zip"
)

// folder is a bundle's files, from somewhere that is not believed. Their names
// are among those of mostOctets, each once; none has more octets than that.
type folder struct {
	sizes map[string]int64
	open  func(name string) (io.ReadCloser, error)
	close func() error
}

func openFolder(path string) (*folder, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openDirectory(path)
	}
	return openArchive(path)
}

func (f *folder) take(name string, size int64) error {
	most := mostOctets(name)
	_, again := f.sizes[name]
	switch {
	case most == 0:
		return fault("there is a file that is none of a bundle's: %q", name)
	case again:
		return fault("%s is there twice", name)
	case size > most:
		return fault("%s has %d octets, and %d at most make sense", name, size, most)
	case len(f.sizes) == maxFiles:
		return fault("there are too many files")
	}
	f.sizes[name] = size
	return nil
}

func openDirectory(path string) (_ *folder, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Close())
		}
	}()
	f := &folder{sizes: make(map[string]int64), close: root.Close}
	f.open = func(name string) (io.ReadCloser, error) { return root.Open(name) }
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	files, err := d.ReadDir(maxFiles + 1)
	if err := errors.Join(ignoreEOF(err), d.Close()); err != nil {
		return nil, err
	}
	for _, file := range files {
		// Lstat: a link leads out of what the manifest covers.
		info, err := root.Lstat(file.Name())
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fault("%q is no plain file", file.Name())
		}
		if err := f.take(file.Name(), info.Size()); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func openArchive(path string) (_ *folder, err error) {
	archive, err := zip.OpenReader(path)
	if err != nil {
		if errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrAlgorithm) || errors.Is(err, zip.ErrInsecurePath) {
			err = fault("%s is neither a directory nor a ZIP archive that can be read: %w", path, err)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, archive.Close())
		}
	}()
	f := &folder{sizes: make(map[string]int64), close: archive.Close}
	files := make(map[string]*zip.File)
	f.open = func(name string) (io.ReadCloser, error) { return files[name].Open() }
	for _, file := range archive.File {
		if !file.Mode().IsRegular() || file.Method != zip.Store && file.Method != zip.Deflate {
			return nil, fault("%q is no plain file", file.Name)
		}
		size := int64(min(file.UncompressedSize64, 1<<62))
		if err := f.take(file.Name, size); err != nil {
			return nil, err
		}
		if packed := int64(min(file.CompressedSize64, 1<<40)); size > maxManifest && size/maxRatio > packed {
			return nil, fault("%s would unpack to %d octets from %d", file.Name, size, packed)
		}
		files[file.Name] = file
	}
	return f, nil
}

// octets reads a file that is small enough to be held.
func (f *folder) octets(name string) ([]byte, error) {
	r, err := f.open(name)
	if err != nil {
		return nil, err
	}
	// One more than it ought to have: what grows while it is read is found.
	b, err := io.ReadAll(io.LimitReader(r, f.sizes[name]+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fault("%s cannot be read: %w", name, err)
	}
	if int64(len(b)) != f.sizes[name] {
		return nil, fault("%s has not the size that its directory tells", name)
	}
	return b, nil
}

// writer makes a bundle's files in a directory.
type writer struct {
	dir   string
	files []File
}

// written is a file that is being written.
type written struct {
	*os.File
	w    *writer
	hash hash.Hash
	size int64
}

func (w *writer) create(name string) (*written, error) {
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	return &written{f, w, sha256.New(), 0}, err
}

// Write writes octets, and has the manifest cover them.
func (f *written) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.hash.Write(b[:n])
	f.size += int64(n)
	return n, err
}

// Close ends the file, durably.
func (f *written) Close() error {
	f.w.files = append(f.w.files, File{filepath.Base(f.Name()), f.size, hex.EncodeToString(f.hash.Sum(nil))})
	return errors.Join(f.Sync(), f.File.Close())
}

func (w *writer) write(name string, content []byte) error {
	f, err := w.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// pack makes a ZIP archive of the files in a directory.
func pack(path, dir string, names []string, at time.Time) error {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	archive := zip.NewWriter(out)
	for _, name := range names {
		if err = packFile(archive, filepath.Join(dir, name), at); err != nil {
			break
		}
	}
	if err == nil {
		err = archive.Close()
	}
	return errors.Join(err, out.Sync(), out.Close())
}

func packFile(archive *zip.Writer, path string, at time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	header := &zip.FileHeader{Name: filepath.Base(path), Method: zip.Deflate, Modified: at}
	header.SetMode(0o600)
	out, err := archive.CreateHeader(header)
	if err == nil {
		_, err = io.Copy(out, f)
	}
	return errors.Join(err, f.Close())
}

// names lists the files.
func (w *writer) names() []string {
	var all []string
	for _, f := range w.files {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	return all
}

// sum is a SHA-256 in hex.
func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// hashing reads a file and knows the SHA-256 of what was read.
type hashing struct {
	r    io.Reader
	hash hash.Hash
	n    int64
}

func newHashing(r io.Reader) *hashing { return &hashing{r, sha256.New(), 0} }

// Read reads.
func (h *hashing) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	h.hash.Write(b[:n])
	h.n += int64(n)
	return n, err
}

// rest reads to the end, and reports whether all of it is a file of the manifest.
func (h *hashing) rest(f File) (bool, error) {
	// One octet more than it ought to have is enough to tell.
	if _, err := io.Copy(io.Discard, io.LimitReader(h, max(0, f.Size+1-h.n))); err != nil {
		return false, err
	}
	return h.n == f.Size && hex.EncodeToString(h.hash.Sum(nil)) == f.SHA256, nil
}
