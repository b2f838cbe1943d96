// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Admin is who acts in these tests.
var Admin = broker.Actor{Kind: "admin", Name: "unix:uid=0"}

// World is one of everything, as the tests need it.
type World struct {
	Store       Store
	Firm        broker.Firm
	Mailbox     broker.Mailbox
	Agent       broker.Agent
	Site        broker.Site
	Workstation broker.Workstation
	Delegation  broker.Delegation
	Assignment  broker.Assignment
	AppPassword broker.AppPassword
}

// Build makes a World in s.
func Build(t testing.TB, s Store) *World {
	t.Helper()
	ctx := context.Background()
	w := &World{Store: s, Firm: broker.Firm{Name: "Northwind Ltd", Contact: "ask it@northwind.example"}}
	must(t, s.CreateFirm(ctx, Admin, &w.Firm))
	w.Mailbox = MailboxOf(&w.Firm, "Orders@northwind.example")
	must(t, s.CreateMailbox(ctx, Admin, &w.Mailbox))
	w.Agent = broker.Agent{Name: "Ravi", FullName: "Ravi Kumar"}
	must(t, s.CreateAgent(ctx, Admin, &w.Agent))
	w.Site = broker.Site{Name: "Pune", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	must(t, s.CreateSite(ctx, Admin, &w.Site))
	w.Workstation = broker.Workstation{
		Name: "pune-17", Class: broker.ClassHardware, SiteID: w.Site.ID, Groups: []string{"orders"}, KeyPins: []string{Pin()},
	}
	must(t, s.CreateWorkstation(ctx, Admin, &w.Workstation))
	w.Delegation = broker.Delegation{MailboxID: w.Mailbox.ID, Terms: policy.Terms{Actions: policy.All}}
	must(t, s.CreateDelegation(ctx, Admin, &w.Delegation))
	w.Assignment = broker.Assignment{
		DelegationID: w.Delegation.ID, AgentID: w.Agent.ID, Terms: policy.Terms{Actions: policy.List | policy.Read},
	}
	must(t, s.CreateAssignment(ctx, Admin, &w.Assignment))
	w.AppPassword = broker.AppPassword{AgentID: w.Agent.ID, Label: "Thunderbird", Hash: Hash()}
	must(t, s.CreateAppPassword(ctx, Admin, &w.AppPassword))
	return w
}

// MailboxOf returns a mailbox that can be created.
func MailboxOf(f *broker.Firm, address string) broker.Mailbox {
	return broker.Mailbox{
		FirmID: f.ID, Address: address,
		IMAP:       broker.Endpoint{Host: "imap.northwind.example", Port: 993, TLS: broker.TLSImplicit},
		Submission: broker.Endpoint{Host: "smtp.northwind.example", Port: 587, TLS: broker.TLSStartTLS},
	}
}

// Session returns a record of a session in the world.
func (w *World) Session(node string) *broker.Session {
	return &broker.Session{
		ID: broker.NewID(), Protocol: broker.ProtocolIMAP, FirmID: w.Firm.ID, MailboxID: w.Mailbox.ID, AgentID: w.Agent.ID,
		WorkstationID: w.Workstation.ID, SiteID: w.Site.ID, DelegationID: w.Delegation.ID, AssignmentID: w.Assignment.ID,
		AppPasswordID: w.AppPassword.ID, RemoteAddr: "192.0.2.7:40112", Node: node, OpenedAt: w.Firm.CreatedAt,
	}
}

// Opened returns the session.open event of a session.
func (w *World) Opened(x *broker.Session) *broker.Event {
	e := w.Event(broker.EventSessionOpen, broker.SessionOpen{Session: *x, Decision: policy.Decision{Actions: policy.All}})
	e.SessionID = x.ID
	return e
}

// Event returns an event in the firm's log.
func (w *World) Event(typ broker.EventType, data any) *broker.Event {
	return &broker.Event{
		Type: typ, FirmID: w.Firm.ID, Actor: broker.Actor{Kind: "agent", Name: w.Agent.Name, ID: w.Agent.ID},
		AgentID: w.Agent.ID, MailboxID: w.Mailbox.ID, WorkstationID: w.Workstation.ID, Data: data,
	}
}

// Refused returns an event of the kind that there are many of.
func (w *World) Refused(command string) *broker.Event {
	return w.Event(broker.EventCommandRefused, broker.CommandRefused{Command: command, Needs: policy.Delete, Folder: "INBOX"})
}

// Pin returns a key pin that no workstation has.
func Pin() string { return hex.EncodeToString(Hash()) }

// Hash returns a token's hash that no app password has.
func Hash() []byte {
	var seed [16]byte
	rand.Read(seed[:]) // never fails (crypto/rand)
	sum := sha256.Sum256(seed[:])
	return sum[:]
}

// All returns a whole log.
func All(t testing.TB, s Store, firm broker.ID) []*broker.StoredEvent {
	t.Helper()
	var all []*broker.StoredEvent
	for after := int64(-1); ; {
		page, err := s.Events(context.Background(), broker.EventQuery{FirmID: firm, After: after, Limit: 10000})
		must(t, err)
		if len(page) == 0 {
			return all
		}
		all = append(all, page...)
		after = page[len(page)-1].Seq
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code broker.Code) {
	t.Helper()
	if got := broker.CodeOf(err); got != code {
		t.Fatalf("code %q, want %q: %v", got, code, err)
	}
}

func wantField(t testing.TB, err error, field string) {
	t.Helper()
	wantCode(t, err, broker.Invalid)
	var e *broker.Error
	if !errors.As(err, &e) || e.Field != field {
		t.Fatalf("field %q, want %q: %v", e.Field, field, err)
	}
}
