// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

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

// Firm returns a firm.
func (s *Store) Firm(ctx context.Context, id broker.ID) (*broker.Firm, error) {
	return one[broker.Firm](s.read(ctx), kindFirm, firmByID, string(id))
}

// Firms returns all firms, by name.
func (s *Store) Firms(ctx context.Context) ([]*broker.Firm, error) {
	return many[broker.Firm](s.read(ctx), kindFirm, `SELECT doc FROM firms ORDER BY name_key`)
}
