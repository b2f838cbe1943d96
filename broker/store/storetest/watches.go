// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// testWatches: each mailbox has a watch, one process looks at it, and what came
// of a look is stored with its events or not at all.
func testWatches(t *testing.T, w *World) {
	s := w.Store
	a := broker.WatchClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	b := broker.WatchClaim{Node: "node-b", Holder: broker.NewID(), Lasts: time.Hour}
	claim := func(c broker.WatchClaim, want bool) *broker.Watch {
		t.Helper()
		got, err := s.ClaimWatch(ctx, c)
		must(t, err)
		if (got != nil) != want {
			t.Fatalf("%s was given %+v", c.Node, got)
		}
		return got
	}
	claim(a, false)
	_, err := s.Watch(ctx, w.Mailbox.ID)
	wantCode(t, err, broker.NotFound)
	wantCode(t, s.ProbeSoon(ctx, broker.NewID()), broker.NotFound)
	must(t, s.PrepareWatches(ctx, time.Hour))
	must(t, s.PrepareWatches(ctx, 0)) // it has one
	claim(a, false)                   // it is not due
	must(t, s.ProbeSoon(ctx, w.Mailbox.ID))
	got := claim(a, true)
	claim(b, false)
	if got.MailboxID != w.Mailbox.ID || got.FirmID != w.Firm.ID || !got.ProbedAt.IsZero() {
		t.Errorf("claimed: %+v", got)
	}
	got.ProbedAt, got.Outcome, got.NextAt = time.Now(), broker.WatchDrift, time.Now().Add(time.Hour)
	got.RefusedVersion, got.Refusals = 3, 1
	drift := func() *broker.Event {
		return &broker.Event{Type: broker.EventDrift, Data: broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "no", Probe: true}}
	}
	count := func() int {
		all, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: broker.EventDrift})
		must(t, err)
		for _, e := range all {
			if e.Actor != (broker.Actor{Kind: "system", Name: "node-a"}) || e.MailboxID != w.Mailbox.ID || !e.Data.(broker.Drift).Probe {
				t.Errorf("recorded: %+v", e.Event)
			}
		}
		return len(all)
	}
	wantCode(t, s.FinishWatch(ctx, b, &broker.WatchResult{Watch: *got, Events: []*broker.Event{drift()}}), broker.Conflict)
	if n := count(); n != 0 {
		t.Errorf("%d events of a look that was somebody else's", n)
	}
	must(t, s.FinishWatch(ctx, a, &broker.WatchResult{Watch: *got, Events: []*broker.Event{drift()}, Lock: "wait"}))
	wantCode(t, s.FinishWatch(ctx, a, &broker.WatchResult{Watch: *got}), broker.Conflict)
	claim(b, false)
	locks, err := s.Locks(ctx)
	must(t, err)
	if count() != 1 || len(locks) != 1 || locks[0].TargetID != w.Mailbox.ID || locks[0].Message != "wait" {
		t.Errorf("locks: %+v, %d events", locks, count())
	}
	for _, firm := range []broker.ID{"", w.Firm.ID} {
		all, err := s.Watches(ctx, firm)
		must(t, err)
		if len(all) != 1 || all[0].Outcome != broker.WatchDrift || all[0].RefusedVersion != 3 {
			t.Errorf("watches: %+v", all)
		}
	}
	none, err := s.Watches(ctx, broker.NewID())
	must(t, err)
	if len(none) != 0 {
		t.Errorf("another firm's watches: %+v", none)
	}

	// What is asked for while it is looked at is looked at again, and locked once.
	must(t, s.ProbeSoon(ctx, w.Mailbox.ID))
	got = claim(b, true)
	must(t, s.ProbeSoon(ctx, w.Mailbox.ID))
	got.NextAt = time.Now().Add(time.Hour)
	must(t, s.FinishWatch(ctx, b, &broker.WatchResult{Watch: *got, Lock: "wait"}))
	claim(a, true)
	if locks, err = s.Locks(ctx); err != nil || len(locks) != 1 {
		t.Errorf("locks: %+v, %v", locks, err)
	}

	// What is kept of folders is replaced and forgotten.
	got.NextAt = time.Now().Add(-time.Hour)
	must(t, s.FinishWatch(ctx, a, &broker.WatchResult{Watch: *got, Folders: map[string][]byte{"INBOX": {0, 1}, "Sent": {2}, "Gone": nil}}))
	got = claim(a, true)
	got.NextAt = time.Now().Add(-time.Hour)
	must(t, s.FinishWatch(ctx, a, &broker.WatchResult{Watch: *got, Folders: map[string][]byte{"INBOX": {3}, "Sent": nil}}))
	folders, err := s.WatchedFolders(ctx, w.Mailbox.ID)
	must(t, err)
	if diff := cmp.Diff(map[string][]byte{"INBOX": {3}}, folders); diff != "" {
		t.Errorf("kept of the folders: %s", diff)
	}
	claim(a, true)

	// A process that was started again lets go of what it held.
	must(t, s.ReleaseWatches(ctx, "node-b"))
	claim(b, false)
	must(t, s.ReleaseWatches(ctx, "node-a"))

	// Of a firm that it has enough of it is given none.
	some := b
	some.Without = []broker.ID{w.Firm.ID, broker.NewID()}
	claim(some, false)
	some.Without = some.Without[1:]
	claim(some, true)

	// After a restore there is nothing to compare with.
	got.Source, got.NextAt = "sales@imap.example:993", time.Now()
	must(t, s.FinishWatch(ctx, b, &broker.WatchResult{Watch: *got}))
	must(t, s.BeginEpochs(ctx))
	got, err = s.Watch(ctx, w.Mailbox.ID)
	must(t, err)
	if got.Source != "" || got.MailboxID != w.Mailbox.ID || got.ProbedAt.IsZero() {
		t.Errorf("after a restore: %+v", got)
	}

	for field, bad := range map[string]broker.WatchException{
		"watch.exceptions.folders.allow[0]": {Folders: []string{""}},
		"watch.exceptions.changes":          {Changes: []broker.Bypass{"read"}},
		"watch.exceptions.hours.shifts":     {Hours: policy.Hours{Zone: "Asia/Kolkata"}},
	} {
		m := w.Mailbox
		m.Watch = &broker.WatchTerms{Exceptions: []broker.WatchException{bad}}
		wantField(t, s.UpdateMailbox(ctx, Admin, &m), field)
	}
}

// testMailboxEvents: the events of one mailbox, after one of its log.
func testMailboxEvents(t *testing.T, w *World) {
	s := w.Store
	other := broker.NewID()
	flag := func(mailbox broker.ID) *broker.Event {
		return &broker.Event{Type: broker.EventMessageFlag, FirmID: w.Firm.ID, MailboxID: mailbox, Actor: Admin, Data: broker.MessageChange{Folder: "INBOX", Set: "1"}}
	}
	none, err := s.LogEnd(ctx, broker.NewID())
	must(t, err)
	end, err := s.LogEnd(ctx, w.Firm.ID)
	must(t, err)
	must(t, s.AppendEvents(ctx, []*broker.Event{flag(w.Mailbox.ID), flag(other), flag(w.Mailbox.ID)}))
	after, err := s.LogEnd(ctx, w.Firm.ID)
	must(t, err)
	if none != -1 || after != end+3 {
		t.Errorf("the end of a log that is empty: %d; of another %d, and three events later %d", none, end, after)
	}
	for _, c := range []struct {
		mailbox broker.ID
		after   int64
		want    []int64
	}{
		{w.Mailbox.ID, end, []int64{end + 1, end + 3}},
		{other, end, []int64{end + 2}},
		{w.Mailbox.ID, end + 1, []int64{end + 3}},
		{broker.NewID(), end, nil},
	} {
		all, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, MailboxID: c.mailbox, After: c.after})
		must(t, err)
		var got []int64
		for _, e := range all {
			got = append(got, e.Seq)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("after %d: %s", c.after, diff)
		}
	}
}
