// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// testLeases: one process holds a node's lease; one that starts takes it over,
// one that lost it does not; and where a lease is over its sessions end, once.
func testLeases(t *testing.T, w *World) {
	const long, over = time.Hour, -time.Hour
	s := w.Store
	first, second := broker.NewID(), broker.NewID()
	held := func(node string, holder broker.ID, lasts time.Duration) bool {
		t.Helper()
		held, err := s.RenewLease(ctx, node, holder, lasts)
		must(t, err)
		return held
	}
	if held("node-a", first, long) {
		t.Error("a lease that nobody took was prolonged")
	}
	must(t, s.TakeLease(ctx, "node-a", first, long, false))
	if !held("node-a", first, long) || held("node-a", second, long) || held("node-b", first, long) {
		t.Error("not exactly the holder can prolong his lease")
	}
	wantCode(t, s.TakeLease(ctx, "node-a", second, long, false), broker.Conflict)
	must(t, s.TakeLease(ctx, "node-a", second, long, true))
	if held("node-a", first, long) {
		t.Error("who was taken over can prolong the lease")
	}
	wantCode(t, s.TakeLease(ctx, "node-a", first, long, false), broker.Conflict)

	living, dead, never := w.Session("node-a"), w.Session("node-b"), w.Session("node-c")
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Opened(living), w.Opened(dead), w.Opened(never)}))
	must(t, s.TakeLease(ctx, "node-b", first, long, false))
	ended := func() int {
		t.Helper()
		n, err := s.EndLapsedSessions(ctx, "node-a")
		must(t, err)
		return n
	}
	if n := ended(); n != 1 {
		t.Errorf("%d sessions of nodes without a lease ended, want that of node-c", n)
	}
	// A lease that ran out can be prolonged until somebody has ended it.
	for range 2 {
		if !held("node-b", first, over) {
			t.Error("a lease that nobody ended cannot be prolonged")
		}
	}
	if n := ended(); n != 1 {
		t.Errorf("%d sessions ended, want that of node-b", n)
	}
	if held("node-b", first, long) {
		t.Error("a lease was prolonged after its sessions were taken for dead")
	}
	if n := ended(); n != 0 {
		t.Errorf("%d sessions ended again", n)
	}
	live, err := s.Sessions(ctx, true, 0)
	same(t, "live", live, err, []*broker.Session{living})
	must(t, s.TakeLease(ctx, "node-b", first, over, false))
	must(t, s.TakeLease(ctx, "node-b", second, long, false)) // the first's is over

	ends, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: broker.EventSessionEnd})
	must(t, err)
	if len(ends) != 2 {
		t.Fatalf("%d ends are recorded", len(ends))
	}
	for _, e := range ends {
		if e.Data.(broker.SessionEnd).Reason != broker.EndStale || e.Actor.Name != "node-a" {
			t.Errorf("recorded: %s", e.Record)
		}
	}
}
