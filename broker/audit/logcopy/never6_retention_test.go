// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// pruned is a log of 400 events and a few, of which a firm has copied the first,
// and the first 300 were pruned since. It returns the copy, and what the clock says
// at the end.
func pruned(t *testing.T) (s *served, dir string, now time.Time) {
	t.Helper()
	now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	begin := now
	clock.Store(&begin)
	s = serveAt(t, func() time.Time { return *clock.Load() }, 300)
	dir = t.TempDir()
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	days := broker.MinRetentionDays
	must(t, s.store.SetRetention(ctx, storetest.Admin, s.firm, &days))
	now = now.AddDate(0, 0, 60)
	clock.Store(&now)
	s.append(100)
	s.prune(250)
	return s, dir, now
}

// prune prunes what is due until so many records are gone: it waits for the index.
func (s *served) prune(least int64) {
	s.t.Helper()
	for began, n := time.Now(), int64(0); n < least; <-time.After(20 * time.Millisecond) {
		tasks, err := s.store.PruneTasks(ctx, s.clock())
		must(s.t, err)
		for _, task := range tasks {
			for task.From < task.To {
				count, next, err := s.store.Prune(ctx, broker.Actor{Kind: "system", Name: "node-a"}, task)
				must(s.t, err)
				n += count
				task.From = next
			}
		}
		if time.Since(began) > time.Minute {
			s.t.Fatalf("%d records were pruned of %d", n, least)
		}
	}
}

// TestPrunedLog: what was pruned leaves the rest verifiable with an older
// checkpoint, and a copy that had it keeps it.
func TestPrunedLog(t *testing.T) {
	s, dir, _ := pruned(t)
	older := s.now()
	s.append(10)
	p, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
	all, err := Verify(dir, s.keys(), older)
	must(t, err)
	if p.Pruned != 0 || p.Lost != nil || all[0].Pruned != 0 || len(all[0].Prunings) == 0 {
		t.Errorf("the firm's own copy: %+v, %+v", p, all[0])
	}
	fresh := t.TempDir()
	p, err = Pull(ctx, fresh, s.keys(), s, older)
	must(t, err)
	all, err = Verify(fresh, s.keys(), older)
	must(t, err)
	named := int64(0)
	for _, x := range all[0].Prunings {
		named += x.Last - x.First + 1
	}
	if p.Pruned < 250 || p.Lost != nil || all[0].Pruned != p.Pruned || named != p.Pruned {
		t.Errorf("a copy that came later: %+v, %+v", p, all[0])
	}
}

// TestNever6RetentionOfWhatWasTakenAway: a record that somebody removes in the
// database is found, though the tree stands: no pruning event names it.
func TestNever6RetentionOfWhatWasTakenAway(t *testing.T) {
	s, dir, _ := pruned(t)
	older := s.now()
	s.tamper(`UPDATE events SET type = '', record = x'', salt = x'' WHERE log = (SELECT number FROM logs WHERE firm_id = $1) AND seq = $2`, s.firm, 350)
	fresh := t.TempDir()
	p, err := Pull(ctx, fresh, s.keys(), s, older)
	must(t, err)
	var wrong *TamperedError
	if !errors.As(p.Lost, &wrong) || !strings.Contains(p.Lost.Error(), "event 350") {
		t.Errorf("pulled: %v", p.Lost)
	}
	if _, err := Verify(fresh, s.keys(), older); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "event 350") {
		t.Errorf("verified: %v", err)
	}
	// The firm's copy of before is told as well, and keeps what it has.
	p, err = Pull(ctx, dir, s.keys(), s)
	must(t, err)
	if !errors.As(p.Lost, &wrong) {
		t.Errorf("pulled into the firm's copy: %v", p.Lost)
	}
}

// TestNever6RetentionOfFalsePrunings: whoever has the server can record that he
// pruned, but not what he was not to prune.
func TestNever6RetentionOfFalsePrunings(t *testing.T) {
	for name, forge := range map[string]func(now time.Time) (broker.LogPruned, string){
		"young records": func(now time.Time) (broker.LogPruned, string) {
			return broker.LogPruned{Count: 10, Spans: []broker.PrunedSpan{{First: 340, Last: 349, Since: now, Until: now}}}, "though they are of"
		},
		"young records that are called old": func(now time.Time) (broker.LogPruned, string) {
			old := now.AddDate(0, 0, -50)
			return broker.LogPruned{Count: 10, Spans: []broker.PrunedSpan{{First: 340, Last: 349, Since: old, Until: old}}}, "before them"
		},
		"held records": func(now time.Time) (broker.LogPruned, string) {
			return broker.LogPruned{Count: 1, Spans: []broker.PrunedSpan{{First: 20, Last: 20, Since: now.AddDate(0, 0, -60), Until: now.AddDate(0, 0, -60)}}}, "a hold was on them"
		},
		"itself": func(now time.Time) (broker.LogPruned, string) {
			return broker.LogPruned{Count: 1000, Spans: []broker.PrunedSpan{{First: 0, Last: 999, Since: now.AddDate(0, 0, -60), Until: now.AddDate(0, 0, -60)}}}, "cannot be"
		},
		"more than it counts": func(now time.Time) (broker.LogPruned, string) {
			return broker.LogPruned{Count: 1, Spans: []broker.PrunedSpan{{First: 20, Last: 29, Since: now.AddDate(0, 0, -60), Until: now.AddDate(0, 0, -60)}}}, "names 10"
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir, now := pruned(t)
			data, want := forge(now)
			if name == "held records" {
				must(t, s.store.CreateHold(ctx, storetest.Admin, &broker.Hold{FirmID: s.firm, Reason: "a case", Until: now.AddDate(0, 0, -59)}))
			}
			must(t, s.store.AppendEvents(ctx, []*broker.Event{{
				Type: broker.EventLogPruned, FirmID: s.firm, Actor: broker.Actor{Kind: "system", Name: "node-a"}, Data: data,
			}}))
			for _, span := range data.Spans {
				s.tamper(`UPDATE events SET type = '', record = x'', salt = x'' WHERE log = (SELECT number FROM logs WHERE firm_id = $1) AND seq >= $2 AND seq <= $3 AND type <> 'log.pruned'`,
					s.firm, span.First, span.Last)
			}
			for kind, dir := range map[string]string{"a fresh copy": t.TempDir(), "the firm's": dir} {
				_, err := Pull(ctx, dir, s.keys(), s)
				must(t, err)
				var wrong *TamperedError
				if _, err := Verify(dir, s.keys()); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v", kind, err)
				}
			}
		})
	}
}

// laggard is a server that signs nothing while it was asked less often.
type laggard struct {
	*served
	first []byte
	asked int
}

func (l *laggard) Checkpoint(ctx context.Context) ([]byte, error) {
	if l.asked++; l.asked <= 2 {
		return l.first, nil
	}
	return l.served.Checkpoint(ctx)
}

// TestPullWhilePruning: what is pruned between a checkpoint and the entries is not
// taken for lost: the next checkpoint tells.
func TestPullWhilePruning(t *testing.T) {
	var clock atomic.Pointer[time.Time]
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock.Store(&begin)
	s := serveAt(t, func() time.Time { return *clock.Load() }, 300)
	days := broker.MinRetentionDays
	must(t, s.store.SetRetention(ctx, storetest.Admin, s.firm, &days))
	signed, err := s.Checkpoint(ctx)
	must(t, err)
	now := begin.AddDate(0, 0, 60)
	clock.Store(&now)
	s.prune(250)
	dir := t.TempDir()
	p, err := Pull(ctx, dir, s.keys(), &laggard{served: s, first: signed})
	must(t, err)
	if p.Lost != nil || p.Pruned < 250 || p.Checkpoint.Size != int64(s.size()) {
		t.Errorf("pulled: %+v", p)
	}
	_, err = Verify(dir, s.keys())
	must(t, err)
}
