// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// patience is how long the tests wait for what must happen.
const patience = 30 * time.Second

// TestDSN: no password stands in a configuration, and nothing goes to another
// machine unless that machine is verified.
func TestDSN(t *testing.T) {
	for _, name := range []string{"PGPASSWORD", "PGSSLMODE", "PGHOST", "PGSERVICE"} {
		t.Setenv(name, "")
		must(t, os.Unsetenv(name))
	}
	ca := servers.NewCA(t).File
	for dsn, want := range map[string]string{
		"host=/run/postgresql dbname=postern":                                         "",
		"host=localhost dbname=postern sslmode=disable":                               "",
		"host=127.0.0.1 dbname=postern":                                               "",
		"postgres://postern@[::1]/postern":                                            "",
		"host=db.example dbname=postern sslmode=verify-full":                          "",
		"host=db.example,db2.example sslmode=verify-full sslrootcert=" + ca:           "",
		"postgres://postern@db.example/postern?sslmode=verify-full&sslrootcert=" + ca: "",
		"host=db.example dbname=postern":                                              "verify-full",
		"host=db.example sslmode=require":                                             "verify-full",
		"host=db.example sslmode=verify-ca sslrootcert=" + ca:                         "verify-full",
		"host=db.example sslmode=prefer":                                              "verify-full",
		"host=localhost,db.example sslmode=disable":                                   "verify-full",
		"host=127.0.0.1.evil.example":                                                 "verify-full",
		"host=localhost dbname=postern password=hunter2":                              "password_file",
		"host=localhost Password = 'hunter2'":                                         "password_file",
		"postgres://postern:hunter2@localhost/postern":                                "password_file",
		"postgres://localhost/postern?password=hunter2":                               "password_file",
		"host=db.example sslmode=verify-full sslkey=k sslcert=c sslpassword=hunter2":  "password_file",
		"host=db.example sslmode=verify-full sslrootcert=/nonexistent":                "connection string",
		"nonsense":                     "connection string",
		"host=localhost port=99999999": "connection string",
	} {
		err := (&PostgreSQL{DSN: dsn}).Check()
		if want == "" {
			must(t, err)
			continue
		}
		wantCode(t, err, broker.Invalid)
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %s", dsn, text)
		}
	}
	t.Setenv("PGSSLMODE", "disable")
	if err := (&PostgreSQL{DSN: "host=db.example"}).Check(); err == nil {
		t.Error("the environment switched TLS off")
	}
	file := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(file, []byte("x"), 0o644))
	wantCode(t, (&PostgreSQL{DSN: "host=localhost", PasswordFile: file}).Check(), broker.Invalid)
}

// TestServersThatForget: a server that would lose what it confirmed is refused.
func TestServersThatForget(t *testing.T) {
	server := servers.StartPostgreSQL(t)
	d := server.NewDatabase()
	try := func() error {
		s, err := Open(ctx, Config{PostgreSQL: &PostgreSQL{DSN: d.DSN(0), PasswordFile: d.PasswordFile}, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		return s.Close()
	}
	must(t, try())
	server.Exec("postgres", "ALTER DATABASE "+d.Name+" SET synchronous_commit = off")
	wantCode(t, try(), broker.Invalid)
	server.Exec("postgres", "ALTER DATABASE "+d.Name+" SET synchronous_commit = local")
	must(t, try())
	server.Exec("postgres", "ALTER SYSTEM SET fsync = off")
	server.Stop()
	server.Start()
	wantCode(t, try(), broker.Invalid)
	server.Exec("postgres", "ALTER SYSTEM RESET fsync", "ALTER DATABASE "+d.Name+" SET default_transaction_read_only = on")
	server.Stop()
	server.Start()
	wantCode(t, try(), broker.Unavailable) // as a standby is
	server.Exec("postgres", "ALTER DATABASE "+d.Name+" RESET ALL", "ALTER ROLE "+d.Name+" PASSWORD 'another'")
	wantCode(t, try(), broker.Unavailable)
}

// TestSettingsStay: a server that is told to forget, while nodes work, does not
// do so for theirs.
func TestSettingsStay(t *testing.T) {
	server := servers.StartPostgreSQL(t)
	s := openDatabase(t, server.NewDatabase(), Config{})
	storetest.Build(t, s)
	setting := func() (got string) {
		must(t, s.write(ctx, func(x *tx) error {
			rows, err := x.query(`SHOW synchronous_commit`)
			if err != nil {
				return err
			}
			return scanOne(rows, &got)
		}))
		return got
	}
	was := setting()
	server.Exec("postgres", "ALTER SYSTEM SET synchronous_commit = off", "SELECT pg_reload_conf()")
	// A connection that is made after the reload shows that it has happened.
	deadline := time.Now().Add(patience)
	for {
		_, err := Open(ctx, Config{PostgreSQL: s.cfg.PostgreSQL, Logger: zap.NewNop()})
		if broker.CodeOf(err) == broker.Invalid {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the setting did not change: %v", err)
		}
	}
	if got := setting(); got != was || got == "off" {
		t.Errorf("synchronous_commit is %s, was %s", got, was)
	}
}

// TestNever3PostgreSQLKilled: whatever was confirmed is there after the
// database was killed in the middle of its work, and nothing is there by half.
func TestNever3PostgreSQLKilled(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgreSQL(t)
	d := server.NewDatabase()
	one, other := openDatabase(t, d, Config{}), openDatabase(t, d, Config{})
	w := storetest.Build(t, one)
	var mu sync.Mutex
	confirmed := make(map[broker.ID]int64)
	var wait sync.WaitGroup
	stop, busy := make(chan struct{}), make(chan struct{}, 1000)
	for _, s := range []*Store{one, other, one} {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				pair := []*broker.Event{w.Refused("1"), w.Refused("2")}
				if err := s.AppendEvents(ctx, pair); err != nil {
					if broker.CodeOf(err) != broker.Unavailable {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				confirmed[pair[0].ID], confirmed[pair[1].ID] = pair[0].Seq, pair[1].Seq
				mu.Unlock()
				select {
				case busy <- struct{}{}:
				default:
				}
			}
		})
	}
	indexing := func() (n int) {
		rows, err := other.read(ctx)(`SELECT count(*) FROM (SELECT 1 FROM subject_events s JOIN logs l ON l.number = s.log WHERE s.seq >= l.indexed LIMIT 1) x`)
		if err == nil {
			err = scanOne(rows, &n)
		}
		if err != nil { // over a connection to a server that was killed
			return 0
		}
		return n
	}
	for round := range 3 {
		for range 20 * (round + 1) {
			<-busy
		}
		if round == 1 { // amid the making of the index
			servers.WaitFor(t, patience, func() bool { return indexing() > 0 }, "events to be taken into the index")
		}
		server.Kill()
		wantCode(t, one.AppendEvents(ctx, []*broker.Event{w.Refused("down")}), broker.Unavailable)
		wantCode(t, other.CreateAgent(ctx, storetest.Admin, &broker.Agent{Name: "down"}), broker.Unavailable)
		_, err := one.PolicyRevision(ctx)
		wantCode(t, err, broker.Unavailable)
		server.Start()
	}
	for range 20 {
		<-busy
	}
	close(stop)
	wait.Wait()
	servers.WaitFor(t, patience, func() bool { n, err := other.Unindexed(ctx); return err == nil && n == 0 }, "the index to follow")
	log := storetest.All(t, other, w.Firm.ID)
	storetest.Verify(t, log)
	for id, seq := range confirmed {
		if seq >= int64(len(log)) || log[seq].ID != id {
			t.Fatalf("event %s was confirmed as number %d and is not there", id, seq)
		}
	}
	for i := 0; i < len(log); i++ {
		if data, ok := log[i].Data.(broker.CommandRefused); ok && data.Command == "1" {
			if next, ok := log[i+1].Data.(broker.CommandRefused); !ok || next.Command != "2" {
				t.Fatalf("event %d is there without the other half of its batch", i)
			}
		}
	}
	want, got := 0, 0
	for _, e := range log {
		if e.MailboxID == w.Mailbox.ID {
			want++
		}
	}
	rows, err := other.read(ctx)(`SELECT count(*) FROM subject_events WHERE subject = (SELECT number FROM subjects WHERE id = $1)`, string(w.Mailbox.ID))
	must(t, err)
	must(t, scanOne(rows, &got))
	if got != want || got == 0 {
		t.Errorf("the index has %d events of the mailbox, the log %d", got, want)
	}
	t.Logf("%d events confirmed, %d in the log", len(confirmed), len(log))
}

// TestIndexAndKeysFollowWithoutAnotherEvent: what a database that was killed kept
// from the index, and from the keys, is there when it runs again, though nothing
// more is recorded.
func TestIndexAndKeysFollowWithoutAnotherEvent(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgreSQL(t)
	d := server.NewDatabase()
	core, told := observer.New(zapcore.WarnLevel)
	s, err := Open(ctx, Config{PostgreSQL: &PostgreSQL{DSN: d.DSN(0), PasswordFile: d.PasswordFile}, Logger: zap.New(core)})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	w := storetest.Build(t, s)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("1")}))
	server.Kill()
	servers.WaitFor(t, patience, func() bool { return told.FilterMessage("events could not be indexed yet").Len() > 1 }, "the index to fail, and to fail again")
	server.Start()
	servers.WaitFor(t, patience, func() bool {
		rows, err := s.read(ctx)(`SELECT count(*) FROM logs WHERE keyed < next_seq OR indexed < next_seq`)
		if err != nil {
			return false // over a connection to the one that was killed
		}
		var behind int
		must(t, scanOne(rows, &behind))
		return behind == 0
	}, "index and keys to follow")
}

// testConnectionsEnded: connections that an operator ended while nobody used
// them cost no write.
func testConnectionsEnded(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	s := openDatabase(t, d, Config{})
	w := storetest.Build(t, s)
	server.Exec("postgres", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '"+d.Name+"'")
	// The driver takes a connection that was used within the last second to be
	// alive: a read on it may fail. At rest is longer.
	<-time.After(1100 * time.Millisecond)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("1")}))
	_, err := s.Firms(ctx)
	must(t, err)
	storetest.Verify(t, storetest.All(t, s, w.Firm.ID))
}

// testStoppedInATransaction: a node that stops in the middle of one holds up
// the others for a few seconds, and what it had begun is not done.
func testStoppedInATransaction(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	stopped, other := openDatabase(t, d, Config{}), openDatabase(t, d, Config{})
	w := storetest.Build(t, stopped)
	inside, goOn := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- stopped.write(ctx, func(x *tx) error {
			if err := x.appendEvent(w.Refused("half")); err != nil {
				return err
			}
			close(inside)
			<-goOn
			return nil
		})
	}()
	<-inside
	began := time.Now()
	must(t, other.CreateLock(ctx, storetest.Admin, &broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID}))
	t.Logf("held up for %v", time.Since(began).Round(time.Millisecond))
	close(goOn)
	wantCode(t, <-result, broker.Unavailable)
	must(t, stopped.AppendEvents(ctx, []*broker.Event{w.Refused("whole")}))
	log := storetest.All(t, other, w.Firm.ID)
	storetest.Verify(t, log)
	for _, e := range log {
		if data, ok := e.Data.(broker.CommandRefused); ok && data.Command == "half" {
			t.Error("what was half done is there")
		}
	}
}

// testSilentDatabase: a database that stops answering is Unavailable in good
// time, to readers and writers, and is used again when it answers.
func testSilentDatabase(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	tap := servers.NewTap(t, server.Address())
	s := open(t, Config{
		PostgreSQL: &PostgreSQL{DSN: d.DSN(tap.Port), PasswordFile: d.PasswordFile}, WriteTimeout: time.Second,
	})
	w := storetest.Build(t, s)
	tap.SetDelay(3 * time.Second)
	began := time.Now()
	wantCode(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("1")}), broker.Unavailable)
	wantCode(t, s.CreateFirm(ctx, storetest.Admin, &broker.Firm{Name: "2"}), broker.Unavailable)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	tap.SetDelay(0)
	deadline := time.Now().Add(patience)
	for err := errors.New("not tried"); err != nil; {
		if err = s.AppendEvents(ctx, []*broker.Event{w.Refused("3")}); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	storetest.Verify(t, storetest.All(t, s, w.Firm.ID))
}

// testForgedNotices: whoever may connect can send notices. They make no node
// deaf to true ones.
func testForgedNotices(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	one, other := openDatabase(t, d, Config{}), openDatabase(t, d, Config{})
	w := storetest.Build(t, one)
	changes := make(chan broker.Change, 64)
	defer other.Subscribe(func(c broker.Change) { changes <- c })()
	for _, payload := range []string{"", "x", "[]", "{}", `[{"r":9223372036854775807}]`, `[{"r":-1,"k":"lock"}]`, `[{"r":1,"k":"?"},{"r":1000}]`} {
		server.Exec(d.Name, fmt.Sprintf("SELECT pg_notify('%s', '%s')", notifyChannel, payload))
	}
	l := broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID}
	must(t, one.CreateLock(ctx, storetest.Admin, &l))
	revision, err := one.PolicyRevision(ctx)
	must(t, err)
	for {
		select {
		case c := <-changes:
			if c.Revision > revision {
				t.Fatalf("told of revision %d", c.Revision)
			}
			if c.ID == l.ID {
				return
			}
		case <-time.After(patience):
			t.Fatal("the change was not told")
		}
	}
}

// testNoticesLost: after the connection that listens was lost, subscribers are
// told to look for themselves.
func testNoticesLost(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	tap := servers.NewTap(t, server.Address())
	one := openDatabase(t, d, Config{})
	other := open(t, Config{PostgreSQL: &PostgreSQL{DSN: d.DSN(tap.Port), PasswordFile: d.PasswordFile}})
	w := storetest.Build(t, one)
	changes := make(chan broker.Change, 64)
	defer other.Subscribe(func(c broker.Change) { changes <- c })()
	tap.SetDelay(2 * time.Second) // it connects anew at once, and hears late
	tap.CutAll()
	must(t, one.CreateLock(ctx, storetest.Admin, &broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID}))
	want, err := one.PolicyRevision(ctx)
	must(t, err)
	tap.SetDelay(0)
	for {
		select {
		case c := <-changes:
			if c.Revision == want {
				return
			}
		case <-time.After(patience):
			t.Fatal("nothing was told after the connection came back")
		}
	}
}
