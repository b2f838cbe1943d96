// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"
	"time"

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

	// A process that was started again lets go of what it held.
	must(t, s.ReleaseWatches(ctx, "node-b"))
	claim(b, false)
	must(t, s.ReleaseWatches(ctx, "node-a"))
	claim(b, true)

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
