// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// TestBackupAndRestore: a backup made under a session's feet, a server that
// lost its state, and the same agents at work on what was restored.
func TestBackupAndRestore(t *testing.T) {
	const sales = "sales@client.example"
	w := e2e.NewWorld(t, e2e.WorldOptions{Mailboxes: []string{sales}, Sealed: true})
	p := w.Postern
	stays, leaves := w.Seat(sales), w.Seat(sales)
	live := stays.IMAP(t)
	live.OK("SELECT INBOX")
	file := filepath.Join(servers.TempDir(t), "postern.tar")
	p.CLI("backup", "--config", p.ConfigFile, "--to", file)
	live.OK("NOOP")
	live.Close()
	refused := func(want string, args ...string) {
		t.Helper()
		if _, stderr, code := p.TryCLI("", args...); code != 3 || !strings.Contains(stderr, want) {
			t.Errorf("postern %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
		}
	}
	refused("there already", "backup", "--config", p.ConfigFile, "--to", file)
	holdsNoSecret(t, w, file, stays.Token, leaves.Token)
	p.CLI("restore", file, "--config", p.ConfigFile, "--check")
	refused("stop the server first", "restore", file, "--config", p.ConfigFile, "--replace")

	// After the backup a leaver is off-boarded.
	p.CLI("assignment", "revoke", string(leaves.Assignment))
	p.Stop()
	refused("--replace", "restore", file, "--config", p.ConfigFile)
	t.Run("wrong keys", func(t *testing.T) { wrongKeys(t, p, file) })
	t.Run("killed", func(t *testing.T) { killed(t, p, file) })
	t.Run("damaged", func(t *testing.T) { damagedBackups(t, p, file) })

	out := p.CLI("restore", file, "--config", p.ConfigFile, "--replace")
	if !strings.Contains(out, "UNDONE") || !strings.Contains(out, "1 × assignment.revoked") {
		t.Errorf("the restore does not say what it undoes:\n%s", out)
	}
	p.Restart()
	c := stays.IMAP(t)
	c.OK("SELECT INBOX")
	c.Close()
	leaves.IMAP(t).Close() // as the command said
	for _, firm := range []string{"", e2e.FirmName} {
		events := p.Events(firm, "--type", "state.restored")
		if len(events) != 1 {
			t.Fatalf("%d events of the restore in the log of %q", len(events), firm)
		}
		data := e2e.Decode[broker.StateRestored](t, events[0])
		if data.Events != events[0].Seq || data.Lost == nil || firm != "" && *data.Lost == 0 || !strings.HasPrefix(events[0].Actor.Name, "unix:uid=") {
			t.Errorf("the log of %q: %+v by %+v", firm, data, events[0].Actor)
		}
	}
	if _, err := store.Inspect(context.Background(), keptDatabase(t, p.Dir)); err != nil {
		t.Errorf("the replaced state: %v", err)
	}
}

func keptDatabase(t *testing.T, dir string) string {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(dir, "postern.db.replaced-*Z"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %q, %v", kept, err)
	}
	return kept[0]
}

// holdsNoSecret: neither a credential nor a key or token lies in a backup,
// which nobody but its owner can read.
func holdsNoSecret(t *testing.T, w *e2e.World, file string, tokens ...string) {
	t.Helper()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode: %v, %v", info.Mode(), err)
	}
	content := []byte(read(t, file))
	if !bytes.Contains(content, []byte("SQLite format 3")) || !bytes.Contains(content, []byte("age-encryption.org/v1")) {
		t.Error("the backup does not hold what it should")
	}
	secrets := append(w.Passwords(), tokens...)
	for _, key := range []string{"app-password.key", "credentials.key", "workstation-ca/workstation-ca.key", "tls/server.key"} {
		secrets = append(secrets, read(t, filepath.Join(w.Postern.Dir, key)))
	}
	for i, secret := range secrets {
		if bytes.Contains(content, []byte(strings.TrimSpace(secret))) {
			t.Errorf("secret %d lies in the backup", i)
		}
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// copyOf copies a stopped server's directory.
func copyOf(t *testing.T, p *e2e.Postern) (dir, config string) {
	t.Helper()
	dir = filepath.Join(servers.TempDir(t), "data")
	if out, err := exec.Command("cp", "-a", p.Dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return dir, filepath.Join(dir, filepath.Base(p.ConfigFile))
}

// wrongKeys: a backup is of no use with other keys, and that is said before
// anything is changed.
func wrongKeys(t *testing.T, p *e2e.Postern, file string) {
	for _, key := range []string{"app-password.key", "credentials.key", "workstation-ca"} {
		dir, config := copyOf(t, p)
		fresh := filepath.Join(servers.TempDir(t), "fresh")
		if out, err := exec.Command(p.Bin, "init", "--dir", fresh).CombinedOutput(); err != nil {
			t.Fatalf("init: %v\n%s", err, out)
		}
		if err := os.RemoveAll(filepath.Join(dir, key)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(fresh, key), filepath.Join(dir, key)); err != nil {
			t.Fatal(err)
		}
		before := read(t, filepath.Join(dir, "postern.db"))
		if _, stderr, code := p.TryCLI("", "restore", file, "--config", config, "--replace"); code == 0 {
			t.Errorf("with another %s: %s", key, stderr)
		}
		if read(t, filepath.Join(dir, "postern.db")) != before {
			t.Errorf("with another %s the state was changed", key)
		}
	}
}

// killed: a backup or restore that is cut off at any time leaves a whole state,
// the old one or the new one, and the command can be repeated.
func killed(t *testing.T, p *e2e.Postern, file string) {
	dir, config := copyOf(t, p)
	old, err := store.Inspect(context.Background(), filepath.Join(dir, "postern.db"))
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(servers.TempDir(t), "again.tar")
	for _, args := range [][]string{
		{"backup", "--config", config, "--to", again},
		{"restore", file, "--config", config, "--replace"},
	} {
		done, cut := false, 0
		for delay := time.Duration(0); !done; delay += 15 * time.Millisecond {
			cmd := exec.Command(p.Bin, args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
			done = cmd.Wait() == nil
			kill.Stop()
			if done {
				break
			}
			cut++
			if _, err := os.Stat(again); err == nil && args[0] == "backup" {
				break // whole, and cut off after that; seen below
			}
			logs, err := store.Inspect(context.Background(), filepath.Join(dir, "postern.db"))
			if err != nil {
				t.Fatalf("%s, cut off after %v: %v", args[0], delay, err)
			}
			if restored := restores(t, dir); len(logs) != len(old) || restored > cut {
				t.Fatalf("%s, cut off after %v: %+v, restored %d times", args[0], delay, logs, restored)
			}
		}
		t.Logf("%s was cut off %d times", args[0], cut)
		if cut == 0 {
			t.Errorf("%s was never cut off", args[0])
		}
	}
	if n := restores(t, dir); n != 1 {
		t.Errorf("restored %d times", n)
	}
	p.CLI("restore", again, "--config", config, "--check")
	if left, _ := filepath.Glob(filepath.Join(dir, ".restore*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// restores counts the restores in the BPO's log.
func restores(t *testing.T, dir string) int {
	t.Helper()
	s, err := store.Open(context.Background(), store.Config{Path: filepath.Join(dir, "postern.db"), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	events, err := s.Events(context.Background(), broker.EventQuery{After: -1, Type: broker.EventStateRestored})
	if err != nil {
		t.Fatal(err)
	}
	return len(events)
}

// damagedBackups: half a backup, or one with a flipped bit, is none.
func damagedBackups(t *testing.T, p *e2e.Postern, file string) {
	whole := []byte(read(t, file))
	path := filepath.Join(servers.TempDir(t), "damaged.tar")
	check := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, stderr, code := p.TryCLI("", "restore", path, "--config", p.ConfigFile, "--check"); code == 0 || !strings.Contains(stderr, "no whole backup") {
			t.Errorf("%s: exit code %d: %s", what, code, stderr)
		}
	}
	check("nothing", nil)
	for i := 1; i <= 4; i++ {
		n := len(whole) * i / 5
		check("cut short", whole[:n])
		flipped := bytes.Clone(whole)
		flipped[n/512*512+100] ^= 1
		check("a flipped bit", flipped)
	}
}
