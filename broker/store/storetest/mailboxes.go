// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testAddressesOfFirmsAreApart: what one firm's mailbox sends from, no other
// firm's does.
func testAddressesOfFirmsAreApart(t *testing.T, w *World) {
	s := w.Store
	other := broker.Firm{Name: "Other"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	w.Mailbox.Aliases = []string{"Info@northwind.example"}
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	theirs := MailboxOf(&other, "desk@other.example")
	must(t, s.CreateMailbox(ctx, Admin, &theirs))

	conflict := func(err error, field string) {
		t.Helper()
		wantCode(t, err, broker.Conflict)
		var e *broker.Error
		if !errors.As(err, &e) || e.Field != field {
			t.Errorf("field of %v, want %s", err, field)
		}
		if text := broker.PublicText(err); strings.Contains(text, w.Firm.Name) || strings.Contains(text, w.Mailbox.Address) {
			t.Errorf("tells of another firm: %s", text)
		}
	}
	for name, change := range map[string]func(*broker.Mailbox) string{
		"their alias as main address": func(m *broker.Mailbox) string {
			m.Address = "INFO@northwind.example"
			return "address"
		},
		"their alias as alias": func(m *broker.Mailbox) string {
			m.Aliases = []string{"free@other.example", "info@NORTHWIND.example"}
			return "aliases"
		},
		"their main address as alias": func(m *broker.Mailbox) string {
			m.Aliases = []string{"oRDERS@northwind.example"}
			return "aliases"
		},
	} {
		t.Run(name, func(t *testing.T) {
			added := MailboxOf(&other, "added@other.example")
			field := change(&added)
			conflict(s.CreateMailbox(ctx, Admin, &added), field)
			updated := theirs
			field = change(&updated)
			conflict(s.UpdateMailbox(ctx, Admin, &updated), field)
		})
	}

	// Within a firm they may be shared; what is given up or deleted is free.
	second := MailboxOf(&w.Firm, "second@northwind.example")
	second.Aliases = []string{"info@northwind.example", "orders@northwind.example"}
	must(t, s.CreateMailbox(ctx, Admin, &second))
	must(t, s.DeleteMailbox(ctx, Admin, second.ID))
	w.Mailbox.Aliases = nil
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	theirs.Aliases = []string{"info@northwind.example"}
	must(t, s.UpdateMailbox(ctx, Admin, &theirs))
	w.Mailbox.Aliases = []string{"Info@northwind.example"}
	conflict(s.UpdateMailbox(ctx, Admin, &w.Mailbox), "aliases")
}

// testMailboxKeepsFirm: else one firm's credential could be read under another.
func testMailboxKeepsFirm(t *testing.T, w *World) {
	other := broker.Firm{Name: "Other"}
	must(t, w.Store.CreateFirm(ctx, Admin, &other))
	m := w.Mailbox
	m.FirmID = other.ID
	wantField(t, w.Store.UpdateMailbox(ctx, Admin, &m), "firm_id")
	d := broker.Delegation{FirmID: other.ID, MailboxID: w.Mailbox.ID, Terms: w.Delegation.Terms}
	wantField(t, w.Store.CreateDelegation(ctx, Admin, &d), "firm_id")
	a := broker.Assignment{DelegationID: w.Delegation.ID, AgentID: w.Agent.ID, FirmID: other.ID, Terms: w.Assignment.Terms}
	wantField(t, w.Store.CreateAssignment(ctx, Admin, &a), "firm_id")
	a.FirmID, a.MailboxID = "", broker.NewID()
	wantField(t, w.Store.CreateAssignment(ctx, Admin, &a), "mailbox_id")
}
