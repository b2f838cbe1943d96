// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// maxDomains bounds a firm's domains.
const maxDomains = 100

const firmByID = `SELECT doc FROM firms WHERE id = $1`

// CreateFirm adds a firm, and begins its log.
func (s *Store) CreateFirm(ctx context.Context, by broker.Actor, f *broker.Firm) error {
	n := *f
	if err := name("name", n.Name); err != nil {
		return err
	}
	if err := text("contact", n.Contact, maxText); err != nil {
		return err
	}
	if !n.ClaimedAt.IsZero() {
		return broker.InvalidField("claimed_at", "a new firm cannot be claimed")
	}
	if err := domains(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		taken, err := t.exists(`SELECT 1 FROM firms WHERE name_key = $1`, key(n.Name))
		if err != nil {
			return err
		}
		if taken {
			return conflict("a firm of that name exists already")
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO firms (id, name_key, doc) VALUES ($1, $2, $3)`, string(n.ID), key(n.Name), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindFirm, verb: "created", id: n.ID, after: doc,
			event: broker.Event{FirmID: n.ID},
		})
	})
	if err == nil {
		*f = n
	}
	return err
}

// domains wants domains or whole addresses, each once, and takes them from the
// caller, in lower case.
func domains(f *broker.Firm) error {
	if len(f.Domains) > maxDomains {
		return broker.InvalidField("domains", "more than %d", maxDomains)
	}
	f.Domains = slices.Clone(f.Domains)
	for i, d := range f.Domains {
		f.Domains[i] = key(d)
		if strings.Contains(d, "@") {
			if err := address("domains", d); err != nil {
				return err
			}
		} else if !isDomain(d) {
			return broker.InvalidField("domains", "%q is neither a domain nor an address", d)
		}
		if slices.Contains(f.Domains[:i], f.Domains[i]) {
			return broker.InvalidField("domains", "%q is there twice", d)
		}
	}
	return nil
}

// addressesAllowed keeps a firm's people within the firm's domains. Without
// it, a firm could learn by asking which addresses are another firm's. What
// the mailbox had before may stay.
func (t *tx) addressesAllowed(by broker.Actor, m *broker.Mailbox, had []string) error {
	if by.Kind != string(broker.RoleFirmAdmin) {
		return nil
	}
	f, err := one[broker.Firm](t.query, kindFirm, firmByID, string(m.FirmID))
	if err != nil {
		return err
	}
	for i, a := range m.Addresses() {
		_, domain, _ := strings.Cut(a, "@")
		if slices.Contains(had, a) || slices.Contains(f.Domains, domain) || slices.Contains(f.Domains, a) {
			continue
		}
		e := broker.Errorf(broker.Refused, "%s is in none of the domains that the BPO has noted for the firm: ask it to add %s", a, domain)
		if e.Field = "aliases"; i == 0 {
			e.Field = "address"
		}
		return e
	}
	return nil
}

// UpdateFirm changes the contact and the domains alone.
func (s *Store) UpdateFirm(ctx context.Context, by broker.Actor, f *broker.Firm) error {
	wanted := *f
	if err := text("contact", wanted.Contact, maxText); err != nil {
		return err
	}
	if err := domains(&wanted); err != nil {
		return err
	}
	var n broker.Firm
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Firm](t.query, kindFirm, firmByID, string(wanted.ID))
		if err != nil {
			return err
		}
		if wanted.Contact != old.Contact {
			if err := t.speaksFor(by, old.ID); err != nil {
				return err
			}
		}
		if by.Kind == string(broker.RoleFirmAdmin) && !slices.Equal(wanted.Domains, old.Domains) {
			return broker.Errorf(broker.Refused, "the domains are the BPO's to note")
		}
		n = *old
		n.Contact, n.Domains = wanted.Contact, wanted.Domains
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE firms SET doc = $1 WHERE id = $2`, after, string(n.ID)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindFirm, verb: "updated", id: n.ID, before: before, after: after, event: broker.Event{FirmID: n.ID},
		})
	})
	if err == nil {
		*f = n
	}
	return err
}

// Firm returns a firm.
func (s *Store) Firm(ctx context.Context, id broker.ID) (*broker.Firm, error) {
	return one[broker.Firm](s.read(ctx), kindFirm, firmByID, string(id))
}

// Firms returns all firms, by name.
func (s *Store) Firms(ctx context.Context) ([]*broker.Firm, error) {
	return many[broker.Firm](s.read(ctx), kindFirm, `SELECT doc FROM firms ORDER BY name_key`)
}
