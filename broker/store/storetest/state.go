// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
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

// testInvalid changes one field of something good in each case.
func testInvalid(t *testing.T, w *World) {
	s := w.Store
	long := strings.Repeat("a", 101)
	firm := func(f broker.Firm) error { return s.CreateFirm(ctx, Admin, &f) }
	agent := func(name string) error { return s.CreateAgent(ctx, Admin, &broker.Agent{Name: name}) }
	mailbox := func(change func(*broker.Mailbox)) error {
		m := MailboxOf(&w.Firm, "new@northwind.example")
		change(&m)
		return s.CreateMailbox(ctx, Admin, &m)
	}
	machine := func(change func(*broker.Workstation)) error {
		m := broker.Workstation{Name: "new", Class: broker.ClassSoftware, KeyPins: []string{Pin()}}
		change(&m)
		return s.CreateWorkstation(ctx, Admin, &m)
	}
	site := func(only bool, networks ...string) error {
		x := broker.Site{Name: "new", NetworkOnly: only}
		for _, n := range networks {
			x.Networks = append(x.Networks, netip.MustParsePrefix(n))
		}
		return s.CreateSite(ctx, Admin, &x)
	}
	grant := func(terms policy.Terms) error {
		return s.CreateDelegation(ctx, Admin, &broker.Delegation{MailboxID: w.Mailbox.ID, Terms: terms})
	}
	now := w.Firm.CreatedAt
	for _, c := range []struct {
		name, field string
		err         error
	}{
		{"no name", "name", firm(broker.Firm{})},
		{"long name", "name", firm(broker.Firm{Name: long})},
		{"line end in a name", "name", firm(broker.Firm{Name: "a\r\nb"})},
		{"bidirectional override", "name", firm(broker.Firm{Name: "a\u202eb"})},
		{"not UTF-8", "name", firm(broker.Firm{Name: "a\xff"})},
		{"space around a name", "name", firm(broker.Firm{Name: " a"})},
		{"line end in a contact", "contact", firm(broker.Firm{Name: "a", Contact: "x\n* BYE"})},
		{"id", "id", firm(broker.Firm{Name: "a", ID: "../x"})},
		{"agent with a slash", "name", agent("a/b")},
		{"agent with a quote", "name", agent(`a"b`)},
		{"agent in other letters", "name", agent("rаvi")}, // Cyrillic а
		{"no address", "address", mailbox(func(m *broker.Mailbox) { m.Address = "" })},
		{"address without a domain", "address", mailbox(func(m *broker.Mailbox) { m.Address = "a@" })},
		{"quoted local part", "address", mailbox(func(m *broker.Mailbox) { m.Address = `"a b"@northwind.example` })},
		{"address with parameters", "address", mailbox(func(m *broker.Mailbox) { m.Address = "a@x.example> NOTIFY=NEVER" })},
		{"two at signs", "address", mailbox(func(m *broker.Mailbox) { m.Address = "a@b@x.example" })},
		{"dots in a row", "address", mailbox(func(m *broker.Mailbox) { m.Address = "a..b@x.example" })},
		{"address literal", "address", mailbox(func(m *broker.Mailbox) { m.Address = "a@[192.0.2.1]" })},
		{"long local part", "address", mailbox(func(m *broker.Mailbox) { m.Address = strings.Repeat("a", 65) + "@x.example" })},
		{"bad alias", "aliases", mailbox(func(m *broker.Mailbox) { m.Aliases = []string{"x"} })},
		{"alias twice", "aliases", mailbox(func(m *broker.Mailbox) { m.Aliases = []string{"NEW@northwind.example"} })},
		{"sender of recovery mail", "recovery_senders[0]", mailbox(func(m *broker.Mailbox) { m.RecoverySenders = []string{`a" ALL "`} })},
		{"sender of all mail", "recovery_senders[1]", mailbox(func(m *broker.Mailbox) { m.RecoverySenders = []string{"a.example", "com"} })},
		{"sender twice", "recovery_senders[1]", mailbox(func(m *broker.Mailbox) { m.RecoverySenders = []string{"a.example", "A.example"} })},
		{"many senders", "recovery_senders", mailbox(func(m *broker.Mailbox) { m.RecoverySenders = make([]string, 21) })},
		{"no firm", "firm_id", mailbox(func(m *broker.Mailbox) { m.FirmID = broker.NewID() })},
		{"no host", "imap.host", mailbox(func(m *broker.Mailbox) { m.IMAP.Host = "" })},
		{"host with a port", "imap.host", mailbox(func(m *broker.Mailbox) { m.IMAP.Host = "x.example:993" })},
		{"host with a space", "imap.host", mailbox(func(m *broker.Mailbox) { m.IMAP.Host = "x example" })},
		{"short address", "imap.host", mailbox(func(m *broker.Mailbox) { m.IMAP.Host = "127.1" })},
		{"host with a zone", "imap.host", mailbox(func(m *broker.Mailbox) { m.IMAP.Host = "fe80::1%eth0" })},
		{"no port", "submission.port", mailbox(func(m *broker.Mailbox) { m.Submission.Port = 0 })},
		{"no TLS mode", "submission.tls", mailbox(func(m *broker.Mailbox) { m.Submission.TLS = "" })},
		{"plain text off the machine", "imap.tls", mailbox(func(m *broker.Mailbox) { m.IMAP.TLS = broker.TLSNone })},
		{"CA that is no PEM", "imap.ca", mailbox(func(m *broker.Mailbox) { m.IMAP.CA = "x" })},
		{"key among CAs", "imap.ca", mailbox(func(m *broker.Mailbox) {
			m.IMAP.CA = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		})},
		{"budget", "max_connections", mailbox(func(m *broker.Mailbox) { m.MaxConnections = 1001 })},
		{"user name", "username", mailbox(func(m *broker.Mailbox) { m.Username = "a\x00b" })},
		{"class", "class", machine(func(m *broker.Workstation) { m.Class = "tpm" })},
		{"site of a workstation", "site_id", machine(func(m *broker.Workstation) { m.SiteID = broker.NewID() })},
		{"group twice", "groups", machine(func(m *broker.Workstation) { m.Groups = []string{"a", "a"} })},
		{"pin in capitals", "key_pins", machine(func(m *broker.Workstation) { m.KeyPins = []string{strings.Repeat("A", 64)} })},
		{"short pin", "key_pins", machine(func(m *broker.Workstation) { m.KeyPins = []string{"aa"} })},
		{"no networks", "networks", site(false)},
		{"bits beyond the length", "networks", site(false, "192.0.2.1/24")},
		{"mapped network", "networks", site(false, "::ffff:192.0.2.0/120")},
		{"everywhere without a certificate", "network_only", site(true, "0.0.0.0/0")},
		{"no actions", "terms.actions", grant(policy.Terms{})},
		{"unknown action", "terms.actions", grant(policy.Terms{Actions: policy.All + 1})},
		{"no time", "terms.not_after", grant(policy.Terms{Actions: policy.List, NotBefore: now, NotAfter: now})},
		{"hours without a zone", "terms.hours.zone", grant(policy.Terms{Actions: policy.List, Hours: policy.Hours{Shifts: []policy.Shift{{Days: []string{"mon"}, From: "09:00", To: "18:00"}}}})},
		{"a slice that does not parse", "terms.slice", grant(policy.Terms{Actions: policy.List, Slice: "SINCE yesterday"})},
		{"a pattern that matches nothing", "terms.folders.allow[0]", grant(policy.Terms{Actions: policy.List, Folders: policy.FolderPatterns{Allow: []string{"A/"}}})},
		{"no such site", "terms.sites", grant(policy.Terms{Actions: policy.List, Sites: []string{string(broker.NewID())}})},
		{"no such mailbox", "mailbox_id", s.CreateDelegation(ctx, Admin, &broker.Delegation{Terms: w.Delegation.Terms})},
		{"no such delegation", "delegation_id", s.CreateAssignment(ctx, Admin, &broker.Assignment{Terms: w.Delegation.Terms})},
		{"no such agent", "agent_id", s.CreateAssignment(ctx, Admin, &broker.Assignment{DelegationID: w.Delegation.ID, Terms: w.Delegation.Terms})},
		{"token in place of its hash", "hash", s.CreateAppPassword(ctx, Admin, &broker.AppPassword{AgentID: w.Agent.ID, Hash: []byte("secret")})},
		{"expired from the start", "expires_at", s.CreateAppPassword(ctx, Admin, &broker.AppPassword{
			AgentID: w.Agent.ID, Hash: Hash(), CreatedAt: now, ExpiresAt: now,
		})},
		{"lock on nothing", "target_id", s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockFirm, TargetID: broker.NewID()})},
		{"lock on something else", "target", s.CreateLock(ctx, Admin, &broker.Lock{Target: "planet", TargetID: w.Firm.ID})},
		{"line end in a lock's message", "message", s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID, Message: "a\r\n"})},
		{"lock that is over", "until", s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockFirm, TargetID: w.Firm.ID, Until: time.Unix(1, 0)})},
		{"nobody", "actor.kind", s.CreateFirm(ctx, broker.Actor{}, &broker.Firm{Name: "a"})},
		{"credential not stored", "version", s.CredentialSet(ctx, Admin, w.Mailbox.ID, 0)},
	} {
		t.Run(c.name, func(t *testing.T) { wantField(t, c.err, c.field) })
	}
}

// testLoopback: plain text is for this machine alone.
func testLoopback(t *testing.T, w *World) {
	for host, good := range map[string]bool{
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "localhost": true, "LOCALHOST": true,
		"localhost.northwind.example": false, "192.0.2.1": false, "0.0.0.0": false, "::": false, "127.0.0.1.northwind.example": false,
	} {
		m := MailboxOf(&w.Firm, "a"+string(broker.NewID())+"@northwind.example")
		m.IMAP = broker.Endpoint{Host: host, Port: 143, TLS: broker.TLSNone}
		err := w.Store.CreateMailbox(ctx, Admin, &m)
		if good && err != nil || !good && broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", host, err)
		}
	}
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

func testLocks(t *testing.T, w *World) {
	s := w.Store
	targets := map[broker.LockTarget]broker.ID{
		broker.LockAgent: w.Agent.ID, broker.LockWorkstation: w.Workstation.ID, broker.LockMailbox: w.Mailbox.ID,
		broker.LockFirm: w.Firm.ID, broker.LockSite: w.Site.ID,
	}
	for target, id := range targets {
		l := broker.Lock{Target: target, TargetID: id, Message: "ask Meera", Until: time.Now().Add(time.Hour)}
		must(t, s.CreateLock(ctx, Admin, &l))
		locks, err := s.Locks(ctx)
		same(t, "locks", locks, err, []*broker.Lock{&l})
		must(t, s.RemoveLock(ctx, Admin, l.ID))
		must(t, s.RemoveLock(ctx, Admin, l.ID))
		locks, err = s.Locks(ctx)
		same(t, "locks", locks, err, nil)

		log := broker.ID("")
		if target == broker.LockFirm || target == broker.LockMailbox {
			log = w.Firm.ID
		}
		events, err := s.Events(ctx, broker.EventQuery{FirmID: log, After: -1, Type: "lock.removed"})
		must(t, err)
		if len(events) == 0 {
			t.Errorf("a lock on a %s is not in its log", target)
		}
	}
}
