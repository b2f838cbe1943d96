// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

const (
	providerByID = `SELECT doc FROM providers WHERE id = $1 AND deleted_at IS NULL`
	maxSettings  = 64 << 10 // octets
	maxEveryDays = 3660
)

var _ broker.Providers = (*Store)(nil)

// settings wants a JSON object, or nothing. What is in it is the driver's.
func settings(field string, raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	var object map[string]json.RawMessage
	if len(raw) > maxSettings || json.Unmarshal(raw, &object) != nil || object == nil {
		return broker.InvalidField(field, "give a JSON object of at most %d octets", maxSettings)
	}
	return nil
}

func checkProvider(p *broker.Provider) error {
	if err := name("name", p.Name); err != nil {
		return err
	}
	if p.Driver == "" || strings.Trim(p.Driver, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return broker.InvalidField("driver", "not a driver's name")
	}
	p.Settings = slices.Clone(p.Settings)
	return settings("settings", p.Settings)
}

// checkMethod checks a mailbox's way of rotating.
func checkMethod(m *broker.Mailbox) error {
	if m.Rotation == nil {
		return nil
	}
	r := *m.Rotation
	r.Settings, r.On = slices.Clone(r.Settings), slices.Clone(r.On)
	m.Rotation = &r
	if _, err := broker.ParseID(string(r.ProviderID)); err != nil {
		return broker.InvalidField("rotation.provider_id", "not a provider's id")
	}
	if r.EveryDays < 0 || r.EveryDays > maxEveryDays {
		return broker.InvalidField("rotation.every_days", "use 1 to %d, or 0 for no schedule", maxEveryDays)
	}
	if field, reason := r.Window.Validate(); reason != "" {
		return broker.InvalidField("rotation.window."+field, "%s", reason)
	}
	for i, cause := range r.On {
		switch cause {
		case broker.RotateOnRevoke, broker.RotateOnOffBoard, broker.RotateOnLock, broker.RotateOnDrift:
		default:
			return broker.InvalidField("rotation.on", "%q is none of revoke, off-board, lock, drift", cause)
		}
		if slices.Contains(r.On[:i], cause) {
			return broker.InvalidField("rotation.on", "%s is there twice", cause)
		}
	}
	return settings("rotation.settings", r.Settings)
}

// methodFits wants the provider to be the firm's own.
func (t *tx) methodFits(m *broker.Mailbox) error {
	if m.Rotation == nil {
		return nil
	}
	p, err := one[broker.Provider](t.query, kindProvider, providerByID, string(m.Rotation.ProviderID))
	if err == nil && p.FirmID != m.FirmID {
		err = notFound(kindProvider) // another firm's is as little there as one that nobody has
	}
	return missing(err, "rotation.provider_id")
}

func providerEvent(p *broker.Provider) broker.Event { return broker.Event{FirmID: p.FirmID} }

// CreateProvider adds a provider to a firm.
func (s *Store) CreateProvider(ctx context.Context, by broker.Actor, p *broker.Provider) error {
	n := *p
	if err := checkProvider(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(n.FirmID)); err != nil {
			return missing(err, "firm_id")
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if err := t.providerNameFree(&n); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO providers (id, firm_id, name_key, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.FirmID), key(n.Name), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindProvider, verb: "created", id: n.ID, after: doc, event: providerEvent(&n)})
	})
	if err == nil {
		*p = n
	}
	return err
}

func (t *tx) providerNameFree(p *broker.Provider) error {
	taken, err := t.exists(`SELECT 1 FROM providers WHERE firm_id = $1 AND name_key = $2 AND deleted_at IS NULL AND id <> $3`,
		string(p.FirmID), key(p.Name), string(p.ID))
	if err == nil && taken {
		err = conflict("the firm has a provider of that name already")
	}
	return err
}

// UpdateProvider replaces a provider, which stays with its firm.
func (s *Store) UpdateProvider(ctx context.Context, by broker.Actor, p *broker.Provider) error {
	n := *p
	if err := checkProvider(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Provider](t.query, kindProvider, providerByID, string(n.ID))
		if err != nil {
			return err
		}
		n.FirmID, n.CreatedAt = old.FirmID, old.CreatedAt
		if err := t.providerNameFree(&n); err != nil {
			return err
		}
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE providers SET name_key = $1, doc = $2 WHERE id = $3`, key(n.Name), after, string(n.ID)); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindProvider, verb: "updated", id: n.ID, before: before, after: after, event: providerEvent(&n)})
	})
	if err == nil {
		*p = n
	}
	return err
}

// DeleteProvider removes a provider that no mailbox uses.
func (s *Store) DeleteProvider(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Provider](t.query, kindProvider, providerByID, string(id))
		if err != nil {
			return err
		}
		if err := t.speaksFor(by, old.FirmID); err != nil {
			return err
		}
		mailboxes, err := many[broker.Mailbox](t.query, kindMailbox,
			`SELECT doc FROM mailboxes WHERE firm_id = $1 AND deleted_at IS NULL ORDER BY address_key`, string(old.FirmID))
		if err != nil {
			return err
		}
		for _, m := range mailboxes {
			if m.Rotation != nil && m.Rotation.ProviderID == id {
				return conflict("mailbox %s is rotated by it: change that first", m.Address)
			}
		}
		before, err := encode(old)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE providers SET deleted_at = $1 WHERE id = $2`, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindProvider, verb: "deleted", id: id, before: before, event: providerEvent(old)})
	})
}

// Provider returns a provider.
func (s *Store) Provider(ctx context.Context, id broker.ID) (*broker.Provider, error) {
	return one[broker.Provider](s.read(ctx), kindProvider, providerByID, string(id))
}

// FirmProviders returns a firm's providers, or all, by name.
func (s *Store) FirmProviders(ctx context.Context, firm broker.ID) ([]*broker.Provider, error) {
	if firm == "" {
		return many[broker.Provider](s.read(ctx), kindProvider,
			`SELECT doc FROM providers WHERE deleted_at IS NULL ORDER BY name_key, id`)
	}
	return many[broker.Provider](s.read(ctx), kindProvider,
		`SELECT doc FROM providers WHERE firm_id = $1 AND deleted_at IS NULL ORDER BY name_key, id`, string(firm))
}

// ProviderAccountSet records that a provider account was stored.
func (s *Store) ProviderAccountSet(ctx context.Context, by broker.Actor, provider broker.ID, version int) error {
	if version < 1 {
		return broker.InvalidField("version", "not a stored version")
	}
	return s.mutate(ctx, by, func(t *tx) error {
		p, err := one[broker.Provider](t.query, kindProvider, providerByID, string(provider))
		if err != nil {
			return err
		}
		if err := t.speaksFor(by, p.FirmID); err != nil {
			return err
		}
		e := providerEvent(p)
		e.Type, e.Actor, e.Data = broker.EventProviderAccount, by, broker.CredentialSetData{Version: version}
		return t.appendEvent(&e)
	})
}
