// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/translog"
	"github.com/postern-mail/postern/test/servers"
)

// witnessTimeout is for what a witness does every second, on a slow machine.
const witnessTimeout = 90 * time.Second

// witnessed is a witness in a process of its own, of the firm's log.
type witnessed struct {
	p     *Postern
	t     testing.TB
	dir   string
	log   string
	token string
	key   string
	args  []string // of the command, besides
	child *servers.Child
}

// start runs it, until the test ends or it is stopped.
func (w *witnessed) start(keys string) {
	w.t.Helper()
	var environment []string
	if w.token != "" {
		environment = append(environment, "POSTERN_TOKEN_FILE="+w.token)
	}
	child, err := servers.StartChild(w.log, environment, w.p.Bin, append([]string{
		"--socket", w.p.Socket, "log", "witness", w.dir, "--keys", keys, "--interval", "1s",
	}, w.args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.child = child
	w.t.Cleanup(func() { _ = child.Kill() })
}

func (w *witnessed) said() string {
	b, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// await waits until the firm's only witness is as wanted.
func (w *witnessed) await(what string, wanted func(*httpapi.LogWitness) bool) {
	w.t.Helper()
	servers.WaitFor(w.t, witnessTimeout, func() bool {
		all := decodeCLI[httpapi.List[*httpapi.LogWitness]](w.p, "--json", "log", "witness-key", "list", "--firm", FirmName).Items
		return len(all) == 1 && wanted(all[0])
	}, what)
}

// awaitEvent waits for one of a type in the firm's log.
func (w *witnessed) awaitEvent(typ broker.EventType) {
	w.t.Helper()
	servers.WaitFor(w.t, witnessTimeout, func() bool {
		return slices.ContainsFunc(w.p.Events(FirmName), func(e Event) bool { return e.Type == typ })
	}, string(typ))
}

// TestNever6Witness: a firm's witness, a process of its own with a token that can
// do nothing else, cosigns the log of real sessions over kills of either side; its
// silence stops new sessions, and live ones go on; and it does not cosign a log
// that was rewritten from before what it has cosigned, nor one that was restored
// before the firm has confirmed that.
func TestNever6Witness(t *testing.T) {
	world := NewWorld(t, WorldOptions{Mailboxes: []string{sales}, Sealed: true})
	s := world.Seat(sales)
	p := world.Postern
	home := servers.TempDir(t)
	firm := filepath.Join(home, "firm.token")
	remote := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := p.Remote(firm, "", args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	claim := decodeCLI[httpapi.ClaimCreated](p, "firm", "claim", FirmName).Claim
	if _, stderr, code := p.Remote("", claim, "claim", "--name", "priya", "--save", firm); code != 0 {
		t.Fatalf("claim: exit code %d: %s", code, stderr)
	}
	w := &witnessed{p: p, t: t, dir: filepath.Join(home, "witness"), log: filepath.Join(home, "witness.log"), token: filepath.Join(home, "witness.token")}
	w.key = strings.TrimSpace(remote("log", "witness-key", "new", w.dir, "--name", "witness.acme.example"))
	remote("token", "create", "--scope", "read", "--scope", "cosignatures", "--save", w.token)
	keys := filepath.Join(home, "keys")
	p.write(keys, remote("log", "key"))
	key, err := translog.ParseWitnessKey(w.key)
	if err != nil {
		t.Fatal(err)
	}

	w.start(keys)
	servers.WaitFor(t, witnessTimeout, func() bool { return strings.Contains(w.said(), "is the key registered") }, "a witness that is not registered to be told so")
	remote("log", "witness-key", "add", w.key, "--rule", "stop", "--silence", "1h")
	caughtUp := func(x *httpapi.LogWitness) bool { return x.Size > 0 && x.UnwitnessedEvents == 0 }
	w.await("all events to be cosigned", caughtUp)
	imap := s.IMAP(t)
	imap.OK("SELECT INBOX")
	w.await("a session's events to be cosigned", caughtUp)
	if _, err := key.Cosignature([]byte(p.CLI("log", "checkpoint", "--firm", FirmName))); err != nil {
		t.Error(err)
	}

	copied := filepath.Join(home, "copy")
	for _, command := range [][]string{{"pull", copied}, {"verify", copied}} {
		if said := remote(append([]string{"log"}, append(command, "--keys", keys, "--witness", w.key)...)...); !strings.Contains(said, "witness.acme.example has cosigned ") {
			t.Errorf("log %s says %s", command[0], said)
		}
	}
	bundle := filepath.Join(home, "bundle.zip")
	remote("evidence", "make", "--keys", keys, "--witness", w.key, "-o", bundle)
	if said := remote("evidence", "verify", bundle, "--keys", keys, "--witness", w.key); !strings.HasPrefix(said, "GOOD: ") || !strings.Contains(said, "witness.acme.example has cosigned ") || strings.Contains(said, "NOT CHECKED") {
		t.Errorf("evidence verify says %s", said)
	}
	other := strings.TrimSpace(remote("log", "witness-key", "new", filepath.Join(home, "other"), "--name", "other.example"))
	if _, stderr, code := p.TryCLI("", "log", "verify", copied, "--keys", keys, "--witness", other); code != 3 || !strings.Contains(stderr, "other.example has cosigned nothing") {
		t.Errorf("verify with a witness that has cosigned nothing: exit code %d: %s", code, stderr)
	}

	if _, stderr, code := p.TryCLI("", "evidence", "verify", bundle, "--keys", keys, "--witness", other); code != 3 || !strings.Contains(stderr, "other.example, whose key was given, has cosigned none") {
		t.Errorf("evidence verify with a witness that has cosigned nothing: exit code %d: %s", code, stderr)
	}

	// Kills of either side.
	if err := w.child.Kill(); err != nil {
		t.Fatal(err)
	}
	w.start(keys)
	imap.OK("NOOP")
	imap.OK("LOGOUT")
	w.await("what came after a kill to be cosigned", caughtUp)
	again := s.IMAP(t)
	again.OK("SELECT INBOX")
	p.Kill()
	p.Restart()
	s.IMAP(t).OK("LOGOUT")
	w.await("what came after the server was killed to be cosigned", caughtUp)
	if w.child.Ended() {
		t.Errorf("the witness has ended with the server: %s", w.said())
	}
	for _, command := range [][]string{{"pull", copied}, {"verify", copied}} {
		if said := remote(append([]string{"log"}, append(command, "--keys", keys, "--witness", w.key)...)...); !strings.Contains(said, "witness.acme.example has cosigned ") {
			t.Errorf("log %s of a server that was killed says %s", command[0], said)
		}
	}

	// Silence.
	live := s.IMAP(t)
	live.OK("SELECT INBOX")
	if err := w.child.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	remote("log", "witness-key", "remove", "witness.acme.example")
	remote("log", "witness-key", "add", w.key, "--rule", "stop", "--silence", "10s")
	w.awaitEvent(broker.EventWitnessSilent)
	alerts := decodeCLI[httpapi.List[*httpapi.Alert]](p, "--json", "alert", "list", "--kind", "witness-silent").Items
	if len(alerts) != 1 || alerts[0].Detail != "witness.acme.example" || alerts[0].Severity != broker.SeverityCritical {
		t.Errorf("the alert: %+v", alerts)
	}
	if _, answer := s.DialIMAP(t).Cmd("LOGIN %s %s", sales, s.Token); !strings.Contains(answer, "not witnessed") || !strings.Contains(answer, "Ask ") {
		t.Errorf("a login without a witness: %s", answer)
	}
	live.OK("NOOP")
	if err := w.child.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.awaitEvent(broker.EventWitnessHeard)
	servers.WaitFor(t, witnessTimeout, func() bool {
		_, answer := s.DialIMAP(t).Cmd("LOGIN %s %s", sales, s.Token)
		return strings.HasPrefix(answer, "OK")
	}, "sessions to be opened again")
	live.OK("LOGOUT")

	// A restore: the log is another one, which the firm confirms.
	backup := filepath.Join(home, "backup.tar")
	p.CLI("backup", "--config", p.ConfigFile, "--to", backup)
	p.Stop()
	p.run("", "restore", backup, "--config", p.ConfigFile, "--replace")
	p.Restart()
	servers.WaitFor(t, witnessTimeout, w.child.Ended, "the witness to end with the epoch")
	if said := w.said(); !strings.Contains(said, "new epoch") {
		t.Errorf("the witness of a restored log says %s", said)
	}
	p.write(keys, remote("log", "key"))
	w.start(keys)
	servers.WaitFor(t, witnessTimeout, func() bool { return strings.Contains(w.said(), "confirm-restore") }, "the restore to be not confirmed")
	remote("log", "confirm-restore")
	w.await("the restored log to be cosigned", caughtUp)

	// The BPO's root rewrites what was cosigned, whole and signed with the log's key.
	if err := w.child.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	db, err := sql.Open("sqlite", p.StorePath())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	forge(t, db)
	p.Restart()
	w.start(keys)
	servers.WaitFor(t, witnessTimeout, w.child.Ended, "the witness to refuse")
	if said := w.said(); !strings.Contains(said, "THE LOG WAS TAMPERED WITH") {
		t.Errorf("the witness of a rewritten log says %s", said)
	}
	if evidence, err := filepath.Glob(filepath.Join(w.dir, "evidence-*")); err != nil || len(evidence) != 1 {
		t.Errorf("the evidence: %v %v", evidence, err)
	}
}

// forge takes the firm's last events out of its log, with a tree that fits what is
// left: the server cannot know.
func forge(t testing.TB, db *sql.DB) {
	t.Helper()
	const log = `(SELECT number FROM logs WHERE firm_id <> '')`
	rows, err := db.Query(`SELECT leaf_hash FROM events WHERE log = ` + log + ` ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	var tree translog.Tree
	var leaves [][32]byte
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, [32]byte(leaf))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, leaf := range leaves[:len(leaves)-3] {
		tree.Add(leaf, nil)
	}
	change := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	change(`DELETE FROM events WHERE log = `+log+` AND seq >= $1`, tree.Size())
	change(`UPDATE logs SET next_seq = $1, keyed = 0, tree_size = $1, tree_edge = $2 WHERE number = `+log, tree.Size(), tree.AppendEdge(nil))
	change(`DELETE FROM log_checkpoints WHERE log = ` + log)
}
