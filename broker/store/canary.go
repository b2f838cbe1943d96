// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

const (
	canaryByID = `SELECT doc FROM canaries WHERE id = $1`
	canariesOf = `SELECT doc FROM canaries WHERE mailbox_id = $1 AND removed_at IS NULL ORDER BY id`
)

var _ broker.Canaries = (*Store)(nil)

func checkCanary(c *broker.Canary) error {
	for field, s := range map[string]string{"folder": c.Folder, "message_id": c.MessageID, "note": c.Note} {
		if err := text(field, s, 1000); err != nil {
			return err
		}
	}
	switch {
	case c.UID == 0 && c.MessageID == "":
		return broker.InvalidField("uid", "name the message by folder and UID, or by its Message-ID")
	case c.UID != 0 && (c.Folder == "" || c.UIDValidity == 0):
		return broker.InvalidField("folder", "a UID goes with its folder")
	}
	return nil
}

// firmOnly refuses whoever is not a firm's admin.
func firmOnly(by broker.Actor) error {
	if by.Kind != string(broker.RoleFirmAdmin) {
		return broker.Errorf(broker.Refused, "canaries are the firm's own people's affair")
	}
	return nil
}

// CreateCanary is described at broker.Canaries.
func (s *Store) CreateCanary(ctx context.Context, by broker.Actor, c *broker.Canary) error {
	n := *c
	if err := checkCanary(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := firmOnly(by); err != nil {
			return err
		}
		m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(n.MailboxID))
		if err != nil {
			return missing(err, "mailbox_id")
		}
		full, err := t.exists(`SELECT 1 FROM canaries WHERE mailbox_id = $1 AND removed_at IS NULL ORDER BY id LIMIT 1 OFFSET $2`,
			string(m.ID), broker.MaxCanaries-1)
		if err != nil {
			return err
		}
		if full {
			return broker.Errorf(broker.Limit, "the mailbox has %d canaries: remove some first", broker.MaxCanaries)
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		n.FirmID = m.FirmID
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO canaries (id, mailbox_id, doc) VALUES ($1, $2, $3)`, string(n.ID), string(m.ID), doc); err != nil {
			return err
		}
		return t.canaryMarked(by, broker.EventCanaryCreated, &n)
	})
	if err == nil {
		*c = n
	}
	return err
}

// canaryMarked records that canaries have changed, and not which messages they
// are. The policy revision says to every node that those it knows are out of date.
func (t *tx) canaryMarked(by broker.Actor, typ broker.EventType, c *broker.Canary) error {
	err := t.appendEvent(&broker.Event{Type: typ, Actor: by, FirmID: c.FirmID, MailboxID: c.MailboxID, Data: broker.CanaryMarked{Canary: c.ID}})
	if err != nil {
		return err
	}
	return t.change(broker.Change{Kind: kindCanary, ID: c.ID})
}

// RemoveCanary is described at broker.Canaries.
func (s *Store) RemoveCanary(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		if err := firmOnly(by); err != nil {
			return err
		}
		c, err := one[broker.Canary](t.query, kindCanary, canaryByID+` AND removed_at IS NULL`, string(id))
		if err != nil {
			return err
		}
		c.RemovedAt = stored(t.now)
		doc, err := encode(c)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE canaries SET doc = $1, removed_at = $2 WHERE id = $3`, doc, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.canaryMarked(by, broker.EventCanaryRemoved, c)
	})
}

// Canary is described at broker.Canaries.
func (s *Store) Canary(ctx context.Context, id broker.ID) (*broker.Canary, error) {
	return one[broker.Canary](s.read(ctx), kindCanary, canaryByID, string(id))
}

// Canaries is described at broker.Canaries.
func (s *Store) Canaries(ctx context.Context, mailbox broker.ID) ([]*broker.Canary, error) {
	return many[broker.Canary](s.read(ctx), kindCanary, canariesOf, string(mailbox))
}
