// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// TestNever6LogOfRealSessions: the log of real sessions is pulled and verified
// with nothing but the binary, a directory and the key; it goes on after a
// kill; and a row that somebody changes in the database is found.
func TestNever6LogOfRealSessions(t *testing.T) {
	w := NewWorld(t, WorldOptions{Mailboxes: []string{sales}, Sealed: true})
	s := w.Seat(sales, "list", "headers", "read")
	read := func(subject string) {
		t.Helper()
		w.Dovecot.Deliver(sales, "", []byte(message("buyer@market.example", sales, subject, "pumps")))
		imap := s.DialIMAP(t)
		imap.OK("LOGIN %s %s", sales, s.Token)
		imap.OK("SELECT INBOX")
		imap.OK("FETCH 1:* (BODY[])")
		imap.OK("LOGOUT")
	}
	p := w.Postern
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	copied := filepath.Join(dir, "copy")
	// pull brings the copy up to date until it holds as many events as the log.
	pull := func() {
		t.Helper()
		size := len(p.Events(FirmName))
		servers.WaitFor(t, eventTimeout, func() bool {
			_, stderr, code := p.TryCLI("", "log", "pull", copied, "--firm", FirmName, "--keys", keys)
			if code != 0 && !strings.Contains(stderr, "no checkpoint of the log was signed yet") {
				t.Fatalf("log pull: exit code %d: %s", code, stderr)
			}
			return code == 0 && held(t, copied) >= size
		}, "a checkpoint of all events")
	}
	verify := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := p.TryCLI("", append([]string{"log", "verify", "--keys", keys}, args...)...)
		if code != 0 {
			return stderr
		}
		if !strings.Contains(stdout, "nothing was changed") {
			t.Errorf("verify says %q", stdout)
		}
		return ""
	}

	read("first order")
	s.AwaitEvents(1, broker.EventSessionEnd)
	p.write(keys, p.CLI("log", "key", "--firm", FirmName))
	pull()
	old := filepath.Join(dir, "old")
	p.write(old, p.CLI("log", "checkpoint", "--firm", FirmName))
	if fault := verify(copied); fault != "" {
		t.Fatalf("the log of a session: %s", fault)
	}

	p.Kill()
	p.Restart()
	read("second order")
	s.AwaitEvents(2, broker.EventSessionEnd)
	pull()
	if fault := verify(copied, "--checkpoint", old); fault != "" {
		t.Fatalf("the log after a kill: %s", fault)
	}
	line := firstLine(t, copied)
	if !strings.Contains(line, `"firm.created"`) {
		t.Errorf("the first entry is %s", line)
	}

	// The BPO's root changes what was read.
	db, err := sql.Open("sqlite", p.StorePath())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE events SET record = replace(CAST(record AS TEXT), 'first-order', 'other-order')
		WHERE type = 'message.open'`); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := p.TryCLI("", "log", "pull", filepath.Join(dir, "fresh"), "--firm", FirmName, "--keys", keys, "--checkpoint", old); code == 0 || !strings.Contains(stderr, "TAMPERED") {
		t.Errorf("a changed record: exit %d: %s", code, stderr)
	}
	// What the firm held before is as good as ever.
	if fault := verify(copied, "--checkpoint", old); fault != "" {
		t.Error(fault)
	}
	if b, err := os.ReadFile(filepath.Join(copied, ".lock")); err != nil || len(b) > 0 {
		t.Errorf("the lock: %q %v", b, err)
	}
	for _, secret := range []string{s.Token, w.Password(sales)} {
		if strings.Contains(p.CLI("log", "checkpoint", "--firm", FirmName), secret) || bytes.Contains(allFiles(t, copied), []byte(secret)) {
			t.Error("a secret is in the log")
		}
	}
}

// held counts the entries in a copy.
func held(t testing.TB, dir string) int {
	t.Helper()
	n := 0
	for _, path := range entryFiles(t, dir) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(b, []byte("\n"))
	}
	return n
}

func entryFiles(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*", "entries", "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func firstLine(t testing.TB, dir string) string {
	t.Helper()
	b, err := os.ReadFile(entryFiles(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func allFiles(t testing.TB, dir string) (all []byte) {
	t.Helper()
	for _, path := range entryFiles(t, dir) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}
