// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/sealed"
	"github.com/postern-mail/postern/broker/store"
)

// restoreDir is where a backup is unpacked, beside the database: what is
// checked there can be put into its place by a rename.
const restoreDir = ".restore"

// restoreOptions are the flags of `postern restore`.
type restoreOptions struct {
	config, file         string
	checkOnly, replace   bool
	otherKeys            bool
	now                  func() time.Time
	backedUp             *manifest
	database, credential string // unpacked; credential may be empty
	logs                 []store.LogSize
}

func newRestoreCommand() *cobra.Command {
	o := restoreOptions{now: time.Now}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup's state, events and sealed credentials into place",
		Long: `Check a backup, and put its state, events and sealed credentials where the
configuration says. The server must be stopped. What is there is replaced only
with --replace, and kept under another name. The keys must be in place before:
those that the backup was made with.

The restore is recorded as an event in every log. What happened after the
backup is undone, revocations among it: the command says what is lost.`,
		Example: `  postern restore postern-2026-11-25.tar --config /etc/postern/postern.yaml --check
  postern restore postern-2026-11-25.tar --config /etc/postern/postern.yaml --replace`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.config == "" {
				return usagef("--config is missing: name the server's configuration ('tar -xf FILE %s' takes it out of the backup)", archiveConfig)
			}
			c, err := loadConfig(o.config)
			if err != nil {
				return err
			}
			o.file = args[0]
			return o.run(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&o.config, "config", "", "the server's configuration `file`")
	cmd.Flags().BoolVar(&o.checkOnly, "check", false, "only check the backup; the server may be running")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "replace the state that is there, and keep it under another name")
	cmd.Flags().BoolVar(&o.otherKeys, "other-keys", false, "restore although keys are lost: app passwords or workstations' certificates are then void")
	return cmd
}

func (o *restoreOptions) run(ctx context.Context, c *Config, out io.Writer) (err error) {
	if err := c.inSQLite(); err != nil {
		return err
	}
	parent := filepath.Dir(c.State.SQLite)
	if err := ownDirectory(parent); err != nil {
		return err
	}
	dir := filepath.Join(parent, restoreDir)
	var seized *store.Seized
	if o.checkOnly {
		if dir, err = os.MkdirTemp(parent, restoreDir+"-check-"); err != nil {
			return err
		}
	} else {
		if seized, err = store.Seize(c.State.SQLite); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, seized.Release()) }()
		if err := o.mayReplace(c); err != nil {
			return err
		}
		// One that a crash left behind is of no use; nobody else is here.
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := o.check(ctx, c, dir); err != nil {
		return err
	}
	if o.checkOnly {
		fmt.Fprintf(out, "%s is good: the state of %s on %s, %s.\n", o.file, stamp(o.backedUp.Time), o.backedUp.Node, count(o.events(), "event"))
		return nil
	}
	return o.put(ctx, c, seized, out)
}

// ownDirectory refuses to leave files of root's where a server runs as
// somebody else.
func ownDirectory(dir string) error {
	uid, err := ownerOf(dir)
	if err != nil {
		return usagef("the state's directory %s must be there first: %v", dir, err)
	}
	if uid == os.Geteuid() {
		return nil
	}
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return broker.Errorf(broker.Refused, "%s belongs to %s: run this as that user, such as 'runuser -u %s -- postern restore …'", dir, name, name)
}

// mayReplace asks, by a flag, before anything is replaced.
func (o *restoreOptions) mayReplace(c *Config) error {
	there := []string{c.State.SQLite}
	if s := c.Credentials.Sealed; s != nil {
		there = append(there, s.File)
	}
	for _, path := range there {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) && !o.replace {
			return broker.Errorf(broker.Conflict, "%s is there: --replace replaces it, and keeps it under another name", path)
		}
	}
	return nil
}

// check unpacks the backup into dir, and finds that a server could work on it.
func (o *restoreOptions) check(ctx context.Context, c *Config, dir string) error {
	f, err := os.Open(o.file)
	if err != nil {
		return usagef("%v", err)
	}
	defer f.Close()
	if o.backedUp, err = readArchive(f, dir); err != nil {
		return err
	}
	o.database = filepath.Join(dir, archiveDatabase)
	if err := o.checkKeys(c); err != nil {
		return err
	}
	has, wants := o.backedUp.file(archiveCredentials) != nil, c.Credentials.Sealed
	if has != (wants != nil) {
		return broker.Errorf(broker.Conflict, "credentials are sealed in one of the backup and %s, and in Vault in the other: make them alike", o.config)
	}
	if has {
		o.credential = filepath.Join(dir, archiveCredentials)
		config := sealed.Config{Path: o.credential, IdentityFile: wants.IdentityFile}
		if wants.PassphraseFile != "" {
			config.Passphrase = sealed.PassphraseFile(wants.PassphraseFile)
		}
		if _, err := sealed.Open(config); err != nil {
			return keyError("credentials.sealed", err)
		}
	}
	o.logs, err = store.Inspect(ctx, o.database)
	return err
}

func (o *restoreOptions) checkKeys(c *Config) error {
	var now manifest
	if err := now.fingerprint(c); err != nil {
		return err
	}
	if now.WorkstationCA != "" {
		if _, err := loadEmbeddedCA(c); err != nil {
			return err
		}
	}
	if o.otherKeys {
		return nil
	}
	if now.AppPasswordKey != o.backedUp.AppPasswordKey {
		return broker.Errorf(broker.Conflict, "%s is not the key that the backup was made with: put that one back, or all app passwords are void (--other-keys restores nevertheless)", c.AppPasswords.KeyFile)
	}
	if now.WorkstationCA != o.backedUp.WorkstationCA {
		return broker.Errorf(broker.Conflict, "the workstation CA is not the one that the backup was made with: put that one back, or its workstations cannot connect (--other-keys restores nevertheless)")
	}
	return nil
}

// put records the restore in the unpacked state, and then puts that into its
// place: the database last, since it makes the restore done.
func (o *restoreOptions) put(ctx context.Context, c *Config, seized *store.Seized, out io.Writer) error {
	lost, replaced, err := o.lost(ctx, c, seized)
	if err != nil {
		return err
	}
	if err := o.record(ctx, replaced); err != nil {
		return err
	}
	kept := ".replaced-" + o.now().UTC().Format("20060102T150405.000Z")
	if o.credential != "" {
		if err := replaceKept(o.credential, c.Credentials.Sealed.File, kept); err != nil {
			return err
		}
	}
	if err := seized.Replace(ctx, o.database, c.State.SQLite+kept); err != nil {
		return err
	}
	fmt.Fprintf(out, "Restored the state of %s, %s.\n", stamp(o.backedUp.Time), count(o.events(), "event"))
	if replaced != nil {
		fmt.Fprintf(out, "What was there is kept beside it, with the ending %s.\n", kept)
		tellLost(out, lost)
	} else {
		fmt.Fprintln(out, "Nobody knows here what was revoked after it: do that again before the server starts.")
	}
	return nil
}

// lost compares the backup with what it replaces, where there is that.
func (o *restoreOptions) lost(ctx context.Context, c *Config, seized *store.Seized) (map[broker.EventType]int64, []store.LogSize, error) {
	if _, err := os.Lstat(c.State.SQLite); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	lost, replaced, err := seized.Lost(ctx, o.logs)
	if err != nil {
		// A damaged database is a reason to restore, not one to refuse.
		return nil, nil, broker.Errorf(broker.Conflict, "%s cannot be read, so that nobody knows what a restore loses: move it away, with its -wal and -shm, and restore again", c.State.SQLite).WithCause(err)
	}
	if replaced == nil {
		replaced = []store.LogSize{}
	}
	return lost, replaced, nil
}

// record writes the event into every log.
func (o *restoreOptions) record(ctx context.Context, replaced []store.LogSize) error {
	had := make(map[broker.ID]int64)
	for _, l := range replaced {
		had[l.FirmID] = l.Events
	}
	logs := o.logs
	if !slices.ContainsFunc(logs, func(l store.LogSize) bool { return l.FirmID == "" }) {
		logs = append([]store.LogSize{{}}, logs...)
	}
	var events []*broker.Event
	for _, l := range logs {
		data := broker.StateRestored{Backup: o.backedUp.file(archiveDatabase).SHA256, BackedUp: o.backedUp.Time, Events: l.Events}
		if replaced != nil {
			more := max(0, had[l.FirmID]-l.Events)
			data.Lost = &more
		}
		events = append(events, &broker.Event{Type: broker.EventStateRestored, FirmID: l.FirmID, Actor: thisUser(), Data: data})
	}
	s, err := store.Open(ctx, store.Config{Path: o.database, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	return errors.Join(s.AppendEvents(ctx, events), s.BeginEpochs(ctx), s.Close())
}

// thisUser is who runs this command.
func thisUser() broker.Actor {
	name := fmt.Sprintf("unix:uid=%d", os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name += "(" + u.Username + ")"
	}
	return broker.Actor{Kind: "admin", Name: name}
}

// replaceKept puts a file in the place of another, which is kept.
func replaceKept(from, to, kept string) error {
	if err := os.Link(to, to+kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.Rename(from, to), syncDir(filepath.Dir(to)))
}

func (o *restoreOptions) events() int {
	var n int64
	for _, l := range o.logs {
		n += l.Events
	}
	return int(n)
}

// tellLost says what happened after the backup: above all what has to be done
// again, since it took something away from somebody, or keeps or guards something.
func tellLost(out io.Writer, lost map[broker.EventType]int64) {
	var again []string
	others := 0
	for kind, n := range lost {
		_, verb, _ := strings.Cut(string(kind), ".")
		switch {
		case slices.Contains([]string{"revoked", "deleted", "removed", "updated"}, verb), slices.Contains([]broker.EventType{"lock.created", "hold.created", "canary.created", "witness.created"}, kind):
			again = append(again, fmt.Sprintf("  %d × %s", n, kind))
		default:
			others += int(n)
		}
	}
	if len(again) > 0 {
		slices.Sort(again)
		fmt.Fprintf(out, "UNDONE, since it happened after the backup; do it again before the server starts:\n%s\n", strings.Join(again, "\n"))
	}
	if others > 0 {
		fmt.Fprintf(out, "%s more after the backup are in the kept file alone.\n", count(others, "event"))
	}
}
