// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/workstationca"
)

func newBackupCommand() *cobra.Command {
	var config, to string
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Write state, events and sealed credentials to a file, while the server runs",
		Long: `Write a consistent copy of state and events, the configuration and, where
credentials are sealed, their encrypted file into one tar archive of mode 0600.
The server may be running.

The keys are not in it: keep them apart, once, when they are made. Without them
a backup opens no mailbox and lets nobody in:

  app-password.key    every app password depends on it
  credentials.key     opens the sealed credentials; not there with Vault
  workstation-ca/     signs workstations' certificates

What Vault holds is Vault's to back up, and a state in PostgreSQL is
PostgreSQL's (pg_dump, or base backups and the write-ahead log). 'postern
restore --check' tells whether a backup is good.`,
		Example: `  postern backup --config /etc/postern/postern.yaml --to /var/backups/postern-2026-11-25.tar`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return usagef("--config is missing: name the server's configuration")
			}
			if to == "" {
				return usagef("--to is missing: name the file to write")
			}
			c, err := loadConfig(config)
			if err != nil {
				return err
			}
			m, err := backup(cmd.Context(), c, config, to)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s holds %s of %s.\nThe keys are not in it: keep them apart.\n",
				to, archiveDatabase, stamp(m.Time))
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the server's configuration `file`")
	cmd.Flags().StringVar(&to, "to", "", "the `file` to write, which must not exist")
	return cmd
}

// backup writes the archive beside its name first: what is there under the
// name is whole.
func backup(ctx context.Context, c *Config, config, to string) (m *manifest, err error) {
	if err := c.inSQLite(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return nil, broker.Errorf(broker.Conflict, "%s is there already", to)
	}
	m = &manifest{Format: archiveFormat, Postern: version(), Node: c.Node, Time: time.Now().UTC().Truncate(time.Second)}
	if err := m.fingerprint(c); err != nil {
		return nil, err
	}
	dir := to + ".partial"
	// One that a crash left behind is of no use to anybody.
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	paths := map[string]string{archiveConfig: config, archiveDatabase: filepath.Join(dir, archiveDatabase)}
	if err := store.Backup(ctx, c.State.SQLite, paths[archiveDatabase]); err != nil {
		return nil, keyError("state.sqlite", err)
	}
	names := []string{archiveConfig, archiveDatabase}
	if s := c.Credentials.Sealed; s != nil {
		// The file may be replaced while it is read twice: a copy is not.
		paths[archiveCredentials] = filepath.Join(dir, archiveCredentials)
		if err := writeCopy(s.File, paths[archiveCredentials]); err != nil {
			return nil, keyError("credentials.sealed.file", err)
		}
		names = append(names, archiveCredentials)
	}
	for _, name := range names {
		if err := m.add(name, paths[name]); err != nil {
			return nil, err
		}
	}
	return m, publish(filepath.Join(dir, "archive"), to, func(w io.Writer) error { return writeArchive(w, m, paths) })
}

// publish writes a file under a first name, and gives it the second when it is
// durable.
func publish(first, to string, write func(io.Writer) error) error {
	f, err := os.OpenFile(first, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, it replaces nothing.
	if err := os.Link(first, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeCopy(from, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyFile(f, from), f.Sync(), f.Close())
}

// fingerprint notes which keys belong to the state.
func (m *manifest) fingerprint(c *Config) error {
	key, err := readTokenKey(c.AppPasswords.KeyFile)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(key.Reveal())
	key.Wipe()
	m.AppPasswordKey = hex.EncodeToString(sum[:])
	if c.Workstations.EmbeddedCA == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.Workstations.EmbeddedCA, workstationca.CertificateFile))
	if err != nil {
		return keyError("workstations.embedded_ca", err)
	}
	sum = sha256.Sum256(b)
	m.WorkstationCA = hex.EncodeToString(sum[:])
	return nil
}
