// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// claim redeems a claim for the world's firm and returns its first admin.
func (w *World) claim(t *testing.T) (broker.Actor, *broker.Person, *broker.APIToken) {
	t.Helper()
	c := broker.Claim{FirmID: w.Firm.ID, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
	must(t, w.Store.CreateClaim(ctx, Admin, &c))
	p, a := &broker.Person{Name: "Priya"}, token()
	f, err := w.Store.RedeemClaim(ctx, c.Hash, p, a)
	must(t, err)
	if f.ID != w.Firm.ID || f.ClaimedAt.IsZero() || p.Role != broker.RoleFirmAdmin || p.FirmID != f.ID || a.PersonID != p.ID {
		t.Fatalf("redeemed: %+v %+v %+v", f, p, a)
	}
	return broker.Actor{Kind: string(broker.RoleFirmAdmin), Name: p.Name, ID: p.ID, TokenID: a.ID}, p, a
}

func token() *broker.APIToken {
	return &broker.APIToken{Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
}

func testPeople(t *testing.T, w *World) {
	s := w.Store
	boss := broker.Person{Name: "Boss", Role: broker.RoleAdmin, Identity: &broker.Identity{Issuer: "https://id.example", Subject: "1"}}
	must(t, s.CreatePerson(ctx, Admin, &boss))
	for field, p := range map[string]broker.Person{
		"name": {Role: broker.RoleAdmin}, "role": {Name: "x", Role: "king"},
		"identity.issuer": {Name: "x", Role: broker.RoleAdmin, Identity: &broker.Identity{Issuer: "x", Subject: "1"}},
	} {
		wantField(t, s.CreatePerson(ctx, Admin, &p), field)
	}
	wantField(t, s.CreatePerson(ctx, Admin, &broker.Person{Name: "x", Role: broker.RoleFirmAdmin}), "role")
	wantCode(t, s.CreatePerson(ctx, Admin, &broker.Person{Name: "bOSS", Role: broker.RoleAuditor}), broker.Conflict)
	wantCode(t, s.CreatePerson(ctx, Admin, &broker.Person{Name: "y", Role: broker.RoleAuditor, Identity: boss.Identity}), broker.Conflict)
	got, err := s.PersonByIdentity(ctx, *boss.Identity)
	same(t, "PersonByIdentity", got, err, &boss)
	_, err = s.PersonByIdentity(ctx, broker.Identity{Issuer: "https://id.example", Subject: "2"})
	wantCode(t, err, broker.NotFound)

	a := token()
	a.PersonID, a.Scopes = boss.ID, []string{"read"}
	must(t, s.CreateAPIToken(ctx, Admin, a))
	found, person, err := s.APITokenByHash(ctx, a.Hash)
	a.Hash = nil
	same(t, "APITokenByHash", found, err, a)
	same(t, "its person", person, err, &boss)
	wantCode(t, s.RemovePerson(ctx, Admin, boss.ID), broker.Conflict) // the last admin
	must(t, s.CreatePerson(ctx, Admin, &broker.Person{Name: "Second", Role: broker.RoleAdmin}))
	must(t, s.RemovePerson(ctx, Admin, boss.ID))
	must(t, s.RemovePerson(ctx, Admin, boss.ID))
	tokens, err := s.APITokens(ctx, "")
	must(t, err)
	if len(tokens) != 1 || tokens[0].RevokedAt.IsZero() {
		t.Errorf("a removed person's tokens: %+v", tokens[0])
	}
	_, err = s.PersonByIdentity(ctx, *boss.Identity)
	wantCode(t, err, broker.NotFound)
	people, err := s.People(ctx, "")
	must(t, err)
	if len(people) != 1 || people[0].Name != "Second" {
		t.Errorf("people: %+v", people)
	}
}

// testNever5Claim: a claim is good once, and from then on the BPO neither
// speaks for the firm nor makes anybody who does.
func testNever5Claim(t *testing.T, w *World) {
	s := w.Store
	lost := broker.Claim{FirmID: w.Firm.ID, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
	must(t, s.CreateClaim(ctx, Admin, &lost))
	other := broker.Firm{Name: "Southwind"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	priya, person, first := w.claim(t)
	for name, hash := range map[string][]byte{"replaced": lost.Hash, "unknown": Hash()} {
		if _, err := s.RedeemClaim(ctx, hash, &broker.Person{Name: "Mallory"}, token()); broker.CodeOf(err) != broker.NotFound {
			t.Errorf("a claim that is %s: %v", name, err)
		}
	}
	wantCode(t, s.CreateClaim(ctx, Admin, &broker.Claim{FirmID: w.Firm.ID, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}), broker.Conflict)

	zita := broker.Person{Name: "Zita", Role: broker.RoleFirmAdmin, FirmID: other.ID}
	refused := map[string]func() error{
		"a mailbox": func() error { m := MailboxOf(&w.Firm, "x@northwind.example"); return s.CreateMailbox(ctx, Admin, &m) },
		"a mailbox's alias": func() error {
			m := w.Mailbox
			m.Aliases = []string{"y@northwind.example"}
			return s.UpdateMailbox(ctx, Admin, &m)
		},
		"a credential": func() error { return s.CredentialSet(ctx, Admin, w.Mailbox.ID, 1) },
		"a delegation": func() error {
			return s.CreateDelegation(ctx, Admin, &broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.List}})
		},
		"narrower terms": func() error {
			d := w.Delegation
			d.Terms.Actions = policy.List
			return s.UpdateDelegation(ctx, Admin, &d)
		},
		"a revoke":       func() error { return s.RevokeDelegation(ctx, Admin, w.Delegation.ID) },
		"all revokes":    func() error { return s.RevokeFirm(ctx, Admin, w.Firm.ID) },
		"a person":       func() error { p := zita; p.FirmID = w.Firm.ID; return s.CreatePerson(ctx, Admin, &p) },
		"a removal":      func() error { return s.RemovePerson(ctx, Admin, person.ID) },
		"a token":        func() error { a := token(); a.PersonID = person.ID; return s.CreateAPIToken(ctx, Admin, a) },
		"a token's end":  func() error { return s.RevokeAPIToken(ctx, Admin, first.ID) },
		"another firm's": func() error { p := zita; return s.CreatePerson(ctx, priya, &p) },
		"the BPO's":      func() error { return s.CreatePerson(ctx, priya, &broker.Person{Name: "x", Role: broker.RoleAdmin}) },
		"one not of it": func() error {
			p := zita
			p.FirmID = w.Firm.ID
			return s.CreatePerson(ctx, broker.Actor{Kind: "firm-admin", ID: w.Agent.ID}, &p)
		},
		"an auditor's": func() error {
			p := zita
			p.FirmID = w.Firm.ID
			by := priya
			by.Kind = "firm-auditor"
			return s.CreatePerson(ctx, by, &p)
		},
		"without anybody": func() error {
			p := zita
			p.FirmID = w.Firm.ID
			return s.CreatePerson(ctx, broker.Actor{Kind: "firm-admin"}, &p)
		},
	}
	before := len(All(t, s, w.Firm.ID))
	for name, do := range refused {
		if err := do(); broker.CodeOf(err) != broker.Refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := len(All(t, s, w.Firm.ID)); after != before {
		t.Errorf("the firm's log grew by %d events", after-before)
	}

	// The firm itself may.
	must(t, s.CreatePerson(ctx, priya, &broker.Person{Name: "Second", Role: broker.RoleFirmAdmin, FirmID: w.Firm.ID}))
	more := token()
	more.PersonID = person.ID
	must(t, s.CreateAPIToken(ctx, priya, more))
	must(t, s.RevokeAPIToken(ctx, priya, first.ID))
	must(t, s.RevokeDelegation(ctx, priya, w.Delegation.ID))
	must(t, s.RemovePerson(ctx, priya, person.ID))
	last := All(t, s, w.Firm.ID)
	if e := last[len(last)-1]; e.Actor != priya {
		t.Errorf("recorded for %+v, want %+v", e.Actor, priya)
	}
}

// testExpiredClaim: a claim has an end.
func testExpiredClaim(t *testing.T, w *World) {
	c := broker.Claim{FirmID: w.Firm.ID, Hash: Hash(), CreatedAt: time.Now().Add(-2 * time.Hour), ExpiresAt: time.Now().Add(-time.Hour)}
	must(t, w.Store.CreateClaim(ctx, Admin, &c))
	_, err := w.Store.RedeemClaim(ctx, c.Hash, &broker.Person{Name: "Late"}, token())
	wantCode(t, err, broker.NotFound)
}

// testFirmState: what is one firm's, and nothing of another's.
func testFirmState(t *testing.T, w *World) {
	s := w.Store
	other := broker.Firm{Name: "Southwind"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	theirs := MailboxOf(&other, "orders@southwind.example")
	must(t, s.CreateMailbox(ctx, Admin, &theirs))
	d := broker.Delegation{MailboxID: theirs.ID, Terms: policy.Terms{Actions: policy.All}}
	must(t, s.CreateDelegation(ctx, Admin, &d))
	a := broker.Assignment{DelegationID: d.ID, AgentID: w.Agent.ID, Terms: policy.Terms{Actions: policy.All}}
	must(t, s.CreateAssignment(ctx, Admin, &a))
	x, y := w.Session("n"), w.Session("n")
	y.FirmID, y.MailboxID, y.DelegationID, y.AssignmentID = other.ID, theirs.ID, d.ID, a.ID
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Opened(x), w.Opened(y)}))

	mailboxes, err := s.FirmMailboxes(ctx, w.Firm.ID)
	same(t, "FirmMailboxes", mailboxes, err, []*broker.Mailbox{&w.Mailbox})
	delegations, err := s.FirmDelegations(ctx, w.Firm.ID)
	same(t, "FirmDelegations", delegations, err, []*broker.Delegation{&w.Delegation})
	assignments, err := s.FirmAssignments(ctx, w.Firm.ID)
	same(t, "FirmAssignments", assignments, err, []*broker.Assignment{&w.Assignment})
	for _, liveOnly := range []bool{true, false} {
		sessions, err := s.FirmSessions(ctx, w.Firm.ID, liveOnly, 10)
		must(t, err)
		if len(sessions) != 1 || sessions[0].ID != x.ID {
			t.Errorf("FirmSessions: %+v", sessions)
		}
	}
	must(t, s.RevokeFirm(ctx, Admin, w.Firm.ID))
	must(t, s.RevokeFirm(ctx, Admin, w.Firm.ID))
	for id, revoked := range map[broker.ID]bool{w.Delegation.ID: true, d.ID: false} {
		got, err := s.Delegation(ctx, id)
		must(t, err)
		if got.RevokedAt.IsZero() == revoked {
			t.Errorf("delegation %+v, want revoked %v", got, revoked)
		}
	}
	if got, err := s.Assignment(ctx, w.Assignment.ID); err != nil || got.RevokedAt.IsZero() {
		t.Errorf("assignment %+v: %v", got, err)
	}
	wantCode(t, s.RevokeFirm(ctx, Admin, broker.NewID()), broker.NotFound)
	if _, err := s.FirmSessions(ctx, w.Firm.ID, true, -1); !errors.As(err, new(*broker.Error)) {
		t.Errorf("a limit of -1: %v", err)
	}
}

// testApproval: an agent waits where the delegation demands it, and the firm
// alone ends that.
func testApproval(t *testing.T, w *World) {
	s := w.Store
	priya, _, _ := w.claim(t)
	d := w.Delegation
	d.ApproveAgents = true
	must(t, s.UpdateDelegation(ctx, priya, &d))
	if a, err := s.Assignment(ctx, w.Assignment.ID); err != nil || a.Pending {
		t.Errorf("who was there already: %+v, %v", a, err)
	}
	a := broker.Assignment{DelegationID: d.ID, AgentID: w.Agent.ID, Terms: policy.Terms{Actions: policy.List}}
	must(t, s.CreateAssignment(ctx, Admin, &a))
	if !a.Pending {
		t.Fatalf("assignment %+v", a)
	}
	b := a
	b.Pending, b.Terms.Actions = false, policy.Read
	must(t, s.UpdateAssignment(ctx, Admin, &b))
	if !b.Pending {
		t.Error("new terms approve")
	}
	wantCode(t, s.ApproveAssignment(ctx, Admin, a.ID), broker.Refused)
	must(t, s.ApproveAssignment(ctx, priya, a.ID))
	must(t, s.ApproveAssignment(ctx, priya, a.ID))
	if got, err := s.Assignment(ctx, a.ID); err != nil || got.Pending {
		t.Errorf("approved: %+v, %v", got, err)
	}
	must(t, s.RevokeAssignment(ctx, Admin, a.ID))
	wantCode(t, s.ApproveAssignment(ctx, priya, a.ID), broker.Conflict)
	wantCode(t, s.ApproveAssignment(ctx, priya, broker.NewID()), broker.NotFound)
}
