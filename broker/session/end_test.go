// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker"
)

func TestEndIsRecordedOnce(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	s := w.open(t)
	s.End(&broker.End{Reason: broker.EndLogout}, &broker.SessionEnd{OctetsDown: 7, Opened: 2})
	s.End(&broker.End{Reason: broker.EndInternal}, nil)
	events := w.log.of(broker.EventSessionEnd)
	if len(events) != 1 {
		t.Fatalf("%d events", len(events))
	}
	d := events[0].Data.(broker.SessionEnd)
	if d.Reason != broker.EndLogout || d.OctetsDown != 7 || d.Opened != 2 || d.OpenedAt != s.Record().OpenedAt {
		t.Errorf("data %+v", d)
	}
	if events[0].Actor.Name != "anna" || events[0].SessionID != s.Record().ID {
		t.Errorf("event %+v", events[0])
	}
	if ended(t, s).Reason != broker.EndLogout || len(w.manager.Live()) != 0 {
		t.Error("it lives on")
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("Check after the end")
	}
}

func TestEndSession(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	s := w.open(t)
	admin := broker.Actor{Kind: "admin", Name: "unix:uid=0"}
	if err := w.manager.EndSession(t.Context(), admin, broker.NewID()); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("an unknown session: %v", err)
	}
	if err := w.manager.EndSession(t.Context(), admin, s.Record().ID); err != nil {
		t.Fatal(err)
	}
	if end := ended(t, s); end.Reason != broker.EndByAdmin || !strings.Contains(end.Text, "administrator") {
		t.Errorf("end %+v", end)
	}
	if err := w.manager.EndSession(t.Context(), admin, s.Record().ID); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("a second time: %v", err)
	}
	if infos := w.manager.Sessions(); len(infos) != 1 || !infos[0].Ending {
		t.Errorf("sessions %+v: its connections are not closed yet", infos)
	}
	// What the proxy gives as the reason is what it saw, not why.
	s.End(&broker.End{Reason: broker.EndClientClosed}, nil)
	e := w.log.of(broker.EventSessionEnd)[0]
	if e.Actor != admin || e.Data.(broker.SessionEnd).Reason != broker.EndByAdmin {
		t.Errorf("event %+v", e)
	}
}

func TestIdleSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		s := w.open(t)
		s.SetIdle(true)
		since := time.Now()
		time.Sleep(time.Second)
		s.SetIdle(true)
		if got := w.manager.Sessions()[0].IdleSince; !got.Equal(since) {
			t.Errorf("idle since %v, want %v", got, since)
		}
		s.SetIdle(false)
		if got := w.manager.Sessions()[0].IdleSince; !got.IsZero() {
			t.Errorf("idle since %v", got)
		}
	})
}

// A log that fails when a session ends gets its event later.
func TestEndIsRecordedWhenTheLogIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		s := w.open(t)
		ended := time.Now()
		w.log.breakWith(broker.Errorf(broker.Unavailable, "the disk is full"))
		s.End(&broker.End{Reason: broker.EndLogout}, nil)
		time.Sleep(5 * time.Second)
		if n := len(w.log.of(broker.EventSessionEnd)); n != 0 {
			t.Fatalf("%d events", n)
		}
		w.log.breakWith(nil)
		time.Sleep(3 * PollInterval)
		events := w.log.of(broker.EventSessionEnd)
		if len(events) != 1 || !events[0].Time.Equal(ended) {
			t.Errorf("events %+v, want one of the time of the end", events)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		s := w.open(t)
		time.AfterFunc(300*time.Millisecond, func() { s.End(&broker.End{Reason: broker.EndClientClosed}, nil) })
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.manager.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if end := ended(t, s); end.Reason != broker.EndDrain {
			t.Errorf("end %+v", end)
		}
		if _, err := w.manager.Open(context.Background(), w.login()); broker.CodeOf(err) != broker.Unavailable || broker.PublicText(err) != textDraining {
			t.Errorf("Open: %v", err)
		}
	})
}

func TestDrainGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		w.open(t)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.manager.Drain(ctx); broker.CodeOf(err) != broker.Unavailable {
			t.Errorf("Drain: %v", err)
		}
	})
}

// When nobody decides anew any more, nobody may be in session.
func TestRunEndsItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.manager.Run(ctx) }()
		<-w.manager.ready
		s := w.open(t)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if end := ended(t, s); end.Reason != broker.EndDrain {
			t.Errorf("end %+v", end)
		}
		if _, err := w.manager.Open(context.Background(), w.login()); broker.CodeOf(err) != broker.Unavailable {
			t.Errorf("Open: %v", err)
		}
		if err := w.manager.Run(context.Background()); err == nil {
			t.Error("Run was called twice")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	good := newWorld(t)
	for name, change := range map[string]func(*Config){
		"no state":       func(c *Config) { c.State = nil },
		"a short key":    func(c *Config) { c.TokenKey = broker.NewSecret([]byte("short")) },
		"no node":        func(c *Config) { c.Node = "" },
		"negative":       func(c *Config) { c.Connections = -1 },
		"no logger":      func(c *Config) { c.Logger = nil },
		"metrics, twice": func(c *Config) { c.Registerer.MustRegister(good.manager.metrics.revoke) },
	} {
		c := Config{
			State: good, Log: good.log, Credentials: good.vault, Upstream: good.upstream, TokenKey: newKey(1), Node: "n",
			Logger: good.manager.logger, Registerer: prometheus.NewRegistry(),
		}
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		w := newWorld(t, func(c *Config) { c.Registerer = registry })
		w.run(t)
		s := w.open(t)
		l := w.login()
		l.Token = broker.Secret{}
		if _, err := w.manager.Open(context.Background(), l); err == nil {
			t.Fatal("let in")
		}
		if got := gathered(t, registry); got["postern_sessions_live"] != 1 {
			t.Errorf("live: %v", got)
		}
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Now() })
		synctest.Wait()
		s.End(nil, nil)
		got := gathered(t, registry)
		for name, want := range map[string]float64{
			"postern_sessions_live": 0, "postern_session_opens_total opened": 1, "postern_session_opens_total denied": 1,
			"postern_session_ends_total revoked": 1, "postern_auth_failures_total unknown-token": 1, "postern_revoke_seconds": 1,
		} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v", name, got[name], want)
			}
		}
	})
}

// gathered returns values by name and last label but the protocol's.
func gathered(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				if label.GetName() != "protocol" {
					name += " " + label.GetValue()
				}
			}
			all[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// TestDrainSeesEachEndOnItsWay: whoever waits for all ends to be recorded finds a
// session either in the table or among the ends that the log was given.
func TestDrainSeesEachEndOnItsWay(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	s := w.open(t).(*live)
	m := w.manager
	var ends atomic.Int32 // Run submits anew as well
	w.log.mu.Lock()
	w.log.submitting = func(e *broker.Event) {
		if e.Type != broker.EventSessionEnd {
			return
		}
		if ends.Add(1) == 1 {
			select {
			case <-s.closed:
				t.Error("the session counts as closed before its end is on its way")
			default:
			}
		} else if m.unsaved.mu.TryLock() {
			if len(m.unsaved.sends) == 0 {
				t.Error("an end that is submitted again is not waited for meanwhile")
			}
			m.unsaved.mu.Unlock()
		}
	}
	w.log.mu.Unlock()
	w.log.breakWith(broker.Errorf(broker.Unavailable, "the disk is full"))
	s.End(&broker.End{Reason: broker.EndLogout}, nil)
	m.unsaved.mu.Lock()
	waiting := len(m.unsaved.sends)
	m.unsaved.mu.Unlock()
	w.log.breakWith(nil)
	m.unsaved.retry(m)
	if waiting != 1 || ends.Load() < 2 || len(w.log.of(broker.EventSessionEnd)) == 0 {
		t.Errorf("%d waited, %d were submitted, %d recorded", waiting, ends.Load(), len(w.log.of(broker.EventSessionEnd)))
	}
}
