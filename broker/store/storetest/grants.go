// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// testUpdateAssignment: the terms alone, and never wider than the delegation's.
func testUpdateAssignment(t *testing.T, w *World) {
	s := w.Store
	end := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w.Delegation.Terms = policy.Terms{Actions: policy.List | policy.Read, NotAfter: end}
	must(t, s.UpdateDelegation(ctx, Admin, &w.Delegation))
	update := broker.Assignment{ID: w.Assignment.ID, Terms: policy.Terms{Actions: policy.List, NotAfter: end}}
	must(t, s.UpdateAssignment(ctx, Admin, &update))
	w.Assignment.Terms = update.Terms
	same(t, "what UpdateAssignment filled in", &update, nil, &w.Assignment)
	got, err := s.Assignment(ctx, w.Assignment.ID)
	same(t, "assignment", got, err, &w.Assignment)

	for field, terms := range map[string]policy.Terms{
		"terms.actions":   {Actions: policy.All, NotAfter: end},
		"terms.not_after": {Actions: policy.List},
		"terms.sites":     {Actions: policy.List, NotAfter: end, Sites: []string{string(broker.NewID())}},
	} {
		wantField(t, s.UpdateAssignment(ctx, Admin, &broker.Assignment{ID: update.ID, Terms: terms}), field)
	}
	other := w.Assignment
	other.AgentID, other.MailboxID, other.CreatedAt = broker.NewID(), broker.NewID(), end
	must(t, s.UpdateAssignment(ctx, Admin, &other))
	same(t, "whom and where it is for", &other, nil, &w.Assignment)

	must(t, s.RevokeAssignment(ctx, Admin, update.ID))
	wantCode(t, s.UpdateAssignment(ctx, Admin, &update), broker.Conflict)
}

func testRevokeDelegation(t *testing.T, w *World) {
	s := w.Store
	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	d, err := s.Delegation(ctx, w.Delegation.ID)
	must(t, err)
	a, err := s.Assignment(ctx, w.Assignment.ID)
	must(t, err)
	if d.RevokedAt.IsZero() || !a.RevokedAt.Equal(d.RevokedAt) {
		t.Fatalf("not revoked: %+v %+v", d, a)
	}
	before, err := s.PolicyRevision(ctx)
	must(t, err)
	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	must(t, s.RevokeAssignment(ctx, Admin, w.Assignment.ID))
	again, err := s.Delegation(ctx, w.Delegation.ID)
	same(t, "delegation", again, err, d)
	after, err := s.PolicyRevision(ctx)
	same(t, "revision", after, err, before)
	wantCode(t, s.UpdateDelegation(ctx, Admin, d), broker.Conflict)
	wantCode(t, s.CreateAssignment(ctx, Admin, &broker.Assignment{
		DelegationID: d.ID, AgentID: w.Agent.ID, Terms: w.Assignment.Terms,
	}), broker.Conflict)
}

// testAssignmentWithinDelegation: the BPO cannot widen what the firm granted.
func testAssignmentWithinDelegation(t *testing.T, w *World) {
	s := w.Store
	end := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w.Delegation.Terms = policy.Terms{
		Actions: policy.List | policy.Headers, NotAfter: end, HardwareKey: true, NeedsPassword: true, Sites: []string{string(w.Site.ID)},
		Folders: policy.FolderPatterns{Allow: []string{"INBOX"}},
		Slice:   "SINCE @-30d",
		Quotas:  policy.Quotas{Messages: policy.Rate{Day: 50}},
		Hours:   policy.Hours{Zone: "Asia/Kolkata", Shifts: []policy.Shift{{Days: []string{"mon"}, From: "22:00", To: "06:00"}}},
	}
	must(t, s.UpdateDelegation(ctx, Admin, &w.Delegation))
	for field, change := range map[string]func(*policy.Terms){
		"":             func(*policy.Terms) {},
		"actions":      func(x *policy.Terms) { x.Actions |= policy.Read },
		"not_after":    func(x *policy.Terms) { x.NotAfter = end.Add(time.Second) },
		"hardware_key": func(x *policy.Terms) { x.HardwareKey = false },
		"sites":        func(x *policy.Terms) { x.Sites = nil },
		"folders":      func(x *policy.Terms) { x.Folders.Allow = nil },
		"slice":        func(x *policy.Terms) { x.Slice = "SINCE @-31d" },

		"needs_password": func(x *policy.Terms) { x.NeedsPassword = false },
		"recovery_mail":  func(x *policy.Terms) { x.RecoveryMail = policy.RecoveryShown },
		"quotas":         func(x *policy.Terms) { x.Quotas.Messages.Day = 0 },
		"hours":          func(x *policy.Terms) { x.Hours.Zone = "UTC" },
	} {
		a := broker.Assignment{DelegationID: w.Delegation.ID, AgentID: w.Agent.ID, Terms: w.Delegation.Terms.Clone()}
		change(&a.Terms)
		err := s.CreateAssignment(ctx, Admin, &a)
		if field == "" {
			must(t, err)
			continue
		}
		wantField(t, err, "terms."+field)
	}
}

// testMaxAgents: a delegation's number of agents is kept, and each agent counts
// once as long as an assignment of his holds or will.
func testMaxAgents(t *testing.T, w *World) {
	s := w.Store
	agent := func(name string) broker.ID {
		a := broker.Agent{Name: name}
		must(t, s.CreateAgent(ctx, Admin, &a))
		return a.ID
	}
	assign := func(id broker.ID, notAfter time.Time) (*broker.Assignment, error) {
		a := &broker.Assignment{DelegationID: w.Delegation.ID, AgentID: id, Terms: policy.Terms{Actions: policy.List, NotAfter: notAfter}}
		return a, s.CreateAssignment(ctx, Admin, a)
	}
	limit := func(n int) error {
		d := w.Delegation
		d.Terms.MaxAgents = n
		return s.UpdateDelegation(ctx, Admin, &d)
	}
	must(t, limit(2)) // w.Agent is on it
	berta, carla := agent("berta"), agent("carla")
	first, err := assign(berta, time.Time{})
	must(t, err)
	_, err = assign(berta, time.Time{})
	must(t, err) // a second one of hers
	_, err = assign(carla, time.Time{})
	wantCode(t, err, broker.Conflict)
	wantField(t, limit(1), "terms.max_agents")
	ended, err := assign(carla, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
	must(t, err) // it is over, and counts for nothing
	ended.Terms.NotAfter = time.Time{}
	wantCode(t, s.UpdateAssignment(ctx, Admin, ended), broker.Conflict)
	first.Terms.Actions |= policy.Headers
	must(t, s.UpdateAssignment(ctx, Admin, first))
	must(t, s.RevokeAssignment(ctx, Admin, w.Assignment.ID))
	_, err = assign(carla, time.Time{})
	must(t, err)
	must(t, limit(0))
	_, err = assign(agent("dora"), time.Time{})
	must(t, err)

	mine := w.Assignment
	mine.ID, mine.Terms.MaxAgents = "", 1
	wantField(t, s.CreateAssignment(ctx, Admin, &mine), "terms.max_agents")
}
