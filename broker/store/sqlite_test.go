// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
	"go.uber.org/zap"
)

var ctx = context.Background()

func wantCode(t testing.TB, err error, code broker.Code) {
	t.Helper()
	if got := broker.CodeOf(err); got != code {
		t.Fatalf("code %q, want %q: %v", got, code, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw opens the database beside the store.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := openSQLite(path, false)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// A file that others can read is neither made nor used.
func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	w := storetest.Build(t, open(t, Config{Path: path}))
	must(t, w.Store.AppendEvents(ctx, []*broker.Event{w.Refused("x")}))
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(name), info.Mode())
		}
	}
	must(t, os.Chmod(path, 0o640))
	_, err := Open(ctx, Config{Path: path, Logger: zap.NewNop()})
	wantCode(t, err, broker.Invalid)
	_, err = Open(ctx, Config{Path: filepath.Join(t.TempDir(), "no", "such"), Logger: zap.NewNop()})
	wantCode(t, err, broker.Unavailable)
	_, err = Open(ctx, Config{Path: t.TempDir(), Logger: zap.NewNop()})
	if err == nil {
		t.Error("a folder was opened")
	}
}

// What is on the disk is what was asked for, whatever the path looks like.
func TestPragmas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?mode=memory#c%41&_synchronous=OFF.db")
	s := open(t, Config{Path: path})
	must(t, s.CreateFirm(ctx, storetest.Admin, &broker.Firm{Name: "x"}))
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Fatalf("the database is elsewhere: %v", err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000"} {
		for name, db := range map[string]*sql.DB{"reader": s.readers, "writer": raw(t, path)} {
			var got string
			must(t, db.QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got))
			if got != want {
				t.Errorf("%s of the %s is %s, want %s", pragma, name, got, want)
			}
		}
	}
	if _, err := s.readers.ExecContext(ctx, `DELETE FROM firms`); err == nil {
		t.Error("a connection that reads can write")
	}
}

// Everything is there after Close and Open, and a closed store says so.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	first := open(t, Config{Path: path})
	w := storetest.Build(t, first)
	revision, err := first.PolicyRevision(ctx)
	must(t, err)
	must(t, first.Close())
	must(t, first.Close())
	_, err = first.Firms(ctx)
	wantCode(t, err, broker.Unavailable)
	wantCode(t, first.AppendEvents(ctx, []*broker.Event{w.Refused("x")}), broker.Unavailable)
	wantCode(t, first.CreateFirm(ctx, storetest.Admin, &broker.Firm{Name: "x"}), broker.Unavailable)

	second := open(t, Config{Path: path})
	m, err := second.Mailbox(ctx, w.Mailbox.ID)
	if err != nil || !reflect.DeepEqual(m, &w.Mailbox) {
		t.Fatalf("mailbox %+v: %v", m, err)
	}
	again, err := second.PolicyRevision(ctx)
	if err != nil || again != revision {
		t.Fatalf("revision %d, was %d: %v", again, revision, err)
	}
	e := w.Refused("x")
	must(t, second.AppendEvents(ctx, []*broker.Event{e}))
	storetest.Verify(t, storetest.All(t, second, w.Firm.ID))
	if e.Seq != 4 {
		t.Errorf("the next number is %d", e.Seq)
	}
}

// A full database is Unavailable, leaves no gap, and is well again when there
// is room. SQLITE_FULL is forced by SQLite's own limit on pages.
func TestDatabaseFull(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	var pages int
	must(t, s.readers.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages))
	limit := func(n int) {
		wantCode(t, s.write(ctx, func(*tx) error {
			s.writer.pragmas = []string{fmt.Sprintf("PRAGMA max_page_count = %d", n)}
			return unavailable(errors.New("have the next write open a new connection"))
		}), broker.Unavailable)
	}
	limit(pages + 8)
	fillUp(t, w)
	limit(1 << 30)
	recovers(t, w)
}

// The same on a file system that is full.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Logf("no file system of our own (%v: %s): TestDatabaseFull stands in", err, out)
		return
	}
	defer func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	s := open(t, Config{Path: filepath.Join(dir, "postern.db")})
	w := storetest.Build(t, s)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fillUp(t, w)
	must(t, os.Remove(ballast))
	recovers(t, w)
	must(t, s.Close())
}

// fillUp appends until there is no room, and sees that failures leave nothing.
func fillUp(t *testing.T, w *storetest.World) {
	t.Helper()
	folder := strings.Repeat("x", 8000)
	var stored int64
	for {
		e := w.Event(broker.EventCommandRefused, broker.CommandRefused{Command: "x", Folder: folder})
		if err := w.Store.AppendEvents(ctx, []*broker.Event{e, w.Refused("y")}); err != nil {
			wantCode(t, err, broker.Unavailable)
			var full *broker.Error
			if !errors.As(err, &full) || full.Reason != "disk-full" {
				t.Fatalf("not told that the disk is full: %v", err)
			}
			break
		}
		stored = e.Seq + 2
		if stored > 100000 {
			t.Fatal("it never gets full")
		}
	}
	for i := range 3 {
		err := w.Store.CreateAgent(ctx, storetest.Admin, &broker.Agent{Name: fmt.Sprint("agent-", i), FullName: strings.Repeat("x", 100)})
		if err != nil {
			wantCode(t, err, broker.Unavailable)
		}
		e := w.Event(broker.EventCommandRefused, broker.CommandRefused{Command: "x", Folder: folder})
		wantCode(t, w.Store.AppendEvents(ctx, []*broker.Event{e}), broker.Unavailable)
	}
	log := storetest.All(t, w.Store, w.Firm.ID)
	storetest.Verify(t, log)
	if int64(len(log)) != stored {
		t.Fatalf("%d events are stored, %d were acknowledged", len(log), stored)
	}
}

func recovers(t *testing.T, w *storetest.World) {
	t.Helper()
	before := int64(len(storetest.All(t, w.Store, w.Firm.ID)))
	e := w.Event(broker.EventCommandRefused, broker.CommandRefused{Command: "x", Folder: strings.Repeat("x", 8000)})
	must(t, w.Store.AppendEvents(ctx, []*broker.Event{e}))
	if e.Seq != before {
		t.Errorf("the next number is %d after %d events", e.Seq, before)
	}
	storetest.Verify(t, storetest.All(t, w.Store, w.Firm.ID))
	must(t, w.Store.CreateFirm(ctx, storetest.Admin, &broker.Firm{Name: "after"}))
}

// A database that another process has locked is Unavailable in good time, and
// does not hold up those that read.
func TestStalledDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	s := open(t, Config{Path: path, WriteTimeout: 500 * time.Millisecond})
	w := storetest.Build(t, s)
	other, err := raw(t, path).Conn(ctx)
	must(t, err)
	defer other.Close()
	_, err = other.ExecContext(ctx, "BEGIN IMMEDIATE")
	must(t, err)

	began := time.Now()
	wantCode(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("1")}), broker.Unavailable)
	wantCode(t, s.CreateFirm(ctx, storetest.Admin, &broker.Firm{Name: "2"}), broker.Unavailable)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	wantCode(t, s.AppendEvents(gone, []*broker.Event{w.Refused("3")}), broker.Unavailable)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	_, err = s.Firm(ctx, w.Firm.ID)
	must(t, err)

	_, err = other.ExecContext(ctx, "ROLLBACK")
	must(t, err)
	// The one that was under way has an unknown outcome; those that waited
	// behind it were never begun.
	deadline := time.Now().Add(20 * time.Second)
	for err = unavailable(nil); err != nil && time.Now().Before(deadline); {
		err = s.AppendEvents(ctx, []*broker.Event{w.Refused("4")})
	}
	must(t, err)
	var commands []string
	log := storetest.All(t, s, w.Firm.ID)
	storetest.Verify(t, log)
	for _, e := range log {
		if d, ok := e.Data.(broker.CommandRefused); ok {
			commands = append(commands, d.Command)
		}
	}
	if !slices.Equal(commands, []string{"1", "4"}) && !slices.Equal(commands, []string{"4"}) {
		t.Errorf("recorded: %v", commands)
	}
}

// A broken transaction leaves nothing behind, whatever broke it.
func TestBrokenTransactions(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	want := len(storetest.All(t, s, w.Firm.ID))
	for name, broken := range map[string]func(x *tx) error{
		"rolled back by itself": func(x *tx) error { _, err := x.exec("ROLLBACK"); return errors.Join(err, errors.New("late")) },
		"no SQL":                func(x *tx) error { _, err := x.exec("no SQL"); return err },
		"constraint":            func(x *tx) error { _, err := x.exec("INSERT INTO events (log) VALUES ($1)", 99); return err },
		"connection gone":       func(x *tx) error { s.writer.discard(); _, err := x.exec("SELECT 1"); return err },
	} {
		err := s.write(ctx, func(x *tx) error {
			p, err := s.prepare([]*broker.Event{w.Refused("lost")})
			if err != nil {
				return err
			}
			if err := x.appendPending(p); err != nil {
				return err
			}
			return broken(x)
		})
		if err == nil {
			t.Errorf("%s: a broken transaction is reported as good", name)
		}
		must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("good")}))
		want++
	}
	log := storetest.All(t, s, w.Firm.ID)
	storetest.Verify(t, log)
	if len(log) != want {
		t.Errorf("%d events, want %d", len(log), want)
	}
}

// The record is broker.Event's JSON form, field by field.
func TestRecordIsTheEvent(t *testing.T) {
	names := func(types ...reflect.Type) (all []string) {
		for _, typ := range types {
			for i := range typ.NumField() {
				if tag := typ.Field(i).Tag.Get("json"); tag != "-" {
					all = append(all, tag)
				}
			}
		}
		return all
	}
	want := names(reflect.TypeFor[broker.Event]())
	got := names(reflect.TypeFor[recordHead]())
	got = append(append(got, "seq"), names(reflect.TypeFor[recordTail]())...)
	got = append(got, "data,omitempty") // appendData
	if !slices.Equal(got, want) {
		t.Fatalf("the record has %q, broker.Event %q", got, want)
	}
	s := open(t, Config{})
	w := storetest.Build(t, s)
	e := w.Opened(w.Session("node-a"))
	must(t, s.AppendEvents(ctx, []*broker.Event{e}))
	form, err := json.Marshal(e)
	must(t, err)
	log := storetest.All(t, s, w.Firm.ID)
	if record := string(log[e.Seq].Record); record != string(form) {
		t.Errorf("recorded %s\nmarshalled %s", record, form)
	}
}

// An event of a newer Postern is given as it is.
func TestEventOfAnotherVersion(t *testing.T) {
	s := open(t, Config{})
	w := storetest.Build(t, s)
	e := w.Event(broker.EventCommandRefused, json.RawMessage(`{"command":7}`))
	e.Version = 2
	must(t, s.AppendEvents(ctx, []*broker.Event{e}))
	log := storetest.All(t, s, w.Firm.ID)
	if data, ok := log[e.Seq].Data.(json.RawMessage); !ok || string(data) != `{"command":7}` {
		t.Errorf("data %#v", log[e.Seq].Data)
	}
}

// Terms that this version does not understand are refused: it would not
// enforce them.
func TestNever5UnknownTermsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	s := open(t, Config{Path: path})
	w := storetest.Build(t, s)
	for _, table := range []string{"delegations", "assignments"} {
		_, err := raw(t, path).ExecContext(ctx, `UPDATE `+table+` SET doc = replace(doc, '"actions"', '"folders":["INBOX"],"actions"')`)
		must(t, err)
	}
	_, err := s.Delegation(ctx, w.Delegation.ID)
	wantCode(t, err, broker.Internal)
	_, err = s.AssignmentsOf(ctx, w.Agent.ID, w.Mailbox.ID)
	wantCode(t, err, broker.Internal)
}

// A slow subscriber holds up neither writers nor its order.
func TestSlowSubscriber(t *testing.T) {
	s := open(t, Config{})
	hold, told := make(chan struct{}), make(chan broker.Change, 64)
	release := sync.OnceFunc(func() { close(hold) })
	defer release() // or Close would wait for it for ever
	cancel := s.Subscribe(func(c broker.Change) { <-hold; told <- c })
	for i := range 20 {
		must(t, s.CreateAgent(ctx, storetest.Admin, &broker.Agent{Name: fmt.Sprint("agent-", i)}))
	}
	release()
	for want := int64(1); want <= 20; want++ {
		select {
		case c := <-told:
			if c.Revision != want {
				t.Fatalf("revision %d, want %d", c.Revision, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("revision %d was not told", want)
		}
	}
	cancel()
}

// Close tells what is queued before it returns.
func TestCloseTellsSubscribers(t *testing.T) {
	s := open(t, Config{})
	hold, n := make(chan struct{}), 0
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	s.Subscribe(func(broker.Change) { <-hold; n++ })
	for i := range 5 {
		must(t, s.CreateAgent(ctx, storetest.Admin, &broker.Agent{Name: fmt.Sprint("agent-", i)}))
	}
	release()
	must(t, s.Close())
	if n != 5 {
		t.Errorf("told of %d changes, want 5", n)
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 987654321, time.FixedZone("IST", 19800))
	s := open(t, Config{Now: func() time.Time { return now }})
	w := storetest.Build(t, s)
	want := time.Date(2026, 3, 1, 6, 30, 0, 987654000, time.UTC)
	if !w.Firm.CreatedAt.Equal(want) || !storetest.All(t, s, w.Firm.ID)[0].Time.Equal(want) {
		t.Errorf("created at %v, want %v", w.Firm.CreatedAt, want)
	}
}

// FuzzAddress: what passes is plain enough for every protocol it goes into.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"a@b.example", `"a b"@c.example`, "a@b> X", "a@[192.0.2.1]", "é@b.example", "a@b.example\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if address("address", s) != nil {
			return
		}
		if strings.Count(s, "@") != 1 || strings.ContainsAny(s, " \t\r\n\x00<>()[]\\,;:\"") || strings.ToLower(s) != strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 32
			}
			return r
		}, s) {
			t.Errorf("%q passed", s)
		}
	})
}
