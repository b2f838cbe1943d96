// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// aged has do write to the state of a server that is stopped, as if it were so many
// days ago. ready, where it is set, is then asked until it is content, today.
func (p *Postern) aged(t *testing.T, days int, do func(*store.Store), ready func(*store.Store) bool) {
	t.Helper()
	now := time.Now()
	var ago atomic.Int64
	ago.Store(int64(days))
	s, err := store.Open(context.Background(), store.Config{
		Path: p.StorePath(), Logger: zap.NewNop(), Now: func() time.Time { return now.AddDate(0, 0, -int(ago.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	do(s)
	if ago.Store(0); ready != nil {
		servers.WaitFor(t, eventTimeout, func() bool { return ready(s) }, "the index")
	}
}

// TestNever6RetentionOfAServer: what is over its time is pruned, what is held is
// not, an older checkpoint verifies both, and so does the firm's own copy, which
// keeps all; a record that the BPO's root takes away beside that is found.
func TestNever6RetentionOfAServer(t *testing.T) {
	const events = 300
	p := StartPostern(t, Options{})
	p.Stop()
	var w *storetest.World
	held := broker.Hold{Reason: "FIR 212/2026, Pune"}
	p.aged(t, 100, func(s *store.Store) {
		w = storetest.Build(t, s)
		var batch []*broker.Event
		for i := range events {
			e := w.Event(broker.EventMessageOpen, broker.MessageOpen{Folder: "INBOX", UIDValidity: 7, Messages: []broker.OpenedMessage{
				{UID: uint32(i + 1), Section: "BODY[]", Octets: 10, MessageID: fmt.Sprintf("<%d@market.example>", i+1)},
			}})
			e.Time = w.Firm.CreatedAt.Add(time.Duration(i+1) * time.Minute)
			batch = append(batch, e)
		}
		must(t, s.AppendEvents(context.Background(), batch))
		held.FirmID, held.Since, held.Until = w.Firm.ID, batch[100].Time, batch[120].Time
	}, nil)
	p.Restart()
	firm := w.Firm.Name
	dir := t.TempDir()
	keys, old := filepath.Join(dir, "keys"), filepath.Join(dir, "old")
	p.write(keys, p.CLI("log", "key", "--firm", firm))
	pull := func(to string) (stdout, stderr string, code int) {
		t.Helper()
		return p.TryCLI("", "log", "pull", filepath.Join(dir, to), "--firm", firm, "--keys", keys)
	}
	servers.WaitFor(t, eventTimeout, func() bool {
		_, _, code := pull("firms")
		return code == 0
	}, "a checkpoint")
	p.write(old, p.CLI("log", "checkpoint", "--firm", firm))

	p.Stop()
	days := broker.MinRetentionDays
	p.aged(t, 60, func(s *store.Store) {
		must(t, s.SetRetention(context.Background(), storetest.Admin, w.Firm.ID, &days))
		must(t, s.CreateHold(context.Background(), storetest.Admin, &held))
	}, func(s *store.Store) bool { // what the server would wait for until its next look
		tasks, err := s.PruneTasks(context.Background(), time.Now())
		must(t, err)
		head, err := s.LogHead(context.Background(), w.Firm.ID)
		must(t, err)
		return len(tasks) == 1 && tasks[0].To == head.Size // the alert too, which is the last
	})
	p.Restart()
	gone := 0
	servers.WaitFor(t, eventTimeout, func() bool {
		left := 0
		for _, e := range p.Events(firm) {
			if e.Type == broker.EventMessageOpen {
				left++
			}
		}
		gone = events - left
		return left == 20
	}, "all but what is held to be pruned")

	verify := func(which string) (stdout, stderr string, code int) {
		t.Helper()
		return p.TryCLI("", "log", "verify", filepath.Join(dir, which), "--keys", keys, "--checkpoint", old)
	}
	// The checkpoint of the last pruning may be yet to come: a pull waits for it.
	if stdout, stderr, code := pull("fresh"); code != 0 || !strings.Contains(stdout, "only the hash is there") {
		t.Fatalf("pull: %d %s %s", code, stdout, stderr)
	}
	if stdout, stderr, code := verify("fresh"); code != 0 || !strings.Contains(stdout, "only the hash is there") || !strings.Contains(stdout, "Pruned, as the log tells") {
		t.Errorf("verify: %d %s %s", code, stdout, stderr)
	}
	// What came after the firm's pull and was due before the next it has not: the
	// alert that the time was shortened.
	const one = "Of 1 event only the hash is there"
	if stdout, stderr, code := pull("firms"); code != 0 || !strings.Contains(stdout, one) {
		t.Errorf("pull into the firm's copy: %d %s %s", code, stdout, stderr)
	}
	if stdout, stderr, code := verify("firms"); code != 0 || !strings.Contains(stdout, one) {
		t.Errorf("verify of the firm's copy: %d %s %s", code, stdout, stderr)
	}
	if out := p.CLI("ask", "agent", "Ravi"); !strings.Contains(out, "were pruned, some or all") || !strings.Contains(out, "<110@market.example>") || strings.Contains(out, "<90@market.example>") {
		t.Errorf("asked: %s", out)
	}
	if out := p.CLI("retention", "show", "--firm", firm); !strings.Contains(out, "30 days") || !strings.Contains(out, "Pruned up to") {
		t.Errorf("shown: %s", out)
	}
	if out := p.CLI("hold", "list"); !strings.Contains(out, held.Reason) {
		t.Errorf("holds: %s", out)
	}
	if gone != events-20 {
		t.Errorf("%d are gone", gone)
	}

	db, err := sql.Open("sqlite", p.StorePath()+"?_pragma=busy_timeout(10000)")
	must(t, err)
	defer db.Close()
	_, err = db.Exec(`UPDATE events SET type = '', record = x'', salt = x'' WHERE CAST(record AS TEXT) LIKE '%<110@market.example>%'`)
	must(t, err)
	if _, stderr, code := pull("tampered"); code == 0 || !strings.Contains(stderr, "TAMPERED") {
		t.Errorf("pull of what was taken away: %d %s", code, stderr)
	}
	if _, stderr, code := verify("tampered"); code == 0 || !strings.Contains(stderr, "no pruning event names it") {
		t.Errorf("verify of what was taken away: %d %s", code, stderr)
	}
	if _, stderr, code := verify("firms"); code != 0 {
		t.Errorf("what the firm held before: %d %s", code, stderr)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
