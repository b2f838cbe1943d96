// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

var ctx = context.Background()

func same[T any](t *testing.T, what string, got T, err error, want T) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	compare := cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// testThings reads everything back, by each way to find it.
func testThings(t *testing.T, w *World) {
	s := w.Store
	if w.Firm.ID == "" || w.Firm.CreatedAt.IsZero() || w.Firm.CreatedAt.Location() != time.UTC {
		t.Fatalf("id and time were not filled in: %+v", w.Firm)
	}
	firm, err := s.Firm(ctx, w.Firm.ID)
	same(t, "Firm", firm, err, &w.Firm)
	firms, err := s.Firms(ctx)
	same(t, "Firms", firms, err, []*broker.Firm{&w.Firm})
	mailbox, err := s.Mailbox(ctx, w.Mailbox.ID)
	same(t, "Mailbox", mailbox, err, &w.Mailbox)
	mailbox, err = s.MailboxByAddress(ctx, "oRDERS@Northwind.example")
	same(t, "MailboxByAddress", mailbox, err, &w.Mailbox)
	mailboxes, err := s.Mailboxes(ctx)
	same(t, "Mailboxes", mailboxes, err, []*broker.Mailbox{&w.Mailbox})
	agent, err := s.Agent(ctx, w.Agent.ID)
	same(t, "Agent", agent, err, &w.Agent)
	agent, err = s.AgentByName(ctx, "RAVI")
	same(t, "AgentByName", agent, err, &w.Agent)
	agents, err := s.Agents(ctx)
	same(t, "Agents", agents, err, []*broker.Agent{&w.Agent})
	site, err := s.Site(ctx, w.Site.ID)
	same(t, "Site", site, err, &w.Site)
	sites, err := s.Sites(ctx)
	same(t, "Sites", sites, err, []*broker.Site{&w.Site})
	machine, err := s.Workstation(ctx, w.Workstation.ID)
	same(t, "Workstation", machine, err, &w.Workstation)
	machine, err = s.WorkstationByKeyPin(ctx, w.Workstation.KeyPins[0])
	same(t, "WorkstationByKeyPin", machine, err, &w.Workstation)
	machines, err := s.Workstations(ctx)
	same(t, "Workstations", machines, err, []*broker.Workstation{&w.Workstation})
	delegation, err := s.Delegation(ctx, w.Delegation.ID)
	same(t, "Delegation", delegation, err, &w.Delegation)
	delegations, err := s.Delegations(ctx)
	same(t, "Delegations", delegations, err, []*broker.Delegation{&w.Delegation})
	assignment, err := s.Assignment(ctx, w.Assignment.ID)
	same(t, "Assignment", assignment, err, &w.Assignment)
	assignments, err := s.AssignmentsOf(ctx, w.Agent.ID, w.Mailbox.ID)
	same(t, "AssignmentsOf", assignments, err, []*broker.Assignment{&w.Assignment})
	assignments, err = s.Assignments(ctx)
	same(t, "Assignments", assignments, err, []*broker.Assignment{&w.Assignment})
	password, err := s.AppPassword(ctx, w.AppPassword.ID)
	same(t, "AppPassword", password, err, &w.AppPassword)
	password, err = s.AppPasswordByHash(ctx, w.AppPassword.Hash)
	same(t, "AppPasswordByHash", password, err, &w.AppPassword)
	passwords, err := s.AppPasswords(ctx)
	same(t, "AppPasswords", passwords, err, []*broker.AppPassword{&w.AppPassword})

	if w.Delegation.FirmID != w.Firm.ID || w.Assignment.FirmID != w.Firm.ID || w.Assignment.MailboxID != w.Mailbox.ID {
		t.Fatalf("firm and mailbox were not filled in: %+v %+v", w.Delegation, w.Assignment)
	}
}

func testNotFound(t *testing.T, w *World) {
	s, id := w.Store, broker.NewID()
	for name, err := range map[string]error{
		"Firm":                second(s.Firm(ctx, id)),
		"Mailbox":             second(s.Mailbox(ctx, id)),
		"MailboxByAddress":    second(s.MailboxByAddress(ctx, "nobody@northwind.example")),
		"Agent":               second(s.Agent(ctx, id)),
		"AgentByName":         second(s.AgentByName(ctx, "")),
		"Workstation":         second(s.Workstation(ctx, id)),
		"WorkstationByKeyPin": second(s.WorkstationByKeyPin(ctx, Pin())),
		"Site":                second(s.Site(ctx, id)),
		"Delegation":          second(s.Delegation(ctx, id)),
		"Assignment":          second(s.Assignment(ctx, id)),
		"AppPassword":         second(s.AppPassword(ctx, id)),
		"AppPasswordByHash":   second(s.AppPasswordByHash(ctx, Hash())),
		"UpdateMailbox":       s.UpdateMailbox(ctx, Admin, &broker.Mailbox{ID: id, Address: "x@northwind.example", IMAP: w.Mailbox.IMAP, Submission: w.Mailbox.Submission}),
		"UpdateWorkstation":   s.UpdateWorkstation(ctx, Admin, &broker.Workstation{ID: id, Name: "x", Class: broker.ClassSoftware}),
		"UpdateSite":          s.UpdateSite(ctx, Admin, &broker.Site{ID: id, Name: "x", Networks: w.Site.Networks}),
		"UpdateDelegation":    s.UpdateDelegation(ctx, Admin, &broker.Delegation{ID: id, Terms: w.Delegation.Terms}),
		"UpdateAgent":         s.UpdateAgent(ctx, Admin, &broker.Agent{ID: id, FullName: "x"}),
		"UpdateAssignment":    s.UpdateAssignment(ctx, Admin, &broker.Assignment{ID: id, Terms: w.Delegation.Terms}),
		"DeleteMailbox":       s.DeleteMailbox(ctx, Admin, id),
		"DeleteAgent":         s.DeleteAgent(ctx, Admin, id),
		"DeleteWorkstation":   s.DeleteWorkstation(ctx, Admin, id),
		"DeleteSite":          s.DeleteSite(ctx, Admin, id),
		"RevokeDelegation":    s.RevokeDelegation(ctx, Admin, id),
		"RevokeAssignment":    s.RevokeAssignment(ctx, Admin, id),
		"RevokeAppPassword":   s.RevokeAppPassword(ctx, Admin, id),
		"RemoveLock":          s.RemoveLock(ctx, Admin, id),
		"CredentialSet":       s.CredentialSet(ctx, Admin, id, 1),
	} {
		if broker.CodeOf(err) != broker.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func testUnique(t *testing.T, w *World) {
	s := w.Store
	other := broker.Workstation{Name: "other", Class: broker.ClassSoftware, KeyPins: w.Workstation.KeyPins}
	mailbox := MailboxOf(&w.Firm, "ORDERS@NORTHWIND.EXAMPLE")
	for name, err := range map[string]error{
		"firm":        s.CreateFirm(ctx, Admin, &broker.Firm{Name: "NORTHWIND LTD"}),
		"firm id":     s.CreateFirm(ctx, Admin, &broker.Firm{ID: w.Firm.ID, Name: "Other"}),
		"mailbox":     s.CreateMailbox(ctx, Admin, &mailbox),
		"agent":       s.CreateAgent(ctx, Admin, &broker.Agent{Name: "rAVI"}),
		"site":        s.CreateSite(ctx, Admin, &broker.Site{Name: "pune", Networks: w.Site.Networks}),
		"workstation": s.CreateWorkstation(ctx, Admin, &broker.Workstation{Name: "PUNE-17", Class: broker.ClassSoftware}),
		"key pin":     s.CreateWorkstation(ctx, Admin, &other),
		"token":       s.CreateAppPassword(ctx, Admin, &broker.AppPassword{AgentID: w.Agent.ID, Hash: w.AppPassword.Hash}),
	} {
		if broker.CodeOf(err) != broker.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	second := MailboxOf(&w.Firm, "second@northwind.example")
	must(t, s.CreateMailbox(ctx, Admin, &second))
	second.Address = "Orders@Northwind.Example"
	wantCode(t, s.UpdateMailbox(ctx, Admin, &second), broker.Conflict)
}

func testUpdates(t *testing.T, w *World) {
	s := w.Store
	w.Mailbox.Address, w.Mailbox.Aliases = "sales@northwind.example", []string{"Orders@northwind.example"}
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	mailbox, err := s.MailboxByAddress(ctx, "sales@northwind.example")
	same(t, "mailbox", mailbox, err, &w.Mailbox)
	wantCode(t, second(s.MailboxByAddress(ctx, "orders@northwind.example")), broker.NotFound)

	old := w.Workstation.KeyPins[0]
	w.Workstation.KeyPins, w.Workstation.SiteID = []string{Pin(), Pin()}, ""
	must(t, s.UpdateWorkstation(ctx, Admin, &w.Workstation))
	machine, err := s.WorkstationByKeyPin(ctx, w.Workstation.KeyPins[1])
	same(t, "workstation", machine, err, &w.Workstation)
	wantCode(t, second(s.WorkstationByKeyPin(ctx, old)), broker.NotFound)

	w.Site.Networks = append(w.Site.Networks, netip.MustParsePrefix("2001:db8::/32"))
	must(t, s.UpdateSite(ctx, Admin, &w.Site))
	site, err := s.Site(ctx, w.Site.ID)
	same(t, "site", site, err, &w.Site)

	update := broker.Delegation{ID: w.Delegation.ID, FirmID: broker.NewID(), Terms: policy.Terms{
		Actions: policy.List, NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.FixedZone("IST", 19800)),
	}}
	must(t, s.UpdateDelegation(ctx, Admin, &update))
	w.Delegation.Terms = policy.Terms{Actions: policy.List, NotAfter: time.Date(2029, 12, 31, 18, 30, 0, 0, time.UTC)}
	same(t, "what UpdateDelegation filled in", &update, nil, &w.Delegation)
	delegation, err := s.Delegation(ctx, w.Delegation.ID)
	same(t, "delegation", delegation, err, &w.Delegation)

	agent := broker.Agent{ID: w.Agent.ID, FullName: "Ravi K. Kumar"}
	must(t, s.UpdateAgent(ctx, Admin, &agent))
	w.Agent.FullName = "Ravi K. Kumar"
	same(t, "what UpdateAgent filled in", &agent, nil, &w.Agent)
	read, err := s.Agent(ctx, w.Agent.ID)
	same(t, "agent", read, err, &w.Agent)
	wantField(t, s.UpdateAgent(ctx, Admin, &broker.Agent{ID: w.Agent.ID, Name: "other"}), "name")
	wantField(t, s.UpdateAgent(ctx, Admin, &broker.Agent{ID: w.Agent.ID, FullName: "a\nb"}), "full_name")

	// An update that changes nothing is neither recorded nor told.
	before, err := s.PolicyRevision(ctx)
	must(t, err)
	must(t, s.UpdateSite(ctx, Admin, &w.Site))
	must(t, s.UpdateAgent(ctx, Admin, &w.Agent))
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	after, err := s.PolicyRevision(ctx)
	same(t, "revision", after, err, before)
}
