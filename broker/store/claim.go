// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"

	"github.com/postern-mail/postern/broker"
)

// CreateClaim makes the claim of a firm that has no people yet.
func (s *Store) CreateClaim(ctx context.Context, by broker.Actor, c *broker.Claim) error {
	n := *c
	n.Hash, n.ExpiresAt = bytes.Clone(n.Hash), stored(n.ExpiresAt)
	if len(n.Hash) != sha256.Size {
		return broker.InvalidField("hash", "not HMAC-SHA-256")
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		f, err := one[broker.Firm](t.query, kindFirm, firmByID, string(n.FirmID))
		if err != nil {
			return missing(err, "firm_id")
		}
		if !f.ClaimedAt.IsZero() {
			return conflict("%s was claimed already: its own admins add people", f.Name)
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if !n.ExpiresAt.After(n.CreatedAt) {
			return broker.InvalidField("expires_at", "not after its creation")
		}
		if err := t.replaceClaims(by, n.FirmID); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO claims (id, firm_id, hash, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.FirmID), n.Hash, doc); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindClaim, verb: "created", after: doc, event: broker.Event{FirmID: n.FirmID}})
	})
	if err == nil {
		*c = n
	}
	return err
}

// replaceClaims ends the claims of a firm that were not redeemed.
func (t *tx) replaceClaims(by broker.Actor, firm broker.ID) error {
	all, err := many[broker.Claim](t.query, kindClaim, `SELECT doc FROM claims WHERE firm_id = $1 AND over_at IS NULL`, string(firm))
	if err != nil {
		return err
	}
	for _, old := range all {
		n := *old
		n.ReplacedAt = t.now
		if err := t.endClaim(by, "replaced", old, &n); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) endClaim(by broker.Actor, verb string, old, n *broker.Claim) error {
	before, after, err := documents(old, n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE claims SET doc = $1, over_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
		return err
	}
	return t.recordEvent(by, changed{kind: kindClaim, verb: verb, before: before, after: after, event: broker.Event{FirmID: n.FirmID}})
}

// RedeemClaim makes the firm's first admin, and his token, out of its claim.
func (s *Store) RedeemClaim(ctx context.Context, hash []byte, p *broker.Person, a *broker.APIToken) (*broker.Firm, error) {
	hash = bytes.Clone(hash)
	person, token := *p, *a
	if err := prepareAPIToken(&token); err != nil {
		return nil, err
	}
	if err := name("name", person.Name); err != nil {
		return nil, err
	}
	var claimed broker.Firm
	err := s.write(ctx, func(t *tx) error {
		c, err := one[broker.Claim](t.query, kindClaim, `SELECT doc FROM claims WHERE hash = $1 AND over_at IS NULL`, hash)
		if err != nil {
			return err
		}
		if !t.now.Before(c.ExpiresAt) {
			return notFound(kindClaim)
		}
		person.FirmID, person.Role = c.FirmID, broker.RoleFirmAdmin
		if person.ID == "" {
			person.ID = broker.NewID()
		}
		by := broker.Actor{Kind: string(broker.RoleFirmAdmin), Name: person.Name, ID: person.ID}
		f, err := t.claimFirm(by, c.FirmID)
		if err != nil {
			return err
		}
		claimed = *f
		n := *c
		n.RedeemedAt, n.RedeemedBy = t.now, person.ID
		if err := t.endClaim(by, "redeemed", c, &n); err != nil {
			return err
		}
		if err := checkPerson(&person); err != nil {
			return err
		}
		if err := t.createPerson(by, &person); err != nil {
			return err
		}
		return t.createAPIToken(by, &person, &token)
	})
	if err != nil {
		return nil, err
	}
	*p, *a = person, token
	return &claimed, nil
}

// claimFirm makes a firm its own people's.
func (t *tx) claimFirm(by broker.Actor, id broker.ID) (*broker.Firm, error) {
	old, err := one[broker.Firm](t.query, kindFirm, firmByID, string(id))
	if err != nil {
		return nil, err
	}
	if !old.ClaimedAt.IsZero() {
		return nil, notFound(kindClaim)
	}
	n := *old
	n.ClaimedAt = t.now
	before, after, err := documents(old, &n)
	if err != nil {
		return nil, err
	}
	if err := t.update(`UPDATE firms SET doc = $1 WHERE id = $2`, after, string(id)); err != nil {
		return nil, err
	}
	return &n, t.recordChange(by, changed{
		kind: kindFirm, verb: "updated", id: id, before: before, after: after, event: broker.Event{FirmID: id},
	})
}
