// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// pruneChild names the database that a child process prunes, until it is killed.
const pruneChild = "POSTERN_TEST_PRUNE"

// prunable makes a log of old events in a database, of which thirty days are kept,
// and returns the time at which they are due.
func prunable(t *testing.T, path string, events int) (*Store, broker.ID, func() time.Time) {
	t.Helper()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	clock.Store(&begin)
	now := func() time.Time { return *clock.Load() }
	s := open(t, Config{Path: path, Now: now})
	w := storetest.Build(t, s)
	days := broker.MinRetentionDays
	must(t, s.SetRetention(ctx, storetest.Admin, w.Firm.ID, &days))
	var batch []*broker.Event
	for i := range events {
		batch = append(batch, w.Event(broker.EventMessageOpen, broker.MessageOpen{
			Folder: "INBOX", UIDValidity: 7,
			Messages: []broker.OpenedMessage{{UID: uint32(i + 1), Section: "BODY[]", MessageID: fmt.Sprintf("<secret-%d@x.example>", i)}},
		}))
	}
	must(t, s.AppendEvents(ctx, batch))
	due := begin.AddDate(0, 0, 60)
	clock.Store(&due)
	for began := time.Now(); ; <-time.After(20 * time.Millisecond) {
		tasks, err := s.PruneTasks(ctx, due)
		must(t, err)
		if len(tasks) == 1 && tasks[0].To >= int64(events) {
			return s, w.Firm.ID, now
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("not in the index: %+v", tasks)
		}
	}
}

// pruneAll prunes what is due, and calls each after every transaction.
func pruneAll(t *testing.T, s *Store, at time.Time, each func()) {
	t.Helper()
	tasks, err := s.PruneTasks(ctx, at)
	must(t, err)
	for _, task := range tasks {
		for task.From < task.To {
			_, next, err := s.Prune(ctx, broker.Actor{Kind: "system", Name: "node-a"}, task)
			must(t, err)
			task.From = next
			each()
		}
	}
}

// TestPrunedIsOverwritten: the database file does not hold what was pruned.
func TestPrunedIsOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	s, firm, now := prunable(t, path, 500)
	pruneAll(t, s, now(), func() {})
	if gone := storetest.CheckPruned(t, s, firm); len(gone) < 500 {
		t.Fatalf("%d are pruned", len(gone))
	}
	must(t, s.Close()) // the write-ahead log goes with it
	content, err := os.ReadFile(path)
	must(t, err)
	if bytes.Contains(content, []byte("secret-")) {
		t.Error("the database file still holds records that were pruned")
	}
	if !bytes.Contains(content, []byte("mailbox.created")) {
		t.Error("the test reads no database")
	}
}

// TestNever6PruneKilled: whenever the process that prunes is killed, what is gone
// is what the log says is gone, and the next one goes on.
func TestNever6PruneKilled(t *testing.T) {
	due := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, 60)
	if path := os.Getenv(pruneChild); path != "" {
		s := open(t, Config{Path: path, Now: func() time.Time { return due }})
		leave := bufio.NewScanner(os.Stdin) // each transaction has its leave
		pruneAll(t, s, due, func() { fmt.Println("pruned"); leave.Scan() })
		return
	}
	const events = 3000
	path := filepath.Join(t.TempDir(), "postern.db")
	s, firm, now := prunable(t, path, events)
	must(t, s.Close())
	killed := 0
	for round := 0; ; round++ {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNever6PruneKilled$")
		child.Env = append(os.Environ(), pruneChild+"="+path)
		out, err := child.StdoutPipe()
		must(t, err)
		leave, err := child.StdinPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		ended := true
		for n := 0; lines.Scan(); {
			if lines.Text() != "pruned" {
				continue
			}
			_, err := fmt.Fprintln(leave)
			must(t, err)
			if n++; n > round%3 { // somewhere within the next transaction
				<-time.After(time.Duration(round) * 1300 * time.Microsecond)
				must(t, child.Process.Kill())
				ended = false
				break
			}
		}
		for lines.Scan() {
		}
		if err := child.Wait(); ended {
			must(t, err)
		} else {
			killed++
		}
		s := open(t, Config{Path: path, Now: now})
		gone := storetest.CheckPruned(t, s, firm)
		must(t, s.Close())
		if len(gone) >= events && ended {
			break
		}
		if round == 100 {
			t.Fatalf("%d of %d are pruned", len(gone), events)
		}
	}
	if killed < 3 {
		t.Errorf("it was killed %d times", killed)
	}
}
