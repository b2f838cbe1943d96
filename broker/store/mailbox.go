// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"

	"github.com/postern-mail/postern/broker"
)

const mailboxByID = `SELECT doc FROM mailboxes WHERE id = $1 AND deleted_at IS NULL`

func checkMailbox(m *broker.Mailbox) error {
	if err := address("address", m.Address); err != nil {
		return err
	}
	if len(m.Aliases) > maxAliases {
		return broker.InvalidField("aliases", "more than %d", maxAliases)
	}
	m.Aliases = slices.Clone(m.Aliases)
	own := m.Addresses()
	for i, a := range m.Aliases {
		if err := address("aliases", a); err != nil {
			return err
		}
		if slices.Contains(own[:i+1], own[i+1]) {
			return broker.InvalidField("aliases", "%s is there twice", a)
		}
	}
	m.RecoverySenders = slices.Clone(m.RecoverySenders)
	if err := recoverySenders("recovery_senders", m.RecoverySenders); err != nil {
		return err
	}
	if err := endpoint("imap", m.IMAP); err != nil {
		return err
	}
	if err := endpoint("submission", m.Submission); err != nil {
		return err
	}
	if err := text("username", m.Username, broker.MaxUsername); err != nil {
		return err
	}
	if err := checkWatch(m); err != nil {
		return err
	}
	if err := checkMethod(m); err != nil {
		return err
	}
	if m.MaxConnections < 0 || m.MaxConnections > maxBudget {
		return broker.InvalidField("max_connections", "use 1 to %d, or 0 for the server's default", maxBudget)
	}
	return nil
}

// addressFree refuses an address that another mailbox has as its main one, and
// any that a mailbox of another firm has: each firm's word on who may send from
// an address would be the other's problem.
func (t *tx) addressFree(m *broker.Mailbox) error {
	taken, err := t.exists(`SELECT 1 FROM mailboxes WHERE address_key = $1 AND deleted_at IS NULL AND id <> $2`,
		key(m.Address), string(m.ID))
	if err != nil {
		return err
	}
	if taken {
		return conflict("a mailbox of that address exists already")
	}
	for i, address := range m.Addresses() {
		taken, err := t.exists(`SELECT 1 FROM mailbox_addresses WHERE address_key = $1 AND firm_id <> $2`,
			key(address), string(m.FirmID))
		if err != nil {
			return err
		}
		if taken {
			// Whose it is may be more than the one who asks may know.
			e := broker.Errorf(broker.Conflict, "%s belongs to another mailbox already: take it off there first", address)
			if e.Field = "aliases"; i == 0 {
				e.Field = "address"
			}
			return e
		}
	}
	return nil
}

// storeAddresses replaces a mailbox's addresses.
func (t *tx) storeAddresses(m *broker.Mailbox) error {
	if err := t.freeAddresses(m.ID); err != nil {
		return err
	}
	for _, address := range m.Addresses() {
		if _, err := t.exec(`INSERT INTO mailbox_addresses (address_key, mailbox_id, firm_id) VALUES ($1, $2, $3)`,
			key(address), string(m.ID), string(m.FirmID)); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) freeAddresses(mailbox broker.ID) error {
	_, err := t.exec(`DELETE FROM mailbox_addresses WHERE mailbox_id = $1`, string(mailbox))
	return err
}

func mailboxEvent(m *broker.Mailbox) broker.Event {
	return broker.Event{FirmID: m.FirmID, MailboxID: m.ID}
}

// CreateMailbox adds a mailbox to a firm.
func (s *Store) CreateMailbox(ctx context.Context, by broker.Actor, m *broker.Mailbox) error {
	n := *m
	if err := checkMailbox(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(n.FirmID)); err != nil {
			return missing(err, "firm_id")
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if err := t.addressesAllowed(by, &n, nil); err != nil {
			return err
		}
		if err := t.addressFree(&n); err != nil {
			return err
		}
		n.MinCredential, n.MinCredentialID = 0, ""
		if err := t.methodFits(&n); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO mailboxes (id, firm_id, address_key, doc) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.FirmID), key(n.Address), doc); err != nil {
			return err
		}
		if err := t.storeAddresses(&n); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindMailbox, verb: "created", id: n.ID, after: doc, event: mailboxEvent(&n)})
	})
	if err == nil {
		*m = n
	}
	return err
}

// UpdateMailbox replaces a mailbox. It stays with its firm, since the path of
// its credential and its log are the firm's. Another endpoint takes its way of
// rotating away, and is Conflict after a rotation since m was read; that and another
// user name are Conflict amid one.
func (s *Store) UpdateMailbox(ctx context.Context, by broker.Actor, m *broker.Mailbox) error {
	n := *m
	if err := checkMailbox(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(n.ID))
		if err != nil {
			return err
		}
		if n.FirmID != "" && n.FirmID != old.FirmID {
			return broker.InvalidField("firm_id", "a mailbox cannot change its firm")
		}
		if err := t.loginFits(&n, old); err != nil {
			return err
		}
		n.FirmID, n.CreatedAt, n.MinCredential, n.MinCredentialID = old.FirmID, old.CreatedAt, old.MinCredential, old.MinCredentialID
		if err := t.methodFits(&n); err != nil {
			return err
		}
		if err := t.addressesAllowed(by, &n, old.Addresses()); err != nil {
			return err
		}
		if err := t.addressFree(&n); err != nil {
			return err
		}
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE mailboxes SET address_key = $1, doc = $2 WHERE id = $3`, key(n.Address), after, string(n.ID)); err != nil {
			return err
		}
		if err := t.storeAddresses(&n); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindMailbox, verb: "updated", id: n.ID, before: before, after: after, event: mailboxEvent(&n),
		})
	})
	if err == nil {
		*m = n
	}
	return err
}

// loginFits looks after a change of what a mailbox's password is sent to, and as
// whose. What a provider sets is tried there: amid a rotation, or by the next that a
// schedule begins, whoever changed the endpoints would be sent a password that opens
// the mailbox elsewhere.
func (t *tx) loginFits(n, old *broker.Mailbox) error {
	moved := n.IMAP != old.IMAP || n.Submission != old.Submission
	if !moved && n.Username == old.Username {
		return nil
	}
	if err := t.noRotation(n.ID); err != nil || !moved {
		return err
	}
	if n.MinCredentialID != old.MinCredentialID {
		return conflict("its password has been rotated meanwhile: try again")
	}
	n.Rotation = nil
	return nil
}

// noRotation refuses what must not be amid a rotation of a mailbox's password.
func (t *tx) noRotation(mailbox broker.ID) error {
	open, err := t.exists(`SELECT 1 FROM rotations WHERE mailbox_id = $1 AND ended_at IS NULL`, string(mailbox))
	if err == nil && open {
		err = conflict("its password is being rotated: wait for the end")
	}
	return err
}

// DeleteMailbox removes a mailbox and the locks on it. A delegation that was
// not revoked needs it: Conflict.
func (s *Store) DeleteMailbox(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(id))
		if err != nil {
			return err
		}
		needs, err := many[broker.Delegation](t.query, kindDelegation,
			`SELECT doc FROM delegations WHERE mailbox_id = $1 AND revoked_at IS NULL`, string(id))
		if err != nil {
			return err
		}
		if len(needs) > 0 {
			return conflict("delegation %s needs the mailbox: revoke it first", needs[0].ID)
		}
		if err := t.noRotation(id); err != nil {
			return err
		}
		if err := t.removeLocks(by, broker.LockMailbox, id); err != nil {
			return err
		}
		before, err := encode(old)
		if err != nil {
			return err
		}
		if err := t.freeAddresses(id); err != nil {
			return err
		}
		if err := t.update(`UPDATE mailboxes SET deleted_at = $1 WHERE id = $2`, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindMailbox, verb: "deleted", id: id, before: before, event: mailboxEvent(old)})
	})
}

// Mailbox returns a mailbox.
func (s *Store) Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error) {
	return one[broker.Mailbox](s.read(ctx), kindMailbox, mailboxByID, string(id))
}

// MailboxByAddress returns the mailbox whose main address it is, in any case
// of letters.
func (s *Store) MailboxByAddress(ctx context.Context, address string) (*broker.Mailbox, error) {
	return one[broker.Mailbox](s.read(ctx), kindMailbox,
		`SELECT doc FROM mailboxes WHERE address_key = $1 AND deleted_at IS NULL`, key(address))
}

// Mailboxes returns all mailboxes, by address.
func (s *Store) Mailboxes(ctx context.Context) ([]*broker.Mailbox, error) {
	return many[broker.Mailbox](s.read(ctx), kindMailbox,
		`SELECT doc FROM mailboxes WHERE deleted_at IS NULL ORDER BY address_key`)
}

// CredentialSet records that a mailbox's credential was stored.
func (s *Store) CredentialSet(ctx context.Context, by broker.Actor, mailbox broker.ID, version int) error {
	if version < 1 {
		return broker.InvalidField("version", "not a stored version")
	}
	return s.mutate(ctx, by, func(t *tx) error {
		m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(mailbox))
		if err != nil {
			return err
		}
		if err := t.speaksFor(by, m.FirmID); err != nil {
			return err
		}
		e := mailboxEvent(m)
		e.Type, e.Actor, e.Data = broker.EventCredentialSet, by, broker.CredentialSetData{Version: version}
		return t.appendEvent(&e)
	})
}
