// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

// childVariable names the database that a child process appends to.
const childVariable = "POSTERN_TEST_AUDIT_CHILD"

// childMailbox is the mailbox that its events are about.
const childMailbox broker.ID = "0192a000-0000-7000-8000-000000000007"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		appendForEver(path)
	}
	goleak.VerifyTestMain(m)
}

func rawData(e broker.Event) string { return string(*e.Data.(*json.RawMessage)) }

func openStore(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, store.Config{Path: path, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A receipt settles with nil only when another connection can read the event.
func TestNever3ReceiptBeforeDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	w := storetest.Build(t, openStore(t, path))
	reader := openStore(t, path)
	l, _ := start(t, Config{Store: w.Store})
	var wait sync.WaitGroup
	for producer := range 4 {
		wait.Go(func() {
			for i := range 25 {
				e := w.Refused(fmt.Sprintf("%d-%d", producer, i))
				if err := l.Submit(e).Wait(ctx); err != nil {
					t.Error(err)
					return
				}
				got, err := reader.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: e.Seq - 1, Limit: 1})
				if err != nil || len(got) != 1 || got[0].ID != e.ID {
					t.Errorf("event %d was acknowledged and cannot be read: %v %v", e.Seq, got, err)
				}
			}
		})
	}
	wait.Wait()
	storetest.Verify(t, storetest.All(t, reader, w.Firm.ID))
}

// A session whose record is acknowledged is in the table of sessions too.
func TestNever3SessionRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	w := storetest.Build(t, openStore(t, path))
	l, _ := start(t, Config{Store: w.Store})
	x := w.Session("node-a")
	if err := l.Append(ctx, w.Opened(x)); err != nil {
		t.Fatal(err)
	}
	live, err := openStore(t, path).Sessions(ctx, true, 0)
	if err != nil || len(live) != 1 || live[0].ID != x.ID {
		t.Fatalf("sessions: %v %v", live, err)
	}
}

// producers and perBatch shape what the child does.
const (
	producers = 8
	perBatch  = 3
)

// appendForEver is the child: it prints each id once it is acknowledged.
func appendForEver(path string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s, err := store.Open(ctx, store.Config{Path: path, Logger: zap.NewNop()})
	if err != nil {
		fail(err)
	}
	l, err := New(Config{Store: s, Logger: zap.NewNop(), BatchSize: 16})
	if err != nil {
		fail(err)
	}
	firms, err := s.Firms(ctx)
	if err != nil {
		fail(err)
	}
	var mu sync.Mutex
	for range producers {
		go func() {
			for {
				var events []*broker.Event
				for range perBatch {
					e := event("x")
					e.FirmID, e.MailboxID = firms[0].ID, childMailbox
					events = append(events, e)
				}
				if err := l.Append(ctx, events...); err != nil {
					fail(err)
				}
				mu.Lock()
				for _, e := range events {
					fmt.Println(e.ID, e.Seq) // unbuffered: one write each
				}
				mu.Unlock()
			}
		}()
	}
	fail(l.Run(ctx))
}

// A process that is killed loses no event that it acknowledged.
func TestNever3KilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	before := openStore(t, path)
	w := storetest.Build(t, before)
	for round := range 3 {
		n := 200 + round*77
		acknowledged := killWhileAppending(t, path, func(all int) bool { return all == n })
		after := openStore(t, path)
		log := checkAcknowledged(t, after, w.Firm.ID, acknowledged)
		// The log goes on where the dead left it.
		e := w.Refused("after")
		if err := after.AppendEvents(ctx, []*broker.Event{e}); err != nil || e.Seq != int64(len(log)) {
			t.Fatalf("the next number is %d after %d events: %v", e.Seq, len(log), err)
		}
	}
}

// checkAcknowledged returns the firm's log, in which each acknowledged event is.
func checkAcknowledged(t *testing.T, s *store.Store, firm broker.ID, acknowledged map[broker.ID]int64) []*broker.StoredEvent {
	t.Helper()
	log := storetest.All(t, s, firm)
	storetest.Verify(t, log)
	for id, seq := range acknowledged {
		if seq >= int64(len(log)) || log[seq].ID != id {
			t.Fatalf("event %d was acknowledged and is not there", seq)
		}
	}
	return log
}

// TestNever3KilledWhileIndexing: the index for questions is made beside the
// appends, of which none is lost when the process is killed in the middle of it;
// and it is made whole afterwards.
func TestNever3KilledWhileIndexing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	before, err := store.Open(ctx, store.Config{Path: path, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	firm := storetest.Build(t, before).Firm.ID
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(30000)&_pragma=query_only(1)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ask := func(query string, args ...any) (n int) {
		t.Helper()
		if err := db.QueryRow(query, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	looked := time.Now()
	acknowledged := killWhileAppending(t, path, func(int) bool {
		if time.Since(looked) < 5*time.Millisecond {
			return false
		}
		looked = time.Now()
		return ask(`SELECT count(*) FROM (SELECT 1 FROM subject_events s JOIN logs l ON l.number = s.log WHERE s.seq >= l.indexed LIMIT 1)`) > 0
	})
	after := openStore(t, path)
	log := checkAcknowledged(t, after, firm, acknowledged)
	deadline := time.Now().Add(time.Minute)
	for left := int64(1); left > 0; {
		if left, err = after.Unindexed(ctx); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events are not in the index yet", left)
		}
		time.Sleep(50 * time.Millisecond)
	}
	want := 0
	for _, e := range log {
		if e.MailboxID == childMailbox {
			want++
		}
	}
	got := ask(`SELECT count(*) FROM subject_events WHERE subject = (SELECT number FROM subjects WHERE id = $1)`, string(childMailbox))
	if want < len(acknowledged) || got != want {
		t.Errorf("the index has %d events of the mailbox, the log %d, of which %d were acknowledged", got, want, len(acknowledged))
	}
	t.Logf("killed after %d events", want)
}

// killWhileAppending runs the child until enough, which is told how many events it
// has acknowledged, and returns all that it acknowledged.
func killWhileAppending(t *testing.T, path string, enough func(acknowledged int) bool) map[broker.ID]int64 {
	t.Helper()
	child := exec.CommandContext(context.Background(), os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged, killed := make(map[broker.ID]int64), false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var id broker.ID
		var seq int64
		if _, err := fmt.Sscan(lines.Text(), &id, &seq); err != nil {
			break // a line that the kill cut off
		}
		acknowledged[id] = seq
		if !killed && enough(len(acknowledged)) {
			killed = true
			if err := child.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v", err)
	}
	if !killed {
		t.Fatalf("the child acknowledged %d events only", len(acknowledged))
	}
	return acknowledged
}

// BenchmarkSubmit is the way of an event from many producers to the disk.
func BenchmarkSubmit(b *testing.B) {
	w := storetest.Build(b, openStore(b, filepath.Join(b.TempDir(), "postern.db")))
	l, _ := start(b, Config{Store: w.Store})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Append(ctx, w.Refused("DELETE")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
