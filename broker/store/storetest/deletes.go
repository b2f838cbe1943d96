// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

func testDeletesThatConflict(t *testing.T, w *World) {
	s := w.Store
	err := s.DeleteMailbox(ctx, Admin, w.Mailbox.ID)
	wantCode(t, err, broker.Conflict)
	if !strings.Contains(broker.PublicText(err), string(w.Delegation.ID)) {
		t.Errorf("does not say what needs it: %v", err)
	}
	err = s.DeleteSite(ctx, Admin, w.Site.ID)
	wantCode(t, err, broker.Conflict)
	if !strings.Contains(broker.PublicText(err), w.Workstation.Name) {
		t.Errorf("does not say what needs it: %v", err)
	}

	must(t, s.DeleteWorkstation(ctx, Admin, w.Workstation.ID))
	w.Delegation.Terms.Sites = []string{string(w.Site.ID)}
	must(t, s.UpdateDelegation(ctx, Admin, &w.Delegation))
	err = s.DeleteSite(ctx, Admin, w.Site.ID)
	wantCode(t, err, broker.Conflict)
	if !strings.Contains(broker.PublicText(err), string(w.Delegation.ID)) {
		t.Errorf("does not say what needs it: %v", err)
	}

	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	must(t, s.DeleteSite(ctx, Admin, w.Site.ID))
	must(t, s.DeleteMailbox(ctx, Admin, w.Mailbox.ID))
	wantCode(t, second(s.Mailbox(ctx, w.Mailbox.ID)), broker.NotFound)
	wantCode(t, second(s.Site(ctx, w.Site.ID)), broker.NotFound)
	wantCode(t, second(s.WorkstationByKeyPin(ctx, w.Workstation.KeyPins[0])), broker.NotFound)
	// What was granted stays on record.
	d, err := s.Delegation(ctx, w.Delegation.ID)
	must(t, err)
	if d.RevokedAt.IsZero() {
		t.Error("the delegation is not revoked")
	}
}

func testDeleteAgent(t *testing.T, w *World) {
	s := w.Store
	must(t, s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockAgent, TargetID: w.Agent.ID, Message: "left"}))
	must(t, s.DeleteAgent(ctx, Admin, w.Agent.ID))
	wantCode(t, second(s.Agent(ctx, w.Agent.ID)), broker.NotFound)
	wantCode(t, second(s.AgentByName(ctx, w.Agent.Name)), broker.NotFound)
	a, err := s.Assignment(ctx, w.Assignment.ID)
	must(t, err)
	p, err := s.AppPasswordByHash(ctx, w.AppPassword.Hash)
	must(t, err)
	if a.RevokedAt.IsZero() || p.RevokedAt.IsZero() {
		t.Fatalf("not revoked: %+v %+v", a, p)
	}
	locks, err := s.Locks(ctx)
	same(t, "locks", locks, err, nil)
	wantField(t, s.CreateAppPassword(ctx, Admin, &broker.AppPassword{AgentID: w.Agent.ID, Hash: Hash()}), "agent_id")
}

func testDeletedNamesAreFree(t *testing.T, w *World) {
	s := w.Store
	must(t, s.DeleteAgent(ctx, Admin, w.Agent.ID))
	must(t, s.DeleteWorkstation(ctx, Admin, w.Workstation.ID))
	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	must(t, s.DeleteMailbox(ctx, Admin, w.Mailbox.ID))
	must(t, s.DeleteSite(ctx, Admin, w.Site.ID))
	must(t, s.CreateAgent(ctx, Admin, &broker.Agent{Name: w.Agent.Name}))
	must(t, s.CreateSite(ctx, Admin, &broker.Site{Name: w.Site.Name, Networks: w.Site.Networks}))
	must(t, s.CreateWorkstation(ctx, Admin, &broker.Workstation{
		Name: w.Workstation.Name, Class: broker.ClassSoftware, KeyPins: w.Workstation.KeyPins,
	}))
	m := MailboxOf(&w.Firm, w.Mailbox.Address)
	must(t, s.CreateMailbox(ctx, Admin, &m))
	got, err := s.MailboxByAddress(ctx, w.Mailbox.Address)
	same(t, "mailbox", got, err, &m)
}
