// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"

	"github.com/postern-mail/postern/broker"
)

const appPasswordByID = `SELECT doc, hash FROM app_passwords WHERE id = $1`

// CreateAppPassword adds an app password, of which the store has the hash
// alone: HMAC-SHA-256, 32 octets.
func (s *Store) CreateAppPassword(ctx context.Context, by broker.Actor, p *broker.AppPassword) error {
	n := *p
	n.Hash, n.Groups = bytes.Clone(n.Hash), slices.Clone(n.Groups)
	n.ExpiresAt = stored(n.ExpiresAt)
	if err := checkAppPassword(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		agent, err := one[broker.Agent](t.query, kindAgent, agentByID, string(n.AgentID))
		if err != nil {
			return missing(err, "agent_id")
		}
		if agent.Authentication != "" {
			return conflict("%s has a password in the directory, and so no app password", agent.Name)
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(n.CreatedAt) {
			return broker.InvalidField("expires_at", "not after its creation")
		}
		taken, err := t.exists(`SELECT 1 FROM app_passwords WHERE hash = $1`, n.Hash)
		if err != nil {
			return err
		}
		if taken {
			return conflict("the token is in use")
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO app_passwords (id, agent_id, hash, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.AgentID), n.Hash, doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindAppPassword, verb: "created", id: n.ID, after: doc, event: broker.Event{AgentID: n.AgentID},
		})
	})
	if err == nil {
		*p = n
	}
	return err
}

func checkAppPassword(p *broker.AppPassword) error {
	if err := text("label", p.Label, maxName); err != nil {
		return err
	}
	if len(p.Hash) != sha256.Size {
		return broker.InvalidField("hash", "not HMAC-SHA-256")
	}
	if !p.RevokedAt.IsZero() {
		return broker.InvalidField("revoked_at", "a new app password cannot be revoked")
	}
	return groups("groups", p.Groups)
}

// RevokeAppPassword ends an app password for good. Revoking again is no error.
func (s *Store) RevokeAppPassword(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		if _, err := one[broker.AppPassword](t.query, kindAppPassword, appPasswordByID, string(id)); err != nil {
			return err
		}
		return t.revokeAppPasswords(by, `SELECT doc, hash FROM app_passwords WHERE id = $1 AND revoked_at IS NULL`, string(id))
	})
}

// revokeAppPasswordsOf revokes an agent's.
func (t *tx) revokeAppPasswordsOf(by broker.Actor, agent broker.ID) error {
	return t.revokeAppPasswords(by,
		`SELECT doc, hash FROM app_passwords WHERE agent_id = $1 AND revoked_at IS NULL ORDER BY id`, string(agent))
}

// revokeAppPasswords revokes those that the query returns.
func (t *tx) revokeAppPasswords(by broker.Actor, query string, args ...any) error {
	all, err := many[broker.AppPassword](t.query, kindAppPassword, query, args...)
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
		if err := t.update(`UPDATE app_passwords SET doc = $1, revoked_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
			return err
		}
		if err := t.recordChange(by, changed{
			kind: kindAppPassword, verb: "revoked", id: n.ID, before: before, after: after,
			event: broker.Event{AgentID: n.AgentID},
		}); err != nil {
			return err
		}
	}
	return nil
}

// AppPasswordByHash returns the app password with that hash, revoked and
// expired ones too. Timing tells nothing about a token: the hash is keyed.
func (s *Store) AppPasswordByHash(ctx context.Context, hash []byte) (*broker.AppPassword, error) {
	return one[broker.AppPassword](s.read(ctx), kindAppPassword, `SELECT doc, hash FROM app_passwords WHERE hash = $1`, hash)
}

// AppPassword returns an app password, revoked or not.
func (s *Store) AppPassword(ctx context.Context, id broker.ID) (*broker.AppPassword, error) {
	return one[broker.AppPassword](s.read(ctx), kindAppPassword, appPasswordByID, string(id))
}

// AppPasswords returns all app passwords, revoked ones among them, oldest
// first.
func (s *Store) AppPasswords(ctx context.Context) ([]*broker.AppPassword, error) {
	return many[broker.AppPassword](s.read(ctx), kindAppPassword, `SELECT doc, hash FROM app_passwords ORDER BY id`)
}
