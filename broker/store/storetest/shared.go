// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// RunShared tests two stores on one empty database, as two nodes have them.
func RunShared(t *testing.T, open func(t *testing.T) (one, other Store)) {
	tests := []struct {
		name string
		test func(*testing.T, *World, Store)
	}{
		{"AppendsAndChanges", testSharedAppends},
		{"Unique", testSharedUnique},
		{"MaxAgents", testSharedMaxAgents},
		{"RevokeAndAssign", testSharedRevoke},
		{"StaleSessions", testSharedStale},
		{"AlertStorm", testSharedAlerts},
		{"Canaries", testSharedCanaries},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			one, other := open(t)
			test.test(t, Build(t, one), other)
		})
	}
}

// testSharedAppends: both append to two logs, in either order, while both
// change state. Nobody waits in a circle, no number is missing, and what an
// append says of the policy's revision is what the log's order says.
func testSharedAppends(t *testing.T, w *World, other Store) {
	second := broker.Firm{Name: "Second"}
	must(t, w.Store.CreateFirm(ctx, Admin, &second))
	var mu sync.Mutex
	var appended []*broker.Event
	var wait sync.WaitGroup
	for node, s := range []Store{w.Store, other} {
		wait.Go(func() {
			for i := range 40 {
				pair := []*broker.Event{w.Refused("1"), w.Refused("2")}
				pair[(node+i)%2].FirmID = second.ID
				if err := s.AppendEvents(ctx, pair); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				appended = append(appended, pair...)
				mu.Unlock()
			}
		})
		wait.Go(func() {
			for range 15 {
				l := broker.Lock{Target: broker.LockFirm, TargetID: second.ID}
				if err := s.CreateLock(ctx, Admin, &l); err != nil {
					t.Error(err)
				}
				l = broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID}
				if err := s.CreateLock(ctx, Admin, &l); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	before, err := w.Store.PolicyRevision(ctx)
	must(t, err)
	// The changes of both logs, by their seq, in the order of the revisions.
	for _, firm := range []broker.ID{w.Firm.ID, second.ID} {
		log := All(t, other, firm)
		Verify(t, log)
		for _, e := range appended {
			if e.FirmID != firm {
				continue
			}
			if e.PolicyRevision > before || log[e.Seq].Type != broker.EventCommandRefused {
				t.Fatalf("event %d has the revision %d of %d, and is %s", e.Seq, e.PolicyRevision, before, log[e.Seq].Type)
			}
		}
		checkRevisions(t, appended, firm)
	}
	if n := len(All(t, other, second.ID)); n != 1+80+30+30 { // each lock with its alert
		t.Errorf("%d events in the second log", n)
	}
}

// checkRevisions: along one log the policy's revision never goes back.
func checkRevisions(t *testing.T, appended []*broker.Event, firm broker.ID) {
	t.Helper()
	var own []*broker.Event
	for _, e := range appended {
		if e.FirmID == firm {
			own = append(own, e)
		}
	}
	slices.SortFunc(own, func(a, b *broker.Event) int { return int(a.Seq - b.Seq) })
	for i, e := range own {
		if i > 0 && e.PolicyRevision < own[i-1].PolicyRevision {
			t.Fatalf("event %d saw revision %d, event %d before it %d", e.Seq, e.PolicyRevision, own[i-1].Seq, own[i-1].PolicyRevision)
		}
	}
}

// both runs f for each store at the same time, and returns how often it
// succeeded; other errors than these codes fail the test.
func both(t *testing.T, w *World, other Store, codes []broker.Code, f func(node int, s Store) error) int {
	t.Helper()
	var wait sync.WaitGroup
	var errs [2]error
	for node, s := range []Store{w.Store, other} {
		wait.Go(func() { errs[node] = f(node, s) })
	}
	wait.Wait()
	succeeded := 0
	for _, err := range errs {
		if err == nil {
			succeeded++
		} else if !slices.Contains(codes, broker.CodeOf(err)) {
			t.Error(err)
		}
	}
	return succeeded
}

// testSharedUnique: of two that take the same name one has it, and the
// revisions count what succeeded.
func testSharedUnique(t *testing.T, w *World, other Store) {
	before, err := other.PolicyRevision(ctx)
	must(t, err)
	for i := range 20 {
		n := both(t, w, other, []broker.Code{broker.Conflict}, func(_ int, s Store) error {
			return s.CreateAgent(ctx, Admin, &broker.Agent{Name: fmt.Sprint("twin-", i)})
		})
		if n != 1 {
			t.Fatalf("%d have the name", n)
		}
	}
	after, err := other.PolicyRevision(ctx)
	same(t, "revision", after, err, before+20)
	Verify(t, All(t, other, ""))
}

// testSharedMaxAgents: two that assign the last place do not both get it.
func testSharedMaxAgents(t *testing.T, w *World, other Store) {
	second := broker.Agent{Name: "Second"}
	must(t, w.Store.CreateAgent(ctx, Admin, &second))
	for range 10 {
		d := broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.Read, MaxAgents: 1}}
		must(t, w.Store.CreateDelegation(ctx, Admin, &d))
		n := both(t, w, other, []broker.Code{broker.Conflict}, func(node int, s Store) error {
			a := broker.Assignment{DelegationID: d.ID, AgentID: w.Agent.ID, Terms: policy.Terms{Actions: policy.Read}}
			if node == 1 {
				a.AgentID = second.ID
			}
			return s.CreateAssignment(ctx, Admin, &a)
		})
		if n != 1 {
			t.Fatalf("%d assignments where one is allowed", n)
		}
	}
}

// testSharedRevoke: no assignment outlives its delegation, whichever came
// first.
func testSharedRevoke(t *testing.T, w *World, other Store) {
	for range 10 {
		d := broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.Read}}
		must(t, w.Store.CreateDelegation(ctx, Admin, &d))
		both(t, w, other, []broker.Code{broker.Conflict}, func(node int, s Store) error {
			if node == 0 {
				return s.RevokeDelegation(ctx, Admin, d.ID)
			}
			return s.CreateAssignment(ctx, Admin, &broker.Assignment{
				DelegationID: d.ID, AgentID: w.Agent.ID, Terms: policy.Terms{Actions: policy.Read},
			})
		})
	}
	all, err := other.Assignments(ctx)
	must(t, err)
	for _, a := range all {
		if a.ID != w.Assignment.ID && a.RevokedAt.IsZero() {
			t.Errorf("assignment %s outlived its delegation", a.ID)
		}
	}
}

// testSharedStale: two that end a dead node's sessions end each once.
func testSharedStale(t *testing.T, w *World, other Store) {
	const sessions = 250
	var opened []*broker.Event
	for range sessions {
		opened = append(opened, w.Opened(w.Session("dead")))
	}
	must(t, w.Store.AppendEvents(ctx, opened))
	var ended [2]int
	both(t, w, other, nil, func(node int, s Store) (err error) {
		ended[node], err = s.EndStaleSessions(ctx, "dead")
		return err
	})
	if ended[0]+ended[1] != sessions {
		t.Errorf("ended %d and %d of %d", ended[0], ended[1], sessions)
	}
	ends, err := other.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: broker.EventSessionEnd})
	must(t, err)
	if len(ends) != sessions {
		t.Errorf("%d ends are recorded", len(ends))
	}
}

// RunTold tests that what one store changes is told by the other.
func RunTold(t *testing.T, one, other Store) {
	w := Build(t, one)
	changes := make(chan broker.Change, 1024)
	until, err := other.PolicyRevision(ctx)
	must(t, err)
	defer other.Subscribe(func(c broker.Change) { changes <- c })()
	l := broker.Lock{Target: broker.LockMailbox, TargetID: w.Mailbox.ID}
	must(t, one.CreateLock(ctx, Admin, &l))
	c := next(t, changes)
	for c.Revision <= until { // of Build's, which it may still hear of
		c = next(t, changes)
	}
	if c.Kind != "lock" || c.ID != l.ID || c.Target != broker.LockMailbox || c.TargetID != w.Mailbox.ID ||
		c.Revision != until+1 || !c.At.Equal(l.CreatedAt.Truncate(time.Microsecond)) {
		t.Fatalf("told %+v", c)
	}
	// Many at once are told one by one.
	d := broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.Read}}
	must(t, one.CreateDelegation(ctx, Admin, &d))
	for range 120 {
		must(t, one.CreateAssignment(ctx, Admin, &broker.Assignment{DelegationID: d.ID, AgentID: w.Agent.ID, Terms: d.Terms}))
	}
	must(t, one.RevokeDelegation(ctx, Admin, d.ID))
	for want := until + 2; want <= until+2+120+1+120; want++ {
		if c := next(t, changes); c.Revision != want {
			t.Fatalf("revision %d was told, want %d", c.Revision, want)
		}
	}
}
