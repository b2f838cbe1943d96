// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

var node = broker.Actor{Kind: "system", Name: "node-a"}

// retained is a world whose clock is moved.
type retained struct {
	*World
	now atomic.Pointer[time.Time]
}

func (w *retained) at(t time.Time) { w.now.Store(&t) }

// due counts what is due where records are kept for thirty days.
func (w *retained) due(t *testing.T, holds ...broker.Hold) (n int64) {
	t.Helper()
	for _, e := range All(t, w.Store, w.Firm.ID) {
		held := slices.ContainsFunc(holds, func(h broker.Hold) bool { return h.Covers(e.Time) })
		if !held && !e.Type.KeptForEver() && e.Time.Before(w.now.Load().AddDate(0, 0, -30)) {
			n++
		}
	}
	return n
}

// prune prunes until there is no more to do and so many records are gone: it waits
// for events to have their keys and to be in the index.
func (w *retained) prune(t *testing.T, want int64) {
	t.Helper()
	total := int64(0)
	for began := time.Now(); ; <-time.After(20 * time.Millisecond) {
		tasks, err := w.Store.PruneTasks(ctx, *w.now.Load())
		must(t, err)
		n := int64(0)
		for _, task := range tasks {
			for task.From < task.To {
				count, next, err := w.Store.Prune(ctx, node, task)
				must(t, err)
				if next <= task.From || next > task.To {
					t.Fatalf("after %+v it goes on at %d", task, next)
				}
				task.From = next
				n += count
			}
		}
		total += n
		unindexed, err := w.Store.Unindexed(ctx)
		must(t, err)
		if unindexed == 0 && n == 0 && total >= want {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d records were pruned of %d, %d events are not in the index", total, want, unindexed)
		}
	}
	if total != want {
		t.Fatalf("%d records were pruned, want %d", total, want)
	}
}

// opened is an opening of one message.
func (w *retained) opened(at time.Time, uid int) *broker.Event {
	e := w.Event(broker.EventMessageOpen, broker.MessageOpen{
		Folder: "INBOX", UIDValidity: 7,
		Messages: []broker.OpenedMessage{{UID: uint32(uid), Section: "BODY[]", Octets: 10, MessageID: fmt.Sprintf("<%d@x.example>", uid)}},
	})
	e.Time = at
	return e
}

// Entries returns a whole log as it is proved.
func Entries(t testing.TB, s Store, firm broker.ID) (all []*broker.LogEntry) {
	t.Helper()
	for {
		some, err := s.LogEntries(ctx, firm, int64(len(all)), 4096)
		must(t, err)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}

// record appends events, few at a time: a slow machine's transactions are short.
func (w *retained) record(t *testing.T, events []*broker.Event) {
	t.Helper()
	for some := range slices.Chunk(events, 100) {
		must(t, w.Store.AppendEvents(ctx, some))
	}
}

func (w *retained) check(t *testing.T, firm broker.ID) (gone []int64) {
	t.Helper()
	return CheckPruned(t, w.Store, firm)
}

// CheckPruned finds that a log's tree stands, and that its pruning events name just
// what has no record; it returns the numbers of that.
func CheckPruned(t testing.TB, s Store, firm broker.ID) (gone []int64) {
	t.Helper()
	var tree translog.Tree
	for i, e := range Entries(t, s, firm) {
		if e.Seq != int64(i) {
			t.Fatalf("event %d has the number %d", i, e.Seq)
		}
		if (e.Record == nil) != (e.Salt == nil) || e.Record != nil && tlog.RecordHash(append(slices.Clone(e.Salt), e.Record...)) != e.LeafHash {
			t.Fatalf("event %d is not what its hash covers", i)
		}
		if e.Record == nil {
			gone = append(gone, e.Seq)
		}
		tree.Add(e.LeafHash, nil)
	}
	h, err := s.LogHead(ctx, firm)
	must(t, err)
	if h.Size != tree.Size() || tlog.Hash(h.Root) != tree.Root() {
		t.Fatal("the tree is not that of the entries")
	}
	var named []int64
	for _, e := range All(t, s, firm) {
		if e.Type != broker.EventLogPruned {
			continue
		}
		p, count := e.Data.(broker.LogPruned), int64(0)
		for _, x := range p.Spans {
			for seq := x.First; seq <= x.Last; seq++ {
				named = append(named, seq)
				count++
			}
			if x.Last >= e.Seq || x.Until.Before(x.Since) || !x.Until.Before(p.Before) || e.Time.Sub(x.Until) < broker.MinRetentionDays*24*time.Hour {
				t.Errorf("an implausible pruning: %s", e.Record)
			}
		}
		if count != p.Count {
			t.Errorf("it counts wrongly: %s", e.Record)
		}
	}
	slices.Sort(named)
	if !slices.Equal(gone, named) {
		t.Fatalf("without a record are %d, and pruning events name %d", gone, named)
	}
	return gone
}

// RunRetention tests how records are kept and pruned in stores whose clock the
// test moves.
func RunRetention(t *testing.T, open func(t *testing.T, now func() time.Time) Store) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]func(*testing.T, *retained, time.Time){
		"Prune": testPrune, "Set": testSetRetention, "Sides": testHoldSides, "Sessions": testPruneSessions, "Time": testPruneTime,
	} {
		t.Run(name, func(t *testing.T) {
			w := new(retained)
			w.at(begin)
			w.World = Build(t, open(t, func() time.Time { return *w.now.Load() }))
			test(t, w, begin)
		})
	}
}

// testPruneTime: it begins with the clock, follows it by steps, and is never ahead
// of it.
func testPruneTime(t *testing.T, w *retained, begin time.Time) {
	day := 24 * time.Hour
	begin = begin.AddDate(1, 0, 0) // a clock a day behind it is set all the same
	for _, test := range []struct{ clock, step, want time.Duration }{
		{-20000 * day, time.Hour, -20000 * day}, // not set yet
		{0, time.Hour, 0},
		{10 * time.Minute, time.Hour, 10 * time.Minute},
		{365 * day, time.Hour, 70 * time.Minute},
		{365*day + time.Second, time.Hour, 70*time.Minute + 2*time.Second}, // of another node, or a server that starts again
		{366 * day, time.Hour, 130*time.Minute + 2*time.Second},
		{time.Hour, time.Hour, time.Hour},
		{-day, time.Hour, -day},
		{0, time.Hour, 0}, // back to where it was, or less
		{2 * time.Hour, time.Hour, time.Hour},
	} {
		w.at(begin.Add(test.clock))
		at, clock, err := w.Store.PruneTime(ctx, test.step)
		must(t, err)
		if want := begin.Add(test.want); !at.Equal(want) || !clock.Equal(*w.now.Load()) {
			t.Fatalf("%+v: at %s by a clock of %s, want %s", test, at, clock, want)
		}
	}
}

// testPrune: of what is over its time and not held, the hashes are left.
func testPrune(t *testing.T, w *retained, begin time.Time) {
	day := 24 * time.Hour
	days := 30
	var events []*broker.Event
	for i := range 500 {
		events = append(events, w.opened(begin.Add(time.Duration(i)*time.Hour), i+1))
	}
	w.record(t, events)
	w.at(begin.Add(1000 * day))
	w.prune(t, 0) // nobody asked for it
	set := begin.Add(100 * day)
	w.at(set)
	must(t, w.Store.SetRetention(ctx, Admin, w.Firm.ID, &days))
	hold := broker.Hold{FirmID: w.Firm.ID, Reason: "FIR 12/2026", Since: begin.Add(10 * day), Until: begin.Add(11 * day)}
	must(t, w.Store.CreateHold(ctx, Admin, &hold))
	w.at(set.Add(broker.RetentionNotice - time.Second))
	w.prune(t, 0)
	young := w.opened(set.Add(broker.RetentionNotice), 1000)
	must(t, w.Store.AppendEvents(ctx, []*broker.Event{young}))
	w.at(set.Add(broker.RetentionNotice))
	// Of 500 are held 24.
	before := len(Entries(t, w.Store, w.Firm.ID))
	w.prune(t, w.due(t, hold))
	gone := w.check(t, w.Firm.ID)
	var kept []broker.EventType
	held := 0
	for _, e := range All(t, w.Store, w.Firm.ID) {
		switch {
		case e.Type != broker.EventMessageOpen:
			kept = append(kept, e.Type)
		case hold.Covers(e.Time):
			held++
		case !e.Time.Equal(young.Time):
			t.Errorf("event %d of %s is still there", e.Seq, e.Time)
		}
	}
	if len(gone) < 476 || held != 24 || len(gone) >= before {
		t.Fatalf("%d are gone, %d are held", len(gone), held)
	}
	for _, typ := range []broker.EventType{"mailbox.created", "delegation.created", "assignment.created", "retention.updated", "hold.created"} {
		if !slices.Contains(kept, typ) {
			t.Errorf("%s was pruned: %s is left", typ, kept)
		}
	}
	// Questions find what there is, by either index.
	found, _, err := w.Store.SubjectEvents(ctx, broker.SubjectQuery{Subjects: []broker.ID{w.Agent.ID}, FirmID: w.Firm.ID, Activities: []broker.Activity{broker.ActivityRead}})
	must(t, err)
	counts, err := w.Store.CountSubjects(ctx, broker.SubjectQuery{Subjects: []broker.ID{w.Agent.ID}, FirmID: w.Firm.ID, Activities: []broker.Activity{broker.ActivityRead}}, 0)
	must(t, err)
	counted := int64(0)
	for _, c := range counts {
		counted += c.Events
	}
	if len(found) != 25 || counted != 25 {
		t.Errorf("%d openings are found, %d are counted", len(found), counted)
	}
	for uid, want := range map[string]int{"<5@x.example>": 0, "<245@x.example>": 1, "<1000@x.example>": 1} {
		found, _, err := w.Store.MessageEvents(ctx, broker.MessageQuery{MessageID: uid})
		must(t, err)
		if len(found) != want {
			t.Errorf("%d openings of %s", len(found), uid)
		}
	}
	standing, err := w.Store.Retention(ctx, w.Firm.ID)
	must(t, err)
	if last := begin.Add(499 * time.Hour); standing.Days != 30 || !standing.PrunedUntil.Equal(last) {
		t.Errorf("standing: %+v, want pruned until %s", standing, last)
	}

	released := set.Add(10 * day)
	w.at(released)
	_, err = w.Store.ReleaseHold(ctx, Admin, hold.ID, "the case is closed")
	must(t, err)
	w.at(released.Add(broker.RetentionNotice - time.Second))
	w.prune(t, w.due(t, hold))
	if more := len(w.check(t, w.Firm.ID)); more < len(gone) || more-len(gone) >= 24 {
		t.Fatalf("%d more were pruned before the hold was over", more-len(gone))
	}
	w.at(released.Add(broker.RetentionNotice))
	w.prune(t, w.due(t))
	if more := len(w.check(t, w.Firm.ID)); more < len(gone)+24 {
		t.Fatalf("%d more were pruned after the hold was over", more-len(gone))
	}
}

// testSetRetention: the minimum is told, holds for firms that went below it before,
// and each change is on record where it counts.
func testSetRetention(t *testing.T, w *retained, begin time.Time) {
	s, day := w.Store, 24*time.Hour
	effective := func(want int) {
		t.Helper()
		got, err := s.Retention(ctx, w.Firm.ID)
		must(t, err)
		if got.Days != want {
			t.Fatalf("kept for %d days, want %d: %+v", got.Days, want, got)
		}
	}
	number := func(n int) *int { return &n }
	effective(0)
	for _, bad := range []int{-1, 1, 29, broker.MaxRetentionDays + 1} {
		wantField(t, s.SetRetention(ctx, Admin, w.Firm.ID, &bad), "days")
	}
	wantCode(t, s.SetRetention(ctx, Admin, broker.NewID(), number(40)), broker.Invalid)
	must(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Minimum: number(60)}))
	wantField(t, s.SetRetention(ctx, Admin, w.Firm.ID, number(59)), "days")
	wantField(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Minimum: number(0)}), "minimum_days")
	wantField(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Default: number(59)}), "default_days")
	wantField(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Own: number(29)}), "own_days")

	must(t, s.SetRetention(ctx, Admin, w.Firm.ID, number(90)))
	effective(0)
	w.at(begin.Add(8 * day))
	effective(90)
	must(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Minimum: number(120)}))
	effective(120)
	must(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Minimum: number(30), Default: number(200)}))
	effective(120)
	w.at(begin.Add(16 * day))
	effective(90)
	must(t, s.SetRetention(ctx, Admin, w.Firm.ID, nil))
	effective(200)
	must(t, s.SetRetention(ctx, Admin, w.Firm.ID, number(0)))
	effective(0)
	must(t, s.SetRetention(ctx, Admin, w.Firm.ID, number(0))) // nothing new

	events, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: "retention.updated"})
	must(t, err)
	if len(events) != 6 { // three times the rules, three its own
		t.Errorf("the firm's log has %d changes", len(events))
	}
	must(t, s.SetRetentionRules(ctx, Admin, broker.RetentionWish{Own: number(365)}))
	events, err = s.Events(ctx, broker.EventQuery{After: -1, Type: "retention.updated"})
	must(t, err)
	if len(events) != 4 {
		t.Errorf("the BPO's log has %d changes", len(events))
	}
	again, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: "retention.updated"})
	must(t, err)
	if len(again) != 6 {
		t.Errorf("how long the BPO's own log is kept stands in a firm's")
	}
}

// testHoldSides: each side places holds, and releases its own alone.
func testHoldSides(t *testing.T, w *retained, begin time.Time) {
	s := w.Store
	theirs := broker.Actor{Kind: string(broker.RoleFirmAdmin), Name: "asha"}
	byFirm, byBPO := broker.Hold{FirmID: w.Firm.ID, Reason: "a dispute"}, broker.Hold{FirmID: w.Firm.ID, Reason: "a subpoena"}
	must(t, s.CreateHold(ctx, theirs, &byFirm))
	must(t, s.CreateHold(ctx, Admin, &byBPO))
	if !byFirm.OfFirm || byBPO.OfFirm {
		t.Errorf("%+v %+v", byFirm, byBPO)
	}
	wantCode(t, second(s.ReleaseHold(ctx, Admin, byFirm.ID, "over")), broker.Refused)
	wantCode(t, second(s.ReleaseHold(ctx, theirs, byBPO.ID, "over")), broker.Refused)
	wantField(t, second(s.ReleaseHold(ctx, theirs, byFirm.ID, "")), "reason")
	wantCode(t, second(s.ReleaseHold(ctx, theirs, broker.NewID(), "over")), broker.NotFound)
	wantField(t, s.CreateHold(ctx, Admin, &broker.Hold{FirmID: w.Firm.ID}), "reason")
	wantField(t, s.CreateHold(ctx, Admin, &broker.Hold{FirmID: w.Firm.ID, Reason: "x", Since: begin, Until: begin}), "until")
	wantField(t, s.CreateHold(ctx, Admin, &broker.Hold{FirmID: broker.NewID(), Reason: "x"}), "firm")
	done, err := s.ReleaseHold(ctx, theirs, byFirm.ID, "settled")
	must(t, err)
	if done.ReleaseReason != "settled" || done.ReleasedBy.Name != "asha" || !done.Stands(begin) {
		t.Errorf("released: %+v", done)
	}
	wantCode(t, second(s.ReleaseHold(ctx, theirs, byFirm.ID, "again")), broker.Conflict)
	all, err := s.Holds(ctx, &w.Firm.ID)
	must(t, err)
	if len(all) != 2 {
		t.Errorf("%d holds", len(all))
	}
}

// testPruneSessions: a session's row goes with the record of its end.
func testPruneSessions(t *testing.T, w *retained, begin time.Time) {
	days, day := 30, 24*time.Hour
	must(t, w.Store.SetRetention(ctx, Admin, w.Firm.ID, &days))
	over, live := w.Session("node-a"), w.Session("node-a")
	opened := []*broker.Event{w.Opened(over), w.Opened(live)}
	end := w.Event(broker.EventSessionEnd, &broker.SessionEnd{Reason: broker.EndLogout})
	end.SessionID = over.ID
	must(t, w.Store.AppendEvents(ctx, append(opened, end)))
	w.at(begin.Add(60 * day))
	w.prune(t, w.due(t))
	w.check(t, w.Firm.ID)
	all, err := w.Store.Sessions(ctx, false, 0)
	same(t, "sessions", all, err, []*broker.Session{live})
	events, err := w.Store.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, SessionID: over.ID})
	must(t, err)
	if len(events) != 0 {
		t.Errorf("the session has %d events", len(events))
	}
}

// RunPruneTogether has two stores of one database prune it at once, while events
// come.
func RunPruneTogether(t *testing.T, open func(now func() time.Time) (one, other Store)) {
	const events = 1500
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := new(retained)
	w.at(begin)
	one, other := open(func() time.Time { return *w.now.Load() })
	w.World = Build(t, one)
	days := broker.MinRetentionDays
	must(t, one.SetRetention(ctx, Admin, w.Firm.ID, &days))
	var batch []*broker.Event
	for i := range events {
		batch = append(batch, w.opened(begin, i+1))
	}
	w.record(t, batch)
	w.at(begin.AddDate(0, 0, 60))
	for began := time.Now(); ; <-time.After(20 * time.Millisecond) {
		tasks, err := other.PruneTasks(ctx, *w.now.Load())
		must(t, err)
		if len(tasks) == 1 && tasks[0].To >= events {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("not in the index: %+v", tasks)
		}
	}
	var all sync.WaitGroup
	for _, s := range []Store{one, other} {
		all.Go(func() {
			for began, left := time.Now(), true; left; {
				var err error
				if left, err = pruneOnce(s, *w.now.Load()); err != nil && (broker.CodeOf(err) != broker.Unavailable || time.Since(began) > time.Minute) {
					t.Error(err) // a slow machine's timeouts aside
					return
				}
			}
		})
		all.Go(func() {
			for i := range 50 {
				if err := s.AppendEvents(ctx, []*broker.Event{w.Refused(fmt.Sprint(i))}); err != nil && broker.CodeOf(err) != broker.Unavailable {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if gone := CheckPruned(t, one, w.Firm.ID); len(gone) < events {
		t.Errorf("%d are pruned", len(gone))
	}
}

// pruneOnce prunes what is due. After an error there may be some left.
func pruneOnce(s Store, at time.Time) (left bool, err error) {
	tasks, err := s.PruneTasks(ctx, at)
	for _, task := range tasks {
		for err == nil && task.From < task.To {
			_, task.From, err = s.Prune(ctx, node, task)
		}
	}
	return err != nil, err
}
