// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

const siteByID = `SELECT doc FROM sites WHERE id = $1 AND deleted_at IS NULL`

func checkSite(n *broker.Site) error {
	if err := name("name", n.Name); err != nil {
		return err
	}
	if len(n.Networks) == 0 || len(n.Networks) > maxNetworks {
		return broker.InvalidField("networks", "use 1 to %d", maxNetworks)
	}
	n.Networks = slices.Clone(n.Networks)
	for i, p := range n.Networks {
		if err := network("networks", p); err != nil {
			return err
		}
		if slices.Contains(n.Networks[:i], p) {
			return broker.InvalidField("networks", "%s is there twice", p)
		}
		if n.NetworkOnly && p.Bits() == 0 {
			return broker.InvalidField("network_only", "%s would let every machine in without a certificate", p)
		}
	}
	return nil
}

func (t *tx) siteNameFree(n *broker.Site) error {
	taken, err := t.exists(`SELECT 1 FROM sites WHERE name_key = $1 AND deleted_at IS NULL AND id <> $2`, key(n.Name), string(n.ID))
	if err == nil && taken {
		return conflict("a site of that name exists already")
	}
	return err
}

// CreateSite adds a site.
func (s *Store) CreateSite(ctx context.Context, by broker.Actor, site *broker.Site) error {
	n := *site
	if err := checkSite(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		if err := t.siteNameFree(&n); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO sites (id, name_key, doc) VALUES ($1, $2, $3)`, string(n.ID), key(n.Name), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindSite, verb: "created", id: n.ID, after: doc})
	})
	if err == nil {
		*site = n
	}
	return err
}

// UpdateSite replaces a site.
func (s *Store) UpdateSite(ctx context.Context, by broker.Actor, site *broker.Site) error {
	n := *site
	if err := checkSite(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Site](t.query, kindSite, siteByID, string(n.ID))
		if err != nil {
			return err
		}
		n.CreatedAt = old.CreatedAt
		if err := t.siteNameFree(&n); err != nil {
			return err
		}
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE sites SET name_key = $1, doc = $2 WHERE id = $3`, key(n.Name), after, string(n.ID)); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindSite, verb: "updated", id: n.ID, before: before, after: after})
	})
	if err == nil {
		*site = n
	}
	return err
}

// DeleteSite removes a site and the locks on it. A workstation that is bound
// to it needs it, and so do terms that name it: Conflict.
func (s *Store) DeleteSite(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Site](t.query, kindSite, siteByID, string(id))
		if err != nil {
			return err
		}
		if err := t.siteUnused(id); err != nil {
			return err
		}
		if err := t.removeLocks(by, broker.LockSite, id); err != nil {
			return err
		}
		before, err := encode(old)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE sites SET deleted_at = $1 WHERE id = $2`, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{kind: kindSite, verb: "deleted", id: id, before: before})
	})
}

// siteUnused refuses when something needs the site.
func (t *tx) siteUnused(id broker.ID) error {
	machines, err := many[broker.Workstation](t.query, kindWorkstation,
		`SELECT doc FROM workstations WHERE site_id = $1 AND deleted_at IS NULL`, string(id))
	if err != nil {
		return err
	}
	if len(machines) > 0 {
		return conflict("workstation %s is bound to the site", machines[0].Name)
	}
	delegations, err := many[broker.Delegation](t.query, kindDelegation, `SELECT doc FROM delegations WHERE revoked_at IS NULL`)
	if err != nil {
		return err
	}
	for _, d := range delegations {
		if slices.Contains(d.Terms.Sites, string(id)) {
			return conflict("the terms of delegation %s name the site", d.ID)
		}
	}
	assignments, err := many[broker.Assignment](t.query, kindAssignment, `SELECT doc FROM assignments WHERE revoked_at IS NULL`)
	if err != nil {
		return err
	}
	for _, a := range assignments {
		if slices.Contains(a.Terms.Sites, string(id)) {
			return conflict("the terms of assignment %s name the site", a.ID)
		}
	}
	return nil
}

// sitesExist refuses terms that name a site that is not there.
func (t *tx) sitesExist(terms *policy.Terms) error {
	for _, id := range terms.Sites {
		if _, err := one[broker.Site](t.query, kindSite, siteByID, id); err != nil {
			return missing(err, "terms.sites")
		}
	}
	return nil
}

// Site returns a site.
func (s *Store) Site(ctx context.Context, id broker.ID) (*broker.Site, error) {
	return one[broker.Site](s.read(ctx), kindSite, siteByID, string(id))
}

// Sites returns all sites, by name.
func (s *Store) Sites(ctx context.Context) ([]*broker.Site, error) {
	return many[broker.Site](s.read(ctx), kindSite, `SELECT doc FROM sites WHERE deleted_at IS NULL ORDER BY name_key`)
}
