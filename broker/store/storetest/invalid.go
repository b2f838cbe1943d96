// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

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
