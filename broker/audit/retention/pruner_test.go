// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// TestNever6ClockJump: a clock that jumps ahead destroys nothing within the days in
// which somebody sees the warning, whether the server runs on or is started again;
// when it is right pruning goes on, and catches up after the server was off.
func TestNever6ClockJump(t *testing.T) {
	const days = broker.MinRetentionDays
	const ofADay = int(24 * time.Hour / interval)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "postern.db")
	right := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	clock.Store(&right)
	at := func(x time.Time) { clock.Store(&x) }
	open := func() (*store.Store, *Pruner) {
		t.Helper()
		s, err := store.Open(ctx, store.Config{Path: path, Logger: zap.NewNop(), Now: func() time.Time { return *clock.Load() }})
		must(t, err)
		p, err := New(Config{Store: s, Node: "node-a", Logger: zap.NewNop()})
		must(t, err)
		return s, p
	}
	s, p := open()
	w := storetest.Build(t, s)
	kept := days
	must(t, s.SetRetention(ctx, storetest.Admin, w.Firm.ID, &kept))
	right = right.AddDate(0, 0, 25)
	at(right)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("before the jump")}))
	for n := int64(1); n > 0; <-time.After(10 * time.Millisecond) {
		var err error
		n, err = s.Unindexed(ctx)
		must(t, err)
	}
	rounds := func(n int) (pruned int64) {
		t.Helper()
		for range n {
			at(clock.Load().Add(interval))
			k, err := p.Round(ctx)
			must(t, err)
			pruned += k
		}
		return pruned
	}
	if n := rounds(1); n != 0 {
		t.Fatalf("%d records were pruned that are of the day", n)
	}
	at(right.AddDate(10, 0, 0))
	if n := rounds(ofADay); n != 0 {
		t.Errorf("%d records were pruned since the clock is ahead", n)
	}
	must(t, s.Close())
	s, p = open()
	if n := rounds(ofADay); n != 0 {
		t.Errorf("%d records were pruned since the server came back with a clock that is ahead", n)
	}
	at(right.AddDate(0, 0, 1))
	if n := rounds(ofADay); n != 0 {
		t.Errorf("%d records were pruned that are of the day before", n)
	}
	at(right.AddDate(0, 0, 7)) // as after some days in which the server was off
	if n := rounds(ofADay); n != 0 {
		t.Errorf("%d records were pruned as soon as the server was back", n)
	}
	if n := rounds(3 * ofADay); n == 0 {
		t.Error("nothing was pruned when the records were due")
	}
	must(t, s.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
