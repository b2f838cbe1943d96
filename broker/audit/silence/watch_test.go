// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

var ctx = context.Background()

// witnessState is broker.Witnesses under a name that its own method leaves free.
type witnessState interface{ broker.Witnesses }

// fakeState is the witnesses and heads of logs, and what was recorded.
type fakeState struct {
	witnessState
	broker.Logs
	all      []*broker.WitnessStanding
	heads    map[broker.ID]*broker.LogHead
	recorded map[broker.ID]time.Time
	err      error
}

func (f *fakeState) AllWitnesses(context.Context) ([]*broker.WitnessStanding, error) {
	return f.all, f.err
}

func (f *fakeState) LogHead(_ context.Context, firm broker.ID) (*broker.LogHead, error) {
	return f.heads[firm], nil
}

func (f *fakeState) RecordSilence(_ context.Context, _ broker.Actor, id broker.ID, since time.Time) error {
	f.recorded[id] = since
	for _, w := range f.all {
		if w.ID == id {
			w.SilentSince = since
		}
	}
	return nil
}

func TestSilence(t *testing.T) {
	began := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	now := began
	firm, other, epoch := broker.NewID(), broker.NewID(), broker.NewID()
	standing := func(of broker.ID, rule broker.WitnessRule, heard time.Time, size int64) *broker.WitnessStanding {
		return &broker.WitnessStanding{
			Witness: broker.Witness{ID: broker.NewID(), FirmID: of, Name: "w", Rule: rule, Silence: 60}, Epoch: epoch, Size: size, HeardAt: heard,
		}
	}
	stops := standing(firm, broker.WitnessStop, began.Add(-time.Hour), 90)
	alarms := standing(other, broker.WitnessAlarm, began.Add(-time.Hour), 10)
	f := &fakeState{
		all:      []*broker.WitnessStanding{stops, alarms},
		heads:    map[broker.ID]*broker.LogHead{firm: {Epoch: epoch, Size: 100}, other: {Epoch: epoch, Size: 10}},
		recorded: map[broker.ID]time.Time{},
	}
	registry := prometheus.NewRegistry()
	w, err := New(Config{Witnesses: f, Logs: f, Node: "node-1", Logger: zap.NewNop(), Registerer: registry, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		if err := w.Look(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if !w.Stopped(firm) || !w.Stopped(other) {
		t.Error("sessions are opened before the witnesses were looked at")
	}
	// While the server was down nobody could be heard.
	now = began.Add(time.Minute)
	look()
	if w.Stopped(firm) || len(f.recorded) > 0 {
		t.Errorf("a minute after the start: %v", f.recorded)
	}
	if got := testutil.ToFloat64(w.metrics.events); got != 10 {
		t.Errorf("%v events are not witnessed", got)
	}
	if got := testutil.ToFloat64(w.metrics.seconds); got != 3660 {
		t.Errorf("for %v s", got)
	}
	now = now.Add(time.Second)
	if !w.Stopped(firm) { // by the time alone
		t.Error("sessions go on being opened")
	}
	look()
	if !f.recorded[stops.ID].Equal(stops.HeardAt) || !f.recorded[alarms.ID].Equal(alarms.HeardAt) || testutil.ToFloat64(w.metrics.silent) != 2 {
		t.Errorf("recorded: %v", f.recorded)
	}
	if w.Stopped(other) || w.Stopped(broker.NewID()) {
		t.Error("an alarm stops sessions")
	}
	// What was silent is so at once after a restart.
	again, err := New(Config{Witnesses: f, Logs: f, Node: "node-1", Logger: zap.NewNop(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Look(ctx); err != nil || !again.Stopped(firm) {
		t.Errorf("after a restart sessions are opened: %v", err)
	}
	stops.HeardAt, stops.SilentSince, stops.Size = now, time.Time{}, 100
	look()
	if w.Stopped(firm) || testutil.ToFloat64(w.metrics.events) != 0 {
		t.Error("heard again, and nothing is opened")
	}
	// A witness of the old epoch has cosigned nothing of the new.
	f.heads[firm] = &broker.LogHead{Epoch: broker.NewID(), Size: 100}
	look()
	if got := testutil.ToFloat64(w.metrics.events); got != 100 {
		t.Errorf("%v events are not witnessed in a new epoch", got)
	}
	// What cannot be read any more falls silent.
	f.err = errors.New("down")
	if err := w.Look(ctx); err == nil {
		t.Error("an outage is no error")
	}
	now = now.Add(61 * time.Second)
	if !w.Stopped(firm) {
		t.Error("a witness that nobody can have heard stops nothing")
	}
	f.err, f.all = nil, nil
	look()
	if w.Stopped(firm) {
		t.Error("a witness that was removed stops sessions")
	}
}
