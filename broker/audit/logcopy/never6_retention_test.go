// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"encoding/json"
	"errors"
	"math"
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
	days := broker.MinRetentionDays
	must(t, s.store.SetRetention(ctx, storetest.Admin, s.firm, &days))
	dir = t.TempDir() // with the alert that this raises
	_, err := Pull(ctx, dir, s.keys(), s)
	must(t, err)
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

// forged is a log of a record each day, as its server and whoever has it wrote it.
type forged struct {
	t     *testing.T
	found Prunings
	seq   int64
	now   time.Time
}

func newForged(t *testing.T, days int) *forged {
	f := &forged{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	f.found.Now = func() time.Time { return f.now }
	for range days {
		f.day()
	}
	return f
}

// day is one with a record.
func (f *forged) day() {
	f.now = f.now.AddDate(0, 0, 1)
	f.event("session.refused", f.now, nil)
}

// gone is one of which nobody knows the record.
func (f *forged) gone(n int) {
	for range n {
		f.now = f.now.AddDate(0, 0, 1)
		f.found.Add(&Entry{Seq: f.seq})
		f.seq++
	}
}

func (f *forged) event(kind broker.EventType, at time.Time, data any) {
	f.t.Helper()
	text, err := json.Marshal(broker.Event{ID: broker.NewID(), Time: at, Seq: f.seq, Type: kind, Data: data})
	must(f.t, err)
	f.found.Add(&Entry{Seq: f.seq, Record: text, Salt: "00"})
	f.seq++
}

// prunes says that some were pruned, which were of a time.
func (f *forged) prunes(at time.Time, first, last int64, of time.Time) {
	f.t.Helper()
	f.event(broker.EventLogPruned, at, broker.LogPruned{Count: last - first + 1, Spans: []broker.PrunedSpan{{First: first, Last: last, Since: of, Until: of}}})
}

// hold says how a hold is.
func (f *forged) hold(kind broker.EventType, h broker.Hold) {
	f.t.Helper()
	after, err := json.Marshal(h)
	must(f.t, err)
	f.event(kind, f.now, broker.StateChange{After: after})
}

func (f *forged) ago(days int) time.Time { return f.now.AddDate(0, 0, -days) }

// TestNever6RetentionOfFalseTimes: the times that a pruning event tells are its
// writer's. They are held against the reader's clock, and what stands around.
func TestNever6RetentionOfFalseTimes(t *testing.T) {
	later := func(f *forged, days int) {
		for range days {
			f.day()
		}
	}
	for name, test := range map[string]struct {
		write func(f *forged)
		want  string
	}{
		"a pruning that is yet to come": {func(f *forged) {
			f.gone(1)
			f.prunes(f.ago(-31), 60, 60, f.now)
		}, "at the latest, though they are of"},
		"a pruning that was yet to come": {func(f *forged) {
			f.gone(1)
			f.prunes(f.ago(-31), 60, 60, f.now)
			later(f, 40)
		}, "at the latest, though they are of"},
		"one among others that are yet to come": {func(f *forged) {
			f.event("session.refused", f.ago(-31), nil)
			f.gone(1)
			f.prunes(f.ago(-31), 61, 61, f.now)
			f.event("session.refused", f.ago(-31), nil)
			later(f, 40)
		}, "at the latest, though they are of"},
		"the newest records, before old ones": {func(f *forged) {
			f.gone(10)
			f.event("session.refused", f.ago(60), nil)
			f.prunes(f.now, 60, 69, f.ago(60))
		}, "before them"},
		"held records that are called older": {func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case", Since: f.ago(30)}
			f.hold("hold.created", h)
			later(f, 5)
			f.gone(1)
			later(f, 60)
			f.prunes(f.now, 66, 66, f.now.AddDate(-1, 0, 0))
		}, "a hold was on them"},
		"a hold released long ago, says its release": {func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case"}
			f.hold("hold.created", h)
			f.gone(1)
			later(f, 60)
			h.ReleasedAt = f.ago(8)
			f.hold("hold.released", h)
			f.prunes(f.now, 61, 61, f.ago(60))
		}, "a hold was on them"},
		"a hold that is released after the pruning": {func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case"}
			f.hold("hold.created", h)
			f.gone(1)
			later(f, 60)
			f.prunes(f.now, 61, 61, f.ago(60))
			h.ReleasedAt = f.ago(8)
			f.hold("hold.released", h)
		}, "a hold was on them"},
		"a hold that is made anew, released": {func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case"}
			f.hold("hold.created", h)
			f.gone(1)
			later(f, 60)
			h.ReleasedAt = f.ago(8)
			f.hold("hold.created", h)
			f.prunes(f.now, 61, 61, f.ago(60))
		}, "a hold was on them"},
		"a hold that covers less": {func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case"}
			f.hold("hold.created", h)
			f.gone(1)
			later(f, 60)
			h.Since, h.ReleasedAt = f.ago(10), f.now
			f.hold("hold.released", h)
			f.prunes(f.now, 61, 61, f.ago(60))
		}, "changes what a hold covers"},
		// An endless look, once, and an explanation of whatever is gone.
		"all there can be": {func(f *forged) {
			f.gone(1)
			f.prunes(f.now, math.MinInt64, math.MaxInt64, f.ago(60))
			if f.found.lost() == nil {
				f.t.Error("it explains what is gone")
			}
		}, "cannot be"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForged(t, 60)
			test.write(f)
			if err := f.found.Fault(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("found: %v", err)
			}
		})
	}
}

// TestPrunedLogOfWrongClocks: where clocks were wrong for a while, what was pruned
// when its time was over is not called false.
func TestPrunedLogOfWrongClocks(t *testing.T) {
	later := func(f *forged, days int) {
		for range days {
			f.day()
		}
	}
	for name, write := range map[string]func(f *forged){
		"right ones": func(f *forged) {
			f.gone(5)
			later(f, 31)
			f.prunes(f.now, 60, 64, f.ago(32))
			later(f, 40)
		},
		"a node's that is a second behind": func(f *forged) {
			f.gone(5)
			later(f, 30)
			f.prunes(f.now.Add(-time.Second), 60, 64, f.ago(30))
			later(f, 40)
		},
		"a month ahead, for some days before": func(f *forged) {
			for range wrongDays {
				f.now = f.now.AddDate(0, 0, 1)
				f.event("session.refused", f.ago(-31), nil)
			}
			f.gone(5)
			later(f, 31)
			f.prunes(f.now, 60+wrongDays, 64+wrongDays, f.ago(32))
			later(f, 40)
		},
		"a year ahead, in the record before": func(f *forged) {
			f.event("mailbox.updated", f.now.AddDate(1, 0, 0), nil)
			f.gone(5)
			f.now = f.now.AddDate(0, 0, 31)
			f.prunes(f.now, 61, 65, f.ago(32))
			later(f, 400)
		},
		"years ahead, for the moment of the pruning": func(f *forged) {
			f.gone(5)
			later(f, 31)
			f.event("session.refused", f.now.AddDate(5, 0, 0), nil)
			f.prunes(f.now.AddDate(5, 0, 0), 60, 64, f.ago(32))
			later(f, 40)
		},
		"at 1970, for some days after": func(f *forged) {
			f.gone(5)
			later(f, 31)
			f.prunes(f.now, 60, 64, f.ago(32))
			for i := range wrongDays {
				f.event("session.refused", time.Unix(int64(i)*secondsOfDay, 0), nil)
			}
			later(f, 40)
		},
		"stepped back by days, after": func(f *forged) {
			f.gone(5)
			later(f, 31)
			f.prunes(f.now, 60, 64, f.ago(32))
			for i := range wrongDays {
				f.event("session.refused", f.ago(20-i), nil)
			}
			later(f, 40)
		},
		"at 1970, beside a hold": func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case", Until: f.ago(30)}
			f.hold("hold.created", h)
			f.event("mailbox.updated", time.Unix(0, 0), nil)
			f.gone(5)
			later(f, 31)
			f.prunes(f.now, 62, 66, f.ago(32))
		},
		"of two nodes, at a hold's edge": func(f *forged) {
			edge := f.now
			h := broker.Hold{ID: broker.NewID(), Reason: "a case", Since: edge}
			f.event("session.refused", edge.Add(time.Second), nil)
			f.found.Add(&Entry{Seq: f.seq}) // of a second before
			f.seq++
			f.event("session.refused", edge.Add(2*time.Second), nil)
			later(f, 40)
			f.hold("hold.created", h)
			f.prunes(f.now, 61, 61, edge.Add(-time.Second))
		},
		"a release's notice that is over": func(f *forged) {
			h := broker.Hold{ID: broker.NewID(), Reason: "a case"}
			f.hold("hold.created", h)
			f.gone(5)
			later(f, 60)
			h.ReleasedAt = f.now
			f.hold("hold.released", h)
			later(f, 7)
			f.prunes(f.now.Add(-time.Second), 61, 65, f.ago(67))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForged(t, 60)
			write(f)
			if err := f.found.Fault(); err != nil {
				t.Error(err)
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
