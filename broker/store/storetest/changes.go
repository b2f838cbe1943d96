// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"pgregory.net/rapid"
)

// patience is how long the tests wait for what must happen.
const patience = 30 * time.Second

// next waits for a change.
func next(t interface{ Fatal(...any) }, changes <-chan broker.Change) broker.Change {
	select {
	case c := <-changes:
		return c
	case <-time.After(patience):
		t.Fatal("no change was told")
		return broker.Change{}
	}
}

func testSubscribeCancel(t *testing.T, w *World) {
	s := w.Store
	changes := make(chan broker.Change, 16)
	cancel := s.Subscribe(func(c broker.Change) { changes <- c })
	lock := broker.Lock{Target: broker.LockAgent, TargetID: w.Agent.ID}
	must(t, s.CreateLock(ctx, Admin, &lock))
	c := next(t, changes)
	revision, err := s.PolicyRevision(ctx)
	must(t, err)
	if c.Kind != "lock" || c.ID != lock.ID || c.Target != broker.LockAgent || c.TargetID != w.Agent.ID || c.Revision != revision || c.At.IsZero() {
		t.Fatalf("told %+v at revision %d", c, revision)
	}
	cancel()
	cancel()
	must(t, s.RemoveLock(ctx, Admin, lock.ID))
	// A second subscriber is told after the first would have been.
	fence := make(chan broker.Change, 16)
	defer s.Subscribe(func(c broker.Change) { fence <- c })()
	must(t, s.CreateAgent(ctx, Admin, &broker.Agent{Name: "fence"}))
	if c := next(t, fence); c.Kind != "agent" {
		t.Fatalf("told of a change before it subscribed: %+v", c)
	}
	if len(changes) != 0 {
		t.Fatalf("told after cancel: %+v", <-changes)
	}
}

// testChangesInOrder: whatever is changed by however many at a time, the
// subscriber sees each revision once, upwards, and when it is told of one it
// can read it.
func testChangesInOrder(t *testing.T, w *World) {
	s := w.Store
	changes := make(chan broker.Change, 4096)
	defer s.Subscribe(func(c broker.Change) {
		if revision, err := s.PolicyRevision(ctx); err != nil || revision < c.Revision {
			t.Errorf("told of revision %d when %d could be read: %v", c.Revision, revision, err)
		}
		changes <- c
	})()
	last, err := s.PolicyRevision(ctx)
	must(t, err)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		plans := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 3), 1, 4), 1, 4).Draw(rt, "plans")
		var wait sync.WaitGroup
		for who, plan := range plans {
			wait.Go(func() {
				for i, what := range plan {
					if err := w.churn(what, fmt.Sprintf("%d-%d-%d", round, who, i)); err != nil {
						t.Errorf("%d: %v", what, err)
					}
				}
			})
		}
		wait.Wait()
		until, err := s.PolicyRevision(ctx)
		if err != nil {
			rt.Fatal(err)
		}
		for last < until {
			c := next(rt, changes)
			if c.Revision != last+1 {
				rt.Fatalf("revision %d after %d", c.Revision, last)
			}
			last = c.Revision
		}
	})
}

// churn changes something; two of the four in more than one place.
func (w *World) churn(what int, name string) error {
	s := w.Store
	a := broker.Agent{Name: name}
	if err := s.CreateAgent(ctx, Admin, &a); err != nil {
		return err
	}
	switch what {
	case 0:
		return s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockAgent, TargetID: a.ID})
	case 1:
		if err := s.CreateAppPassword(ctx, Admin, &broker.AppPassword{AgentID: a.ID, Hash: Hash()}); err != nil {
			return err
		}
		return s.DeleteAgent(ctx, Admin, a.ID)
	case 2:
		d := broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.List}}
		if err := s.CreateDelegation(ctx, Admin, &d); err != nil {
			return err
		}
		for range 2 {
			if err := s.CreateAssignment(ctx, Admin, &broker.Assignment{DelegationID: d.ID, AgentID: a.ID, Terms: d.Terms}); err != nil {
				return err
			}
		}
		return s.RevokeDelegation(ctx, Admin, d.ID)
	}
	return nil
}

// testCallersKeepTheirs: what a caller does to a thing after it was stored,
// or to one that it was given, stays with the caller.
func testCallersKeepTheirs(t *testing.T, w *World) {
	s := w.Store
	m := MailboxOf(&w.Firm, "third@northwind.example")
	m.Aliases = []string{"alias@northwind.example"}
	mine := m.Aliases
	must(t, s.CreateMailbox(ctx, Admin, &m))
	mine[0] = "stolen@northwind.example"
	if m.Aliases[0] != "alias@northwind.example" {
		t.Error("the stored thing shares its slices with the input")
	}
	got, err := s.Mailbox(ctx, m.ID)
	must(t, err)
	got.Aliases[0] = "stolen@northwind.example"
	again, err := s.Mailbox(ctx, m.ID)
	same(t, "mailbox", again, err, &m)
}
