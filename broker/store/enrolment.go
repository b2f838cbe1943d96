// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	enrolmentCodeByHash = `SELECT doc FROM enrolment_codes WHERE hash = $1 AND over_at IS NULL`
	enrolmentCodeByName = `SELECT doc FROM enrolment_codes WHERE name_key = $1 AND over_at IS NULL`
)

// described is the workstation that a code makes, without id and keys.
func described(c *broker.EnrolmentCode) broker.Workstation {
	return broker.Workstation{Name: c.Name, Class: c.Class, SiteID: c.SiteID, Groups: c.Groups, AgentID: c.AgentID}
}

// CreateEnrolmentCode makes a code for a workstation that does not exist yet.
func (s *Store) CreateEnrolmentCode(ctx context.Context, by broker.Actor, c *broker.EnrolmentCode) error {
	n := *c
	n.Hash, n.Groups, n.ExpiresAt = bytes.Clone(n.Hash), slices.Clone(n.Groups), stored(n.ExpiresAt)
	if len(n.Hash) != sha256.Size {
		return broker.InvalidField("hash", "not HMAC-SHA-256")
	}
	w := described(&n)
	if err := checkWorkstation(&w); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := t.workstationFits(&w); err != nil {
			return err
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if !n.ExpiresAt.After(n.CreatedAt) {
			return broker.InvalidField("expires_at", "not after its creation")
		}
		older, err := many[broker.EnrolmentCode](t.query, kindEnrolmentCode, enrolmentCodeByName, key(n.Name))
		if err != nil {
			return err
		}
		for _, old := range older {
			replaced := *old
			replaced.ReplacedAt = t.now
			if err := t.endEnrolmentCode(by, "replaced", old, &replaced); err != nil {
				return err
			}
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO enrolment_codes (id, name_key, hash, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), key(n.Name), n.Hash, doc); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindEnrolmentCode, verb: "created", after: doc})
	})
	if err == nil {
		*c = n
	}
	return err
}

func (t *tx) endEnrolmentCode(by broker.Actor, verb string, old, n *broker.EnrolmentCode) error {
	before, after, err := documents(old, n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE enrolment_codes SET doc = $1, over_at = $2 WHERE id = $3`, after, micros(t.now), string(n.ID)); err != nil {
		return err
	}
	return t.recordEvent(by, changed{kind: kindEnrolmentCode, verb: verb, before: before, after: after})
}

// EnrolmentCode returns a code that can be redeemed. Timing tells nothing about
// it: the hash is keyed.
func (s *Store) EnrolmentCode(ctx context.Context, hash []byte, now time.Time) (*broker.EnrolmentCode, error) {
	return goodEnrolmentCode(s.read(ctx), hash, now)
}

func goodEnrolmentCode(q querier, hash []byte, now time.Time) (*broker.EnrolmentCode, error) {
	c, err := one[broker.EnrolmentCode](q, kindEnrolmentCode, enrolmentCodeByHash, hash)
	if err == nil && !now.Before(c.ExpiresAt) {
		return nil, notFound(kindEnrolmentCode)
	}
	return c, err
}

// EnrolmentCodeFor returns the code for a workstation of that name that can be
// redeemed.
func (s *Store) EnrolmentCodeFor(ctx context.Context, name string, now time.Time) (*broker.EnrolmentCode, error) {
	c, err := one[broker.EnrolmentCode](s.read(ctx), kindEnrolmentCode, enrolmentCodeByName, key(name))
	if err == nil && !now.Before(c.ExpiresAt) {
		return nil, notFound(kindEnrolmentCode)
	}
	return c, err
}

// RedeemEnrolmentCode makes a workstation out of its code.
func (s *Store) RedeemEnrolmentCode(ctx context.Context, hash []byte, w *broker.Workstation) error {
	hash = bytes.Clone(hash)
	var made broker.Workstation
	err := s.write(ctx, func(t *tx) error {
		c, err := goodEnrolmentCode(t.query, hash, t.now)
		if err != nil {
			return err
		}
		made = described(c)
		made.ID, made.KeyPins, made.TPM = w.ID, w.KeyPins, w.TPM
		if made.ID == "" {
			made.ID = broker.NewID()
		}
		if err := checkWorkstation(&made); err != nil {
			return err
		}
		by := broker.Actor{Kind: "workstation", Name: made.Name, ID: made.ID}
		if err := t.createWorkstation(by, &made); err != nil {
			return err
		}
		n := *c
		n.RedeemedAt, n.WorkstationID = t.now, made.ID
		return t.endEnrolmentCode(by, "redeemed", c, &n)
	})
	if err == nil {
		*w = made
	}
	return err
}
