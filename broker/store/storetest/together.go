// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testTogether: what is done together sees itself, is stored with one commit or
// not at all, and is told to nobody before.
func testTogether(t *testing.T, w *World) {
	s := w.Store
	changes := make(chan broker.Change, 16)
	defer s.Subscribe(func(c broker.Change) { changes <- c })()
	revision, err := s.PolicyRevision(ctx)
	must(t, err)
	events := len(All(t, s, ""))

	add := func(ctx context.Context, names ...string) error {
		for _, name := range names {
			if err := s.CreateAgent(ctx, Admin, &broker.Agent{Name: name}); err != nil {
				return err
			}
			if _, err := s.AgentByName(ctx, name); err != nil {
				t.Errorf("%s is not seen by who made it: %v", name, err)
			}
		}
		return nil
	}
	nothing := func(what string) {
		t.Helper()
		now, err := s.PolicyRevision(ctx)
		must(t, err)
		agents, err := s.Agents(ctx)
		must(t, err)
		if now != revision || len(agents) != 1 || len(All(t, s, "")) != events || len(changes) > 0 {
			t.Fatalf("%s: revision %d after %d, %d agents, %d events after %d, %d changes told", what, now, revision, len(agents), len(All(t, s, "")), events, len(changes))
		}
	}
	enough := errors.New("enough")
	wantCode(t, s.Together(ctx, func(ctx context.Context) error { return errors.Join(add(ctx, "one", "two"), enough) }), broker.Internal)
	nothing("an error")
	wantCode(t, s.Together(ctx, func(ctx context.Context) error {
		_ = add(ctx, "one", "ONE")
		return nil
	}), broker.Conflict)
	nothing("a change that failed and was not told of")
	wantCode(t, s.Together(ctx, func(ctx context.Context) error {
		_ = add(ctx, "one")
		panic("a slip")
	}), broker.Internal)
	nothing("a panic")
	given, cancel := context.WithCancel(ctx)
	wantCode(t, s.Together(given, func(ctx context.Context) error {
		cancel()
		return add(ctx, "one")
	}), broker.Unavailable)
	// What was given up may be under way still: a write waits for it.
	must(t, s.Together(ctx, func(context.Context) error { return nil }))
	nothing("a request that was given up")

	must(t, s.Together(ctx, func(ctx context.Context) error { return add(ctx, "one", "two", "three") }))
	for i := range 3 {
		if c := next(t, changes); c.Kind != "agent" || c.Revision != revision+int64(i)+1 {
			t.Fatalf("told %+v after revision %d", c, revision)
		}
	}
	if got := len(All(t, s, "")); got != events+3 {
		t.Errorf("%d events after %d", got, events)
	}
	// Afterwards its context is nobody's.
	must(t, s.CreateAgent(ctx, Admin, &broker.Agent{Name: "four"}))
}
