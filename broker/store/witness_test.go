// SPDX-License-Identifier: Apache-2.0

package store

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// TestNever6FrozenCheckpointIsSilence: a witness that cosigns one checkpoint again
// and again, since no other is signed, pins nothing of what is recorded meanwhile:
// that is its silence, and stays it.
func TestNever6FrozenCheckpointIsSilence(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock atomic.Pointer[time.Time]
	at := func(seconds int) time.Time {
		x := begin.Add(time.Duration(seconds) * time.Second)
		clock.Store(&x)
		return x
	}
	at(0)
	s := open(t, Config{Now: func() time.Time { return *clock.Load() }})
	w := storetest.Build(t, s)
	x := broker.Witness{FirmID: w.Firm.ID, Key: storetest.WitnessKey(t, "one.example"), Rule: broker.WitnessStop, Silence: 10}
	must(t, s.CreateWitness(ctx, storetest.Admin, &x))
	h, err := s.LogHead(ctx, w.Firm.ID)
	must(t, err)
	cosign := func(h *broker.LogHead, now time.Time) *broker.WitnessStanding {
		t.Helper()
		must(t, s.KeepCosignature(ctx, x.ID, &broker.Cosigned{Epoch: h.Epoch, Size: h.Size, Root: h.Root, Note: "cosigned", At: now}))
		all, err := s.Witnesses(ctx, w.Firm.ID)
		must(t, err)
		return all[0]
	}
	if got := cosign(h, at(100)); !got.HeardAt.Equal(at(100)) {
		t.Fatalf("heard at %s, though the log is all cosigned", got.HeardAt)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("x")}))
	if got := cosign(h, at(105)); !got.HeardAt.Equal(begin.Add(100 * time.Second)) {
		t.Errorf("heard at %s, though nothing after the first 100 s is cosigned", got.HeardAt)
	}
	silent := begin.Add(100 * time.Second)
	must(t, s.RecordSilence(ctx, broker.Actor{Kind: "system", Name: "node-1"}, x.ID, silent))
	if got := cosign(h, at(200)); !got.SilentSince.Equal(silent) || !got.HeardAt.Equal(silent) {
		t.Errorf("after the same checkpoint once more: %+v", got)
	}
	if h, err = s.LogHead(ctx, w.Firm.ID); err != nil {
		t.Fatal(err)
	}
	if got := cosign(h, at(201)); !got.SilentSince.IsZero() || !got.HeardAt.Equal(at(201)) {
		t.Errorf("after a new checkpoint: %+v", got)
	}
}
