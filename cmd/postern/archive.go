// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/broker"
)

// The files of a backup, a tar archive, in their order: the manifest first.
// No other name is read from one.
const (
	archiveManifest    = "manifest.json"
	archiveConfig      = "postern.yaml"
	archiveCredentials = "credentials.age"
	archiveDatabase    = "postern.db"
)

const (
	// archiveFormat is the manifest's format.
	archiveFormat = 1
	// maxManifest bounds it, in octets.
	maxManifest = 64 << 10
)

// manifest says what a backup holds, and with which keys it works.
type manifest struct {
	Format  int       `json:"format"`
	Postern string    `json:"postern"`
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`
	// Files holds those after the manifest.
	Files []archivedFile `json:"files"`
	// The keys are not in the backup. Of the app passwords' key, 256 random
	// bits, the hash tells nothing.
	AppPasswordKey string `json:"app_password_key_sha256"`
	// WorkstationCA is of the certificate; empty: there is no embedded CA.
	WorkstationCA string `json:"workstation_ca_sha256,omitempty"`
}

type archivedFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func (m *manifest) file(name string) *archivedFile {
	for i := range m.Files {
		if m.Files[i].Name == name {
			return &m.Files[i]
		}
	}
	return nil
}

// add reads a file's size and hash into the manifest.
func (m *manifest) add(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, f)
	if err != nil {
		return err
	}
	m.Files = append(m.Files, archivedFile{name, size, hex.EncodeToString(hash.Sum(nil))})
	return nil
}

// writeArchive writes a backup of the files in paths, by their names.
func writeArchive(w io.Writer, m *manifest, paths map[string]string) error {
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	header := func(name string, size int64) error {
		return archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: m.Time, Format: tar.FormatPAX})
	}
	if err := header(archiveManifest, int64(len(head))); err != nil {
		return err
	}
	if _, err := archive.Write(head); err != nil {
		return err
	}
	for _, file := range m.Files {
		if err := header(file.Name, file.Size); err != nil {
			return err
		}
		if err := copyFile(archive, paths[file.Name]); err != nil {
			return err
		}
	}
	return archive.Close()
}

func copyFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

func notABackup(format string, args ...any) error {
	return broker.Errorf(broker.Invalid, "this is no whole backup: "+format, args...)
}

// readArchive writes the files of a backup into dir, and checks that they are
// those of its manifest. It reads to the end: half a backup is none.
func readArchive(r io.Reader, dir string) (*manifest, error) {
	archive := tar.NewReader(r)
	header, err := archive.Next()
	if err != nil || header.Name != archiveManifest || header.Size > maxManifest {
		return nil, notABackup("it does not begin with a manifest")
	}
	m := &manifest{}
	decoder := json.NewDecoder(archive)
	if err := decoder.Decode(m); err != nil {
		return nil, notABackup("its manifest cannot be read")
	}
	if m.Format != archiveFormat {
		return nil, notABackup("its format is %d, and this version of Postern reads %d", m.Format, archiveFormat)
	}
	if m.file(archiveDatabase) == nil {
		return nil, notABackup("it has no database")
	}
	for _, file := range m.Files {
		switch file.Name {
		case archiveConfig, archiveCredentials, archiveDatabase:
		default:
			return nil, notABackup("it has a file that does not belong there")
		}
		header, err := archive.Next()
		if err != nil || header.Name != file.Name || header.Typeflag != tar.TypeReg || header.Size != file.Size {
			return nil, notABackup("%s is missing, or is not what the manifest says", file.Name)
		}
		if err := extract(archive, filepath.Join(dir, file.Name), file); err != nil {
			return nil, err
		}
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		return nil, notABackup("its end is missing, or more follows")
	}
	return m, nil
}

func extract(r io.Reader, path string, file archivedFile) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name, err)
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, hash), r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.Join(notABackup("%s breaks off", file.Name), f.Close())
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", file.Name, err)
	}
	if n != file.Size || hex.EncodeToString(hash.Sum(nil)) != file.SHA256 {
		return notABackup("%s is not what was backed up", file.Name)
	}
	return nil
}
