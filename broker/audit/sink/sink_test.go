// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
)

// TestNothingIsLost: a receiver that fails, takes a part, or dies with the
// process at any time gets each event of each log, in the log's order.
func TestNothingIsLost(t *testing.T) {
	random, fails := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(8, 8))
	w := newWorld(t, 7)
	r := &receiver{}
	r.answer = func(events []*Event) (int, error) {
		switch fails.IntN(4) {
		case 0:
			return 0, errDown
		case 1:
			return fails.IntN(len(events) + 1), errDown
		}
		return len(events), nil
	}
	logs := append(w.firms, "")
	node := Sink{Name: "siem", Receiver: r, FromStart: true}
	for round := range 12 {
		_, stop := w.start("a", quick(), node)
		for _, log := range logs {
			w.append(log, numbered("x", random.IntN(400))...)
		}
		if round%3 == 0 {
			soon(t, "some was delivered", func() bool { return len(r.all()) > 0 })
		}
		stop()
	}
	w.start("a", quick(), node)
	for _, log := range logs {
		want := w.ids(log)
		soon(t, "all of a log was delivered", func() bool { return len(r.firsts(log)) >= len(want) })
		if diff := cmp.Diff(want, r.firsts(log)); diff != "" {
			t.Errorf("a log (-want +got):\n%s", diff)
		}
	}
}

// TestNever5SinkOfAFirm: it gets that firm's events and no other's.
func TestNever5SinkOfAFirm(t *testing.T) {
	w := newWorld(t, 3)
	own, all := broker.ID(""), &receiver{}
	bpo, firm := &receiver{}, &receiver{}
	w.start("a", quick(),
		Sink{Name: "all", Receiver: all, FromStart: true},
		Sink{Name: "own", Receiver: bpo, FromStart: true, Filter: Filter{Firm: &own}},
		Sink{Name: "firm", Receiver: firm, FromStart: true, Filter: Filter{Firm: &w.firms[1]}})
	for _, log := range append(w.firms, "") {
		w.append(log, numbered("x", 700)...)
	}
	soon(t, "everything was delivered", func() bool { return len(all.all()) == 2800 && len(bpo.all()) == 700 && len(firm.all()) == 700 })
	for log, r := range map[broker.ID]*receiver{"": bpo, w.firms[1]: firm} {
		if diff := cmp.Diff(w.ids(log), r.firsts(log)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestWhereASinkBegins: one that is new begins now unless it is told otherwise,
// and a firm that comes later is delivered from its first event.
func TestWhereASinkBegins(t *testing.T) {
	w := newWorld(t, 2)
	w.append(w.firms[0], "before")
	now, start := &receiver{}, &receiver{}
	s, _ := w.start("a", quick(), Sink{Name: "now", Receiver: now}, Sink{Name: "start", Receiver: start, FromStart: true})
	soon(t, "both are held", func() bool {
		all, err := s.List(ctx)
		must(t, err)
		return all[0].State.Node == "a" && all[1].State.Node == "a"
	})
	w.append(w.firms[0], "after")
	w.append(w.firms[1], "new")
	soon(t, "delivered", func() bool { return len(now.all()) == 2 && len(start.all()) == 3 })
	soon(t, "nothing is behind", func() bool {
		all, err := s.List(ctx)
		must(t, err)
		return all[0].Lag.Events+all[1].Lag.Events == 0
	})
}

// TestSinkOfNoFirm: people are told that there is no such firm's log, for as long as
// there is none.
func TestSinkOfNoFirm(t *testing.T) {
	w := newWorld(t, 1)
	r := &receiver{}
	s, _ := w.start("a", quick(), Sink{Name: "siem", Receiver: r, FromStart: true, Filter: Filter{Firm: &w.firms[0]}})
	says := func(text string) {
		t.Helper()
		soon(t, "it says so", func() bool {
			all, err := s.List(ctx)
			must(t, err)
			return all[0].State.Failure == text && all[0].State.FailingSince.IsZero()
		})
	}
	says("no log is there of a firm with the id " + string(w.firms[0]))
	w.append(w.firms[0], "x")
	soon(t, "delivered", func() bool { return len(r.all()) == 1 })
	says("")
}

// TestFilters: types by name and by their beginning, alerts, severities.
func TestFilters(t *testing.T) {
	event := func(typ broker.EventType, severity broker.Severity) *Event {
		return &Event{Event: broker.Event{Type: typ}, Severity: severity}
	}
	opened, failed := event(broker.EventSessionOpen, broker.SeverityInfo), event(broker.EventAuthFailed, broker.SeverityInfo)
	warned, grave := event(broker.EventAlertRaised, broker.SeverityWarning), event(broker.EventAlertResolved, broker.SeverityCritical)
	all := []*Event{opened, failed, warned, grave}
	for name, test := range map[string]struct {
		filter Filter
		want   []*Event
	}{
		"all":       {Filter{}, all},
		"types":     {Filter{Types: []string{"auth.failed", "session.*"}}, []*Event{opened, failed}},
		"alerts":    {Filter{Alerts: true}, []*Event{warned, grave}},
		"warnings":  {Filter{Severity: broker.SeverityWarning}, []*Event{warned, grave}},
		"grave":     {Filter{Alerts: true, Severity: broker.SeverityCritical}, []*Event{grave}},
		"no alerts": {Filter{Alerts: true, Types: []string{"session.*"}}, nil},
	} {
		var got []*Event
		for _, e := range all {
			if test.filter.wants(e) {
				got = append(got, e)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", name, got)
		}
		if field, reason := test.filter.Validate(); reason != "" {
			t.Errorf("%s: %s %s", name, field, reason)
		}
	}
	for field, f := range map[string]Filter{"events": {Types: []string{"auth.fail"}}, "severity": {Severity: "dire"}} {
		if got, reason := f.Validate(); got != field || reason == "" {
			t.Errorf("%+v: %q %q", f, got, reason)
		}
	}
	raised, err := parse(&broker.LogEntry{Seq: 3, Record: []byte(`{"seq":3,"type":"alert.raised","data":{"severity":"critical"}}`)})
	if err != nil || raised.Severity != broker.SeverityCritical {
		t.Errorf("%+v, %v", raised, err)
	}
}

// TestPoisonedEvent: one that the receiver refuses keeps the others up for a
// while, is set aside by name, and nothing else is.
func TestPoisonedEvent(t *testing.T) {
	for name, together := range map[string]bool{"one by one": false, "in batches": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			r := &receiver{}
			poisoned := func(e *Event) bool {
				return strings.Contains(string(e.Record), "poison") && e.Type != broker.EventSinkSkipped
			}
			r.answer = func(events []*Event) (int, error) {
				i := slices.IndexFunc(events, poisoned)
				switch {
				case i < 0:
					return len(events), nil
				case together:
					return 0, &RefusedError{Events: len(events), cause: errors.New("400")}
				}
				return i, &RefusedError{Events: 1, cause: errors.New("400")}
			}
			w.start("a", quick(), Sink{Name: "siem", Receiver: r, FromStart: true})
			var names []string
			for i, name := range numbered("x", 300) {
				if i == 0 || i == 100 || i == 101 || i == 250 {
					name = "poison"
				}
				names = append(names, name)
			}
			w.append(w.firms[0], names...)
			soon(t, "the others were delivered", func() bool { return len(r.firsts(w.firms[0])) == 296 })
			var set []broker.ID
			soon(t, "what was set aside is recorded", func() bool {
				all, err := w.store.Events(ctx, broker.EventQuery{After: -1, Type: broker.EventSinkSkipped})
				must(t, err)
				set = nil
				for _, e := range all {
					data := e.Data.(broker.SinkSkipped)
					if data.LogOf != w.firms[0] || data.Sink != "siem" || data.Text != "400" {
						t.Fatalf("recorded: %+v", data)
					}
					set = append(set, data.Event)
				}
				return len(set) == 4
			})
			ids := w.ids(w.firms[0])
			if want := []broker.ID{ids[0], ids[100], ids[101], ids[250]}; !slices.Equal(set, want) {
				t.Errorf("set aside: %v, not %v", set, want)
			}
			alerts, err := w.store.Alerts(ctx, broker.AlertQuery{OwnOnly: true, Kind: broker.AlertSinkSkipped})
			if err != nil || len(alerts) != 1 || alerts[0].Count != 4 {
				t.Errorf("alerts: %+v, %v", alerts, err)
			}
		})
	}
}

// TestLongRunOfRefusedEvents: more than are tried in their order keep up those behind
// them no more than one does.
func TestLongRunOfRefusedEvents(t *testing.T) {
	w := newWorld(t, 1)
	r := &receiver{answer: func(events []*Event) (int, error) {
		if slices.ContainsFunc(events, func(e *Event) bool { return strings.Contains(string(e.Record), "poison") }) {
			return 0, &RefusedError{Events: len(events), cause: errors.New("413")}
		}
		return len(events), nil
	}}
	s, _ := w.start("a", quick(), Sink{Name: "siem", Receiver: r, FromStart: true, Filter: Filter{Firm: &w.firms[0]}})
	w.append(w.firms[0], append(slices.Repeat([]string{"poison"}, 3*probeEvents), numbered("x", 100)...)...)
	soon(t, "the others were delivered", func() bool { return len(r.firsts(w.firms[0])) == 100 })
	soon(t, "nothing is behind", func() bool {
		all, err := s.List(ctx)
		must(t, err)
		return all[0].Lag.Events == 0
	})
	if n := s.sinks[0].counts.skipped.Load(); n != 3*probeEvents {
		t.Errorf("%d events were set aside", n)
	}
}

// TestReceiverThatRefusesEverything: nothing is set aside then, and what waited is
// delivered when it takes events again.
func TestReceiverThatRefusesEverything(t *testing.T) {
	w := newWorld(t, 1)
	r, asked := &receiver{}, 0
	r.answer = func(events []*Event) (int, error) {
		if asked++; asked < 500 {
			return 0, &RefusedError{Events: len(events), cause: errors.New("422")}
		}
		return len(events), nil
	}
	s, _ := w.start("a", quick(), Sink{Name: "siem", Receiver: r, FromStart: true})
	w.append(w.firms[0], numbered("x", 120)...)
	soon(t, "all was delivered", func() bool { return len(r.firsts(w.firms[0])) == 120 })
	if n := s.sinks[0].counts.skipped.Load(); n != 0 {
		t.Errorf("%d events were set aside", n)
	}
}

// TestOutageIsTold: a person is told of a receiver that takes nothing, and that it
// is over.
func TestOutageIsTold(t *testing.T) {
	w := newWorld(t, 1)
	r, down := &receiver{}, true
	r.answer = func(events []*Event) (int, error) {
		if down {
			return 0, errors.New("500 what\r\nis this")
		}
		return len(events), nil
	}
	fast := quick()
	fast.stalled = time.Millisecond
	registry := prometheus.NewRegistry()
	s, _ := w.start("a", fast, Sink{Name: "siem", Receiver: r, FromStart: true, Filter: Filter{Firm: &w.firms[0]}})
	must(t, registry.Register(collector{s}))
	w.append(w.firms[0], "x")
	alert := func(state broker.AlertState) {
		t.Helper()
		soon(t, "the alert is "+string(state), func() bool {
			all, err := w.store.Alerts(ctx, broker.AlertQuery{OwnOnly: true, Kind: broker.AlertSink})
			must(t, err)
			return len(all) == 1 && all[0].State == state && all[0].Subject == "siem"
		})
	}
	alert(broker.AlertOpen)
	soon(t, "the database knows", func() bool {
		all, err := s.List(ctx)
		must(t, err)
		return all[0].State.Failure == "500 what  is this" && !all[0].State.FailingSince.IsZero() && all[0].Lag.Events == 1 && !all[0].Lag.Oldest.IsZero()
	})
	if n, err := testutil.GatherAndCount(registry, "postern_sink_lag_seconds", "postern_sink_lag_events", "postern_sink_failures_total"); err != nil || n != 3 {
		t.Errorf("%d metrics, %v", n, err)
	}
	r.mu.Lock()
	down = false
	r.mu.Unlock()
	alert(broker.AlertResolved)
	soon(t, "the database knows", func() bool {
		all, err := s.List(ctx)
		must(t, err)
		return all[0].State.Failure == "" && all[0].State.FailingSince.IsZero() && all[0].Lag.Events == 0
	})
}

// TestOneNodeAtATime: of two only one delivers, and the other takes over where it
// stopped.
func TestOneNodeAtATime(t *testing.T) {
	w := newWorld(t, 1)
	a, b := &receiver{}, &receiver{}
	_, stop := w.start("a", quick(), Sink{Name: "siem", Receiver: a, FromStart: true})
	w.append(w.firms[0], numbered("x", 100)...)
	soon(t, "the first delivers", func() bool { return len(a.all()) == 100 })
	w.start("b", quick(), Sink{Name: "siem", Receiver: b, FromStart: true})
	w.append(w.firms[0], numbered("y", 100)...)
	soon(t, "the first delivers", func() bool { return len(a.all()) == 200 })
	if n := len(b.all()); n != 0 {
		t.Errorf("both deliver: %d events", n)
	}
	stop()
	w.append(w.firms[0], numbered("z", 100)...)
	soon(t, "the other delivers", func() bool { return len(b.all()) == 100 })
	if got, want := b.firsts(w.firms[0]), w.ids(w.firms[0])[200:]; !slices.Equal(got, want) {
		t.Errorf("the other began elsewhere: %d events", len(got))
	}
}

// TestSinkOfAnotherIsLeftAlone: a node whose claim is over delivers nothing any more,
// be it in the middle of looking for what is refused, or after it waited for a test.
func TestSinkOfAnotherIsLeftAlone(t *testing.T) {
	begin := func(t *testing.T, answer func(events []*Event, s *usurped) error) (*world, *usurped, *Sinks) {
		w, at := newWorld(t, 1), quick()
		at.renew, at.keep = 0, 0 // each delivery asks
		s := &usurped{Store: w.store, asked: make(chan struct{}, 1)}
		r := &receiver{answer: func(events []*Event) (int, error) {
			s.late = s.late || s.another.Load()
			if err := answer(events, s); err != nil {
				return 0, err
			}
			return len(events), nil
		}}
		sinks, err := New(Config{
			Sinks: []Sink{{Name: "siem", Receiver: r, FromStart: true}}, Store: s, Log: recorder{w.store}, Logger: zap.NewNop(), Node: "a", times: at,
		})
		must(t, err)
		return w, s, sinks
	}
	left := func(t *testing.T, s *usurped, stop func()) {
		t.Helper()
		<-s.asked
		if stop(); s.late {
			t.Error("it delivers what another delivers")
		}
	}
	// The last of the events is taken, and tried alone after those before it.
	for name, seq := range map[string]int64{"while it looks for one that is taken": 5, "while it sets aside": 20} {
		t.Run(name, func(t *testing.T) {
			w, s, sinks := begin(t, func(events []*Event, s *usurped) error {
				if len(events) == 1 && events[0].Seq == seq {
					s.another.Store(true)
				}
				if strings.Contains(string(events[0].Record), "poison") {
					return &RefusedError{Events: len(events), cause: errors.New("400")}
				}
				return nil
			})
			w.append(w.firms[0], append(slices.Repeat([]string{"poison"}, 20), "good")...)
			left(t, s, w.run(sinks))
		})
	}
	t.Run("after a test", func(t *testing.T) {
		begun, release := make(chan struct{}), make(chan struct{})
		w, s, sinks := begin(t, func(events []*Event, _ *usurped) error {
			if events[0].Type == TestType {
				close(begun)
				<-release
			}
			return nil
		})
		tested := make(chan error)
		go func() { tested <- sinks.Test(ctx, "siem", broker.Actor{Kind: "admin"}) }()
		<-begun
		w.append(w.firms[0], "x")
		stop := w.run(sinks)
		r := sinks.sinks[0]
		soon(t, "it is about to deliver", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.behind == 1 })
		s.another.Store(true)
		close(release)
		must(t, <-tested)
		left(t, s, stop)
	})
}

// usurped is a store in which another holds the sinks from some time on.
type usurped struct {
	*store.Store
	another atomic.Bool
	asked   chan struct{} // for the sink, by one that has lost it
	late    bool          // something was delivered all the same; the receiver's
}

func (s *usurped) KeepSink(ctx context.Context, c broker.SinkClaim, p broker.SinkProgress) error {
	if s.another.Load() {
		return broker.Errorf(broker.Conflict, "another process delivers to the sink")
	}
	return s.Store.KeepSink(ctx, c, p)
}

func (s *usurped) ClaimSink(ctx context.Context, c broker.SinkClaim, fromStart bool) (*broker.SinkState, error) {
	if s.another.Load() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		return nil, nil
	}
	return s.Store.ClaimSink(ctx, c, fromStart)
}

// TestEventsOfOtherProcesses: what this process did not commit is found as well.
func TestEventsOfOtherProcesses(t *testing.T) {
	w := newWorld(t, 1)
	r := &receiver{}
	s, err := New(Config{
		Sinks: []Sink{{Name: "siem", Receiver: r, FromStart: true}}, Store: deaf{w.store}, Log: recorder{w.store}, Logger: zap.NewNop(), Node: "a", times: quick(),
	})
	must(t, err)
	w.run(s)
	w.append(w.firms[0], "x")
	soon(t, "delivered", func() bool { return len(r.all()) == 1 })
	w.append(w.firms[0], "y")
	soon(t, "delivered", func() bool { return len(r.all()) == 2 })
}

// TestSinkTest: a test is delivered beside, to the sink's own receiver.
func TestSinkTest(t *testing.T) {
	w := newWorld(t, 1)
	r := &receiver{}
	s, err := New(Config{
		Sinks: []Sink{{Name: "siem", Receiver: r, Filter: Filter{Firm: &w.firms[0]}}}, Store: w.store, Log: recorder{w.store}, Logger: zap.NewNop(), Node: "a",
	})
	must(t, err)
	by := broker.Actor{Kind: "admin", Name: "root"}
	must(t, s.Test(ctx, "siem", by))
	got := r.all()
	if len(got) != 1 || got[0].Type != TestType || got[0].FirmID != w.firms[0] || got[0].Actor != by || !strings.Contains(string(got[0].Record), `"sink.test"`) {
		t.Errorf("delivered: %+v", got)
	}
	r.answer = func([]*Event) (int, error) { return 0, errDown }
	if err := s.Test(ctx, "siem", by); broker.CodeOf(err) != broker.Unavailable || !strings.Contains(broker.PublicText(err), errDown.Error()) {
		t.Errorf("a receiver that is down: %v", err)
	}
	if err := s.Test(ctx, "other", by); broker.CodeOf(err) != broker.NotFound {
		t.Errorf("a sink that is not there: %v", err)
	}
}

// TestReopen: receivers are closed before their next delivery.
func TestReopen(t *testing.T) {
	w := newWorld(t, 1)
	r := &receiver{}
	s, _ := w.start("a", quick(), Sink{Name: "siem", Receiver: r, FromStart: true})
	w.append(w.firms[0], "x")
	soon(t, "delivered", func() bool { return len(r.all()) == 1 })
	s.Reopen()
	soon(t, "closed", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.closed == 1 })
}
