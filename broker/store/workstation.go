// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"

	"github.com/postern-mail/postern/broker"
)

const workstationByID = `SELECT doc FROM workstations WHERE id = $1 AND deleted_at IS NULL`

func checkWorkstation(w *broker.Workstation) error {
	if err := name("name", w.Name); err != nil {
		return err
	}
	if w.Class != broker.ClassHardware && w.Class != broker.ClassSoftware {
		return broker.InvalidField("class", "use hardware or software")
	}
	w.Groups = slices.Clone(w.Groups)
	if err := groups("groups", w.Groups); err != nil {
		return err
	}
	if len(w.KeyPins) > maxKeyPins {
		return broker.InvalidField("key_pins", "more than %d", maxKeyPins)
	}
	w.KeyPins = append([]string{}, w.KeyPins...) // never null in JSON
	for i, pin := range w.KeyPins {
		if err := keyPin("key_pins", pin); err != nil {
			return err
		}
		if slices.Contains(w.KeyPins[:i], pin) {
			return broker.InvalidField("key_pins", "a pin is there twice")
		}
	}
	if w.CertificateName != nil {
		n := *w.CertificateName
		w.CertificateName = &n
	}
	return certificateName("certificate_name", w.CertificateName)
}

// certificateName wants a name as broker.CompanyCAs has it, if there is one.
func certificateName(field string, n *broker.CertificateName) error {
	if n == nil {
		return nil
	}
	if err := name(field+".authority", n.Authority); err != nil {
		return err
	}
	if !broker.ValidCertificateName(n.Name) {
		return broker.InvalidField(field+".name", "use printable ASCII, at most %d octets, without spaces around it", broker.MaxCertificateName)
	}
	return nil
}

// workstationFits checks w against what is stored, before it is written.
func (t *tx) workstationFits(w *broker.Workstation) error {
	if w.SiteID != "" {
		if _, err := one[broker.Site](t.query, kindSite, siteByID, string(w.SiteID)); err != nil {
			return missing(err, "site_id")
		}
	}
	if w.AgentID != "" {
		if _, err := one[broker.Agent](t.query, kindAgent, agentByID, string(w.AgentID)); err != nil {
			return missing(err, "agent_id")
		}
	}
	taken, err := t.exists(`SELECT 1 FROM workstations WHERE name_key = $1 AND deleted_at IS NULL AND id <> $2`,
		key(w.Name), string(w.ID))
	if err == nil && taken {
		return conflict("a workstation of that name exists already")
	}
	return err
}

// storeKeys replaces what a workstation is known by. Two workstations cannot
// share a key, or a name in certificates: the record could not tell them apart.
func (t *tx) storeKeys(w *broker.Workstation) error {
	if err := t.freeKeys(w.ID); err != nil {
		return err
	}
	for _, pin := range w.KeyPins {
		taken, err := t.exists(`SELECT 1 FROM workstation_pins WHERE pin = $1`, pin)
		if err != nil {
			return err
		}
		if taken {
			return conflict("another workstation has the key %s", pin)
		}
		if _, err := t.exec(`INSERT INTO workstation_pins (pin, workstation_id) VALUES ($1, $2)`, pin, string(w.ID)); err != nil {
			return err
		}
	}
	n := w.CertificateName
	if n == nil {
		return nil
	}
	taken, err := t.exists(`SELECT 1 FROM workstation_names WHERE authority = $1 AND name = $2`, n.Authority, n.Name)
	if err != nil {
		return err
	}
	if taken {
		return conflict("another workstation has the name %s in certificates of %s", n.Name, n.Authority)
	}
	_, err = t.exec(`INSERT INTO workstation_names (authority, name, workstation_id) VALUES ($1, $2, $3)`, n.Authority, n.Name, string(w.ID))
	return err
}

// freeKeys makes what a workstation is known by nobody's.
func (t *tx) freeKeys(id broker.ID) error {
	if _, err := t.exec(`DELETE FROM workstation_pins WHERE workstation_id = $1`, string(id)); err != nil {
		return err
	}
	_, err := t.exec(`DELETE FROM workstation_names WHERE workstation_id = $1`, string(id))
	return err
}

// CreateWorkstation adds a workstation.
func (s *Store) CreateWorkstation(ctx context.Context, by broker.Actor, w *broker.Workstation) error {
	n := *w
	if err := checkWorkstation(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error { return t.createWorkstation(by, &n) })
	if err == nil {
		*w = n
	}
	return err
}

// createWorkstation adds one that was checked.
func (t *tx) createWorkstation(by broker.Actor, w *broker.Workstation) error {
	if err := t.identify(&w.ID, &w.CreatedAt); err != nil {
		return err
	}
	if err := t.workstationFits(w); err != nil {
		return err
	}
	doc, err := encode(w)
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO workstations (id, name_key, site_id, doc) VALUES ($1, $2, $3, $4)`,
		string(w.ID), key(w.Name), optional(w.SiteID), doc); err != nil {
		return err
	}
	if err := t.storeKeys(w); err != nil {
		return err
	}
	return t.recordChange(by, changed{
		kind: kindWorkstation, verb: "created", id: w.ID, after: doc, event: broker.Event{WorkstationID: w.ID},
	})
}

// UpdateWorkstation replaces a workstation.
func (s *Store) UpdateWorkstation(ctx context.Context, by broker.Actor, w *broker.Workstation) error {
	n := *w
	if err := checkWorkstation(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Workstation](t.query, kindWorkstation, workstationByID, string(n.ID))
		if err != nil {
			return err
		}
		n.CreatedAt = old.CreatedAt
		if err := t.workstationFits(&n); err != nil {
			return err
		}
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE workstations SET name_key = $1, site_id = $2, doc = $3 WHERE id = $4`,
			key(n.Name), optional(n.SiteID), after, string(n.ID)); err != nil {
			return err
		}
		if err := t.storeKeys(&n); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindWorkstation, verb: "updated", id: n.ID, before: before, after: after,
			event: broker.Event{WorkstationID: n.ID},
		})
	})
	if err == nil {
		*w = n
	}
	return err
}

// freeWorkstationsOf makes an agent's workstations nobody's.
func (t *tx) freeWorkstationsOf(by broker.Actor, agent broker.ID) error {
	all, err := many[broker.Workstation](t.query, kindWorkstation, `SELECT doc FROM workstations WHERE deleted_at IS NULL ORDER BY id`)
	if err != nil {
		return err
	}
	for _, old := range all {
		if old.AgentID != agent {
			continue
		}
		n := *old
		n.AgentID = ""
		before, after, err := documents(old, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE workstations SET doc = $1 WHERE id = $2`, after, string(n.ID)); err != nil {
			return err
		}
		if err := t.recordChange(by, changed{
			kind: kindWorkstation, verb: "updated", id: n.ID, before: before, after: after, event: broker.Event{WorkstationID: n.ID},
		}); err != nil {
			return err
		}
	}
	return nil
}

// DeleteWorkstation removes a workstation, frees its keys and names, and removes the
// locks on it.
func (s *Store) DeleteWorkstation(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Workstation](t.query, kindWorkstation, workstationByID, string(id))
		if err != nil {
			return err
		}
		if err := t.removeLocks(by, broker.LockWorkstation, id); err != nil {
			return err
		}
		before, err := encode(old)
		if err != nil {
			return err
		}
		if err := t.freeKeys(id); err != nil {
			return err
		}
		if err := t.update(`UPDATE workstations SET deleted_at = $1 WHERE id = $2`, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindWorkstation, verb: "deleted", id: id, before: before, event: broker.Event{WorkstationID: id},
		})
	})
}

// Workstation returns a workstation.
func (s *Store) Workstation(ctx context.Context, id broker.ID) (*broker.Workstation, error) {
	return one[broker.Workstation](s.read(ctx), kindWorkstation, workstationByID, string(id))
}

// WorkstationByKeyPin returns the workstation that has the pin.
func (s *Store) WorkstationByKeyPin(ctx context.Context, pin string) (*broker.Workstation, error) {
	return one[broker.Workstation](s.read(ctx), kindWorkstation,
		`SELECT w.doc FROM workstation_pins p JOIN workstations w ON w.id = p.workstation_id
		 WHERE p.pin = $1 AND w.deleted_at IS NULL`, pin)
}

// WorkstationByCertificateName returns the workstation that has the name.
func (s *Store) WorkstationByCertificateName(ctx context.Context, n broker.CertificateName) (*broker.Workstation, error) {
	return one[broker.Workstation](s.read(ctx), kindWorkstation,
		`SELECT w.doc FROM workstation_names n JOIN workstations w ON w.id = n.workstation_id
		 WHERE n.authority = $1 AND n.name = $2 AND w.deleted_at IS NULL`, n.Authority, n.Name)
}

// Workstations returns all workstations, by name.
func (s *Store) Workstations(ctx context.Context) ([]*broker.Workstation, error) {
	return many[broker.Workstation](s.read(ctx), kindWorkstation,
		`SELECT doc FROM workstations WHERE deleted_at IS NULL ORDER BY name_key`)
}
