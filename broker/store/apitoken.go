// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"

	"github.com/postern-mail/postern/broker"
)

// maxScopes bounds a token's scopes.
const maxScopes = 32

// CreateAPIToken adds a token, of which the store has the hash alone.
func (s *Store) CreateAPIToken(ctx context.Context, by broker.Actor, a *broker.APIToken) error {
	n := *a
	if err := prepareAPIToken(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		p, err := one[broker.Person](t.query, kindPerson, personByID, string(n.PersonID))
		if err != nil {
			return missing(err, "person_id")
		}
		if !p.RemovedAt.IsZero() {
			return conflict("the person was removed")
		}
		// Anyone may make a token for himself: it is worth no more than the one
		// that he makes it with.
		if by.ID != p.ID || by.Kind != string(p.Role) {
			if err := t.mayManagePeople(by, p.FirmID); err != nil {
				return err
			}
		}
		return t.createAPIToken(by, p, &n)
	})
	if err == nil {
		*a = n
	}
	return err
}

// prepareAPIToken checks a new token and takes it from its caller.
func prepareAPIToken(n *broker.APIToken) error {
	n.Hash, n.Scopes = bytes.Clone(n.Hash), slices.Clone(n.Scopes)
	n.ExpiresAt = stored(n.ExpiresAt)
	if err := text("label", n.Label, maxName); err != nil {
		return err
	}
	if len(n.Hash) != sha256.Size {
		return broker.InvalidField("hash", "not HMAC-SHA-256")
	}
	if len(n.Scopes) > maxScopes {
		return broker.InvalidField("scopes", "more than %d", maxScopes)
	}
	for _, scope := range n.Scopes {
		if err := name("scopes", scope); err != nil {
			return err
		}
	}
	if n.ExpiresAt.IsZero() {
		return broker.InvalidField("expires_at", "missing: a token ends")
	}
	if !n.RevokedAt.IsZero() {
		return broker.InvalidField("revoked_at", "a new token cannot be revoked")
	}
	return nil
}

func (t *tx) createAPIToken(by broker.Actor, p *broker.Person, n *broker.APIToken) error {
	if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
		return err
	}
	n.PersonID, n.FirmID = p.ID, p.FirmID
	if !n.ExpiresAt.After(n.CreatedAt) {
		return broker.InvalidField("expires_at", "not after its creation")
	}
	doc, err := encode(n)
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO api_tokens (id, person_id, firm_id, hash, doc) VALUES ($1, $2, $3, $4, $5)`,
		string(n.ID), string(n.PersonID), string(n.FirmID), n.Hash, doc); err != nil {
		return err
	}
	return t.recordEvent(by, changed{kind: kindAPIToken, verb: "created", after: doc, event: broker.Event{FirmID: n.FirmID}})
}

// RevokeAPIToken ends a token for good. Its own person may, and whoever
// manages the people of its side.
func (s *Store) RevokeAPIToken(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		a, err := one[broker.APIToken](t.query, kindAPIToken, `SELECT doc FROM api_tokens WHERE id = $1`, string(id))
		if err != nil {
			return err
		}
		if by.ID != a.PersonID {
			if err := t.mayManagePeople(by, a.FirmID); err != nil {
				return err
			}
		}
		return t.revokeAPITokens(by, `SELECT doc FROM api_tokens WHERE id = $1 AND revoked_at IS NULL`, string(id))
	})
}

// revokeAPITokens revokes those that the query returns.
func (t *tx) revokeAPITokens(by broker.Actor, query string, args ...any) error {
	all, err := many[broker.APIToken](t.query, kindAPIToken, query, args...)
	if err != nil {
		return err
	}
	for _, old := range all {
		n := *old
		n.RevokedAt = t.now
		before, after, err := documents(old, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE api_tokens SET doc = $1, revoked_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
			return err
		}
		if err := t.recordEvent(by, changed{
			kind: kindAPIToken, verb: "revoked", before: before, after: after, event: broker.Event{FirmID: n.FirmID},
		}); err != nil {
			return err
		}
	}
	return nil
}

// APITokenByHash returns a token and whom it speaks for. Timing tells nothing
// about a token: the hash is keyed.
func (s *Store) APITokenByHash(ctx context.Context, hash []byte) (*broker.APIToken, *broker.Person, error) {
	a, err := one[broker.APIToken](s.read(ctx), kindAPIToken, `SELECT doc FROM api_tokens WHERE hash = $1`, hash)
	if err != nil {
		return nil, nil, err
	}
	p, err := s.Person(ctx, a.PersonID)
	return a, p, err
}

// APITokens returns the tokens of a firm's people or of the BPO's, revoked
// ones among them, oldest first.
func (s *Store) APITokens(ctx context.Context, firm broker.ID) ([]*broker.APIToken, error) {
	return many[broker.APIToken](s.read(ctx), kindAPIToken,
		`SELECT doc FROM api_tokens WHERE firm_id = $1 ORDER BY id`, string(firm))
}
