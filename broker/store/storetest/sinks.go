// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
)

// testSinks: one process at a time delivers to a sink, its places in the logs
// are its own, and nobody who has lost it moves them.
func testSinks(t *testing.T, w *World) {
	s := w.Store
	a := broker.SinkClaim{Sink: "siem", Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	b := broker.SinkClaim{Sink: "siem", Node: "node-b", Holder: broker.NewID(), Lasts: time.Hour}
	claim := func(c broker.SinkClaim, fromStart, want bool) *broker.SinkState {
		t.Helper()
		got, err := s.ClaimSink(ctx, c, fromStart)
		must(t, err)
		if (got != nil) != want {
			t.Fatalf("%s was given %+v", c.Node, got)
		}
		return got
	}
	positions := func(sink string) map[broker.ID]int64 {
		t.Helper()
		got, err := s.SinkPositions(ctx, sink)
		must(t, err)
		return got
	}
	lag := func(sink string, firm *broker.ID) broker.SinkLag {
		t.Helper()
		got, err := s.SinkLag(ctx, sink, firm)
		must(t, err)
		return got
	}
	ends, err := s.LogEnds(ctx)
	must(t, err)
	last, err := s.LogEnd(ctx, w.Firm.ID)
	must(t, err)
	if ends[w.Firm.ID] != last+1 || ends[""] == 0 {
		t.Fatalf("ends: %v, and the firm's log ends at %d", ends, last)
	}

	claim(a, false, true)
	claim(b, false, false)
	claim(a, false, true) // it is his
	if diff := cmp.Diff(ends, positions("siem")); diff != "" {
		t.Errorf("a new sink begins elsewhere (-ends +got):\n%s", diff)
	}
	if got := lag("siem", nil); got != (broker.SinkLag{}) {
		t.Errorf("a new sink is behind: %+v", got)
	}
	old := b
	old.Sink = "archive"
	claim(old, true, true)
	if got := positions("archive"); len(got) != 0 {
		t.Errorf("a sink from the start begins at %v", got)
	}
	var all int64
	for _, end := range ends {
		all += end
	}
	if got := lag("archive", nil); got.Events != all || got.Oldest.IsZero() {
		t.Errorf("a sink from the start: %+v of %d events", got, all)
	}

	// What is added is told, and due; by firm.
	var mu sync.Mutex
	told := map[broker.ID]int{}
	cancel := s.SubscribeAppends(func(log broker.ID) {
		mu.Lock()
		defer mu.Unlock()
		told[log]++
	})
	other := broker.NewID()
	before := time.Now()
	must(t, s.AppendEvents(ctx, []*broker.Event{
		{Type: broker.EventAuthFailed, Data: broker.AuthFailed{}},
		{Type: broker.EventAuthFailed, Data: broker.AuthFailed{}, FirmID: w.Firm.ID},
		{Type: broker.EventAuthFailed, Data: broker.AuthFailed{}, FirmID: other},
	}))
	cancel()
	must(t, s.AppendEvents(ctx, []*broker.Event{{Type: broker.EventAuthFailed, Data: broker.AuthFailed{}, FirmID: other}}))
	if diff := cmp.Diff(map[broker.ID]int{"": 1, w.Firm.ID: 1, other: 1}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if got := lag("siem", nil); got.Events != 4 || got.Oldest.Before(before.Add(-time.Minute)) {
		t.Errorf("lag: %+v", got)
	}
	for firm, want := range map[broker.ID]int64{"": 1, w.Firm.ID: 1, other: 2, broker.NewID(): 0} {
		if got := lag("siem", &firm); got.Events != want {
			t.Errorf("lag in one log: %+v, not %d", got, want)
		}
	}

	// Whoever holds it moves it.
	since := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	must(t, s.KeepSink(ctx, a, broker.SinkProgress{
		Next: map[broker.ID]int64{w.Firm.ID: last + 2, other: 1}, FailingSince: since, Failure: "it answers \xff 500",
	}))
	wantCode(t, s.KeepSink(ctx, b, broker.SinkProgress{Next: map[broker.ID]int64{other: 2}}), broker.Conflict)
	want := map[broker.ID]int64{"": ends[""], w.Firm.ID: last + 2, other: 1}
	if diff := cmp.Diff(want, positions("siem")); diff != "" {
		t.Errorf("positions (-want +got):\n%s", diff)
	}
	if got := lag("siem", nil); got.Events != 2 {
		t.Errorf("lag: %+v", got)
	}
	states, err := s.SinkStates(ctx)
	must(t, err)
	if len(states) != 2 || states[0].Sink != "archive" || states[0].Node != "node-b" || !states[0].FailingSince.IsZero() ||
		*states[1] != (broker.SinkState{Sink: "siem", Node: "node-a", FailingSince: since, Failure: "it answers \uFFFD 500"}) {
		t.Errorf("states: %+v", states)
	}

	// A node that begins anew lets go of what it held; a claim that is over goes
	// to whoever asks.
	must(t, s.ReleaseSinks(ctx, "node-a"))
	wantCode(t, s.KeepSink(ctx, a, broker.SinkProgress{}), broker.Conflict)
	b.Lasts = time.Microsecond
	if got := claim(b, true, true); got.Failure == "" || got.FailingSince != since {
		t.Errorf("the next holder does not know that it fails: %+v", got)
	}
	wantCode(t, s.KeepSink(ctx, b, broker.SinkProgress{}), broker.Conflict)
	if diff := cmp.Diff(want, positions("siem")); diff != "" {
		t.Errorf("the next holder begins elsewhere (-want +got):\n%s", diff)
	}
	claim(a, true, true)
	must(t, s.KeepSink(ctx, a, broker.SinkProgress{}))
	if states, err = s.SinkStates(ctx); err != nil || states[1].Failure != "" || states[1].Node != "node-a" {
		t.Errorf("states: %+v, %v", states, err)
	}
}
