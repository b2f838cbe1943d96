// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
)

// directLog appends to a store, unless it is broken.
type directLog struct {
	store  *store.Store
	broken bool
}

func (l *directLog) Append(ctx context.Context, events ...*broker.Event) error {
	if l.broken {
		return broker.Errorf(broker.Unavailable, "broken")
	}
	return l.store.AppendEvents(ctx, events)
}

func (l *directLog) Submit(*broker.Event) *broker.Receipt { panic("not for outages") }

// TestOutagesAreAlerts: of what is out of reach for a minute, at once or, where
// nothing could be recorded, after it; also when the server started anew in the
// middle.
func TestOutagesAreAlerts(t *testing.T) {
	ctx := t.Context()
	began := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var passed atomic.Int64 // the store's goroutines read the clock too
	now := func() time.Time { return began.Add(time.Duration(passed.Load())) }
	s, err := store.Open(ctx, store.Config{
		Path: filepath.Join(t.TempDir(), "postern.db"), Logger: zap.NewNop(), Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	log := &directLog{store: s}
	down := map[string]bool{}
	var checks []check
	for _, name := range []string{"store", "credentials"} {
		checks = append(checks, check{name, func(context.Context) error {
			if down[name] {
				return broker.Errorf(broker.Unavailable, "%s is down", name)
			}
			return nil
		}})
	}
	start := func() *outages {
		return &outages{checks: checks, log: log, alerts: s, node: "a", logger: zap.NewNop(), now: now}
	}
	o := start()
	pass := func(d time.Duration) {
		for end := now().Add(d); now().Before(end); {
			passed.Add(int64(outageInterval))
			o.look(ctx)
		}
	}
	open := func(kind broker.AlertKind) []*broker.Alert {
		t.Helper()
		all, err := s.Alerts(ctx, broker.AlertQuery{OwnOnly: true, Kind: kind, States: []broker.AlertState{broker.AlertOpen}})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}

	pass(time.Minute)
	down["credentials"] = true
	pass(40 * time.Second) // is no outage
	down["credentials"] = false
	pass(time.Minute)
	if got := open(""); len(got) > 0 {
		t.Fatalf("after less than a minute: %+v", got[0])
	}
	down["credentials"] = true
	pass(5 * time.Minute)
	if got := open(""); len(got) != 1 || got[0].Detail != "credentials on a: credentials is down" || got[0].Count != 1 {
		t.Fatalf("Vault is down: %+v", got)
	}
	o = start() // after a crash
	down["credentials"] = false
	pass(outageInterval)
	if got := open(""); len(got) > 0 {
		t.Errorf("Vault is back: %+v", got[0])
	}

	down["store"], log.broken = true, true
	pass(5 * time.Minute)
	down["store"] = false
	pass(time.Minute) // and the log is not there yet
	log.broken = false
	pass(outageInterval)
	if got := open(""); len(got) != 1 || got[0].Kind != broker.AlertUnrecorded || got[0].Detail != "store on a, for 6m0s" {
		t.Errorf("after nothing could be recorded: %+v", got)
	}

	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(newAlertMetrics(s)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || len(families[0].Metric) != 6 {
		t.Fatalf("metrics: %v, %v", families, err)
	}
	for _, m := range families[0].Metric {
		labels := m.Label[0].GetValue() + " " + m.Label[1].GetValue()
		want := 0.0
		if labels == "warning open" {
			want = 1
		}
		if m.Gauge.GetValue() != want {
			t.Errorf("%s: %v", labels, m.Gauge.GetValue())
		}
	}
}
