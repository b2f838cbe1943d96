// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"net/url"
	"strings"

	"github.com/postern-mail/postern/broker"
)

var _ broker.People = (*Store)(nil)

const personByID = `SELECT doc FROM people WHERE id = $1`

// CreatePerson adds somebody who manages Postern.
func (s *Store) CreatePerson(ctx context.Context, by broker.Actor, p *broker.Person) error {
	n := *p
	if err := checkPerson(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := t.mayManagePeople(by, n.FirmID); err != nil {
			return err
		}
		return t.createPerson(by, &n)
	})
	if err == nil {
		*p = n
	}
	return err
}

func checkPerson(p *broker.Person) error {
	if err := name("name", p.Name); err != nil {
		return err
	}
	switch p.Role {
	case broker.RoleAdmin, broker.RoleAuditor, broker.RoleFirmAdmin, broker.RoleFirmAuditor:
	default:
		return broker.InvalidField("role", "use admin, auditor, firm-admin or firm-auditor")
	}
	if p.Role.OfFirm() != (p.FirmID != "") {
		return broker.InvalidField("role", "firm-admin and firm-auditor are a firm's people, admin and auditor the BPO's")
	}
	if !p.RemovedAt.IsZero() {
		return broker.InvalidField("removed_at", "a new person cannot be removed")
	}
	if i := p.Identity; i != nil {
		if u, err := url.Parse(i.Issuer); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return broker.InvalidField("identity.issuer", "not an issuer's URL")
		}
		if i.Subject == "" {
			return broker.InvalidField("identity.subject", "missing")
		}
		if err := text("identity.issuer", i.Issuer, maxText); err != nil {
			return err
		}
		return text("identity.subject", i.Subject, maxText)
	}
	return nil
}

// identityKey is an identity as it is looked up; neither part has a space.
func identityKey(i broker.Identity) string {
	return url.QueryEscape(i.Issuer) + " " + url.QueryEscape(i.Subject)
}

// mayManagePeople refuses whoever is not of the side whose people it is about:
// the BPO can neither add nor reset a firm's. Which firm a firm-admin is of,
// the store reads itself.
func (t *tx) mayManagePeople(by broker.Actor, firm broker.ID) error {
	if firm == "" && (by.Kind == string(broker.RoleAdmin) || by.Kind == "system") {
		return nil
	}
	if firm != "" && by.Kind == string(broker.RoleFirmAdmin) {
		p, err := one[broker.Person](t.query, kindPerson, personByID, string(by.ID))
		if err != nil && broker.CodeOf(err) != broker.NotFound {
			return err
		}
		if err == nil && p.FirmID == firm && p.Role == broker.RoleFirmAdmin && p.RemovedAt.IsZero() {
			return nil
		}
	}
	return broker.Errorf(broker.Refused, "a firm's people are its own admins' affair, the BPO's its admins'")
}

func (t *tx) createPerson(by broker.Actor, n *broker.Person) error {
	taken, err := t.exists(`SELECT 1 FROM people WHERE firm_id = $1 AND name_key = $2 AND removed_at IS NULL`, string(n.FirmID), key(n.Name))
	if err != nil {
		return err
	}
	if taken {
		return conflict("a person of that name exists already")
	}
	var identity any
	if n.Identity != nil {
		identity = identityKey(*n.Identity)
		if taken, err = t.exists(`SELECT 1 FROM people WHERE identity_key = $1 AND removed_at IS NULL`, identity); err != nil {
			return err
		}
		if taken {
			// It may be another firm's, of which this must tell nothing more
			// than whoever has the identity knows.
			return conflict("the identity cannot be used")
		}
	}
	if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
		return err
	}
	doc, err := encode(n)
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO people (id, firm_id, name_key, identity_key, doc) VALUES ($1, $2, $3, $4, $5)`,
		string(n.ID), string(n.FirmID), key(n.Name), identity, doc); err != nil {
		return err
	}
	return t.recordEvent(by, changed{kind: kindPerson, verb: "created", after: doc, event: broker.Event{FirmID: n.FirmID}})
}

// RemovePerson removes somebody and revokes what speaks for him.
func (s *Store) RemovePerson(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Person](t.query, kindPerson, personByID, string(id))
		if err != nil {
			return err
		}
		if err := t.mayManagePeople(by, old.FirmID); err != nil {
			return err
		}
		if !old.RemovedAt.IsZero() {
			return nil
		}
		if err := t.leavesAnAdmin(old); err != nil {
			return err
		}
		n := *old
		n.RemovedAt = t.now
		before, after, err := documents(old, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE people SET doc = $1, removed_at = $2 WHERE id = $3`, after, micros(t.now), string(id)); err != nil {
			return err
		}
		if err := t.recordEvent(by, changed{
			kind: kindPerson, verb: "removed", before: before, after: after, event: broker.Event{FirmID: n.FirmID},
		}); err != nil {
			return err
		}
		return t.revokeAPITokens(by, `SELECT doc FROM api_tokens WHERE person_id = $1 AND revoked_at IS NULL ORDER BY id`, string(id))
	})
}

// leavesAnAdmin keeps the last one who can add people: nobody else could.
func (t *tx) leavesAnAdmin(leaving *broker.Person) error {
	if leaving.Role != broker.RoleFirmAdmin && leaving.Role != broker.RoleAdmin {
		return nil
	}
	others, err := many[broker.Person](t.query, kindPerson, peopleOf, string(leaving.FirmID))
	if err != nil {
		return err
	}
	for _, p := range others {
		if p.ID != leaving.ID && p.Role == leaving.Role {
			return nil
		}
	}
	return conflict("%s is the last %s: add another first", leaving.Name, strings.ReplaceAll(string(leaving.Role), "-", " "))
}

// Person returns a person, removed or not.
func (s *Store) Person(ctx context.Context, id broker.ID) (*broker.Person, error) {
	return one[broker.Person](s.read(ctx), kindPerson, personByID, string(id))
}

// PersonByIdentity returns the person of an OpenID Connect identity.
func (s *Store) PersonByIdentity(ctx context.Context, i broker.Identity) (*broker.Person, error) {
	return one[broker.Person](s.read(ctx), kindPerson,
		`SELECT doc FROM people WHERE identity_key = $1 AND removed_at IS NULL`, identityKey(i))
}

const peopleOf = `SELECT doc FROM people WHERE firm_id = $1 AND removed_at IS NULL ORDER BY name_key`

// People returns the people of a firm, or of the BPO, who were not removed.
func (s *Store) People(ctx context.Context, firm broker.ID) ([]*broker.Person, error) {
	return many[broker.Person](s.read(ctx), kindPerson, peopleOf, string(firm))
}
