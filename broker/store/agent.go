// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

const agentByID = `SELECT doc FROM agents WHERE id = $1 AND deleted_at IS NULL`

func checkAgent(a *broker.Agent) error {
	switch a.Authentication {
	case "", broker.AuthLDAP:
	case broker.AuthAppPassword:
		a.Authentication = "" // which is what agents of older servers have
	default:
		return broker.InvalidField("authentication", "use %s or %s", broker.AuthAppPassword, broker.AuthLDAP)
	}
	if a.DirectoryAccount != "" {
		if a.Authentication != broker.AuthLDAP {
			return broker.InvalidField("directory_account", "only an agent whose password the directory has (ldap) has one")
		}
		if err := name("directory_account", a.DirectoryAccount); err != nil {
			return err
		}
	}
	return text("full_name", a.FullName, maxName)
}

// CreateAgent adds an agent.
func (s *Store) CreateAgent(ctx context.Context, by broker.Actor, a *broker.Agent) error {
	n := *a
	if err := agentName("name", n.Name); err != nil {
		return err
	}
	if err := checkAgent(&n); err != nil {
		return err
	}
	err := s.mutate(ctx, by, func(t *tx) error {
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		taken, err := t.exists(`SELECT 1 FROM agents WHERE name_key = $1 AND deleted_at IS NULL`, key(n.Name))
		if err != nil {
			return err
		}
		if taken {
			return conflict("an agent of that name exists already")
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO agents (id, name_key, doc) VALUES ($1, $2, $3)`, string(n.ID), key(n.Name), doc); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindAgent, verb: "created", id: n.ID, after: doc, event: broker.Event{AgentID: n.ID},
		})
	})
	if err == nil {
		*a = n
	}
	return err
}

// UpdateAgent changes all but the name. Whom the directory knows from then on
// has no app passwords any more.
func (s *Store) UpdateAgent(ctx context.Context, by broker.Actor, a *broker.Agent) error {
	id, wanted := a.ID, *a
	if err := checkAgent(&wanted); err != nil {
		return err
	}
	var n broker.Agent
	err := s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Agent](t.query, kindAgent, agentByID, string(id))
		if err != nil {
			return err
		}
		if wanted.Name != "" && wanted.Name != old.Name {
			return broker.InvalidField("name", "an agent keeps its name: records and mail clients name it so")
		}
		n = *old
		n.FullName, n.Authentication, n.DirectoryAccount = wanted.FullName, wanted.Authentication, wanted.DirectoryAccount
		before, after, err := documents(old, &n)
		if err != nil || before == after {
			return err
		}
		if err := t.update(`UPDATE agents SET doc = $1 WHERE id = $2`, after, string(id)); err != nil {
			return err
		}
		if n.Authentication == broker.AuthLDAP {
			if err := t.revokeAppPasswordsOf(by, id); err != nil {
				return err
			}
		}
		return t.recordChange(by, changed{
			kind: kindAgent, verb: "updated", id: id, before: before, after: after, event: broker.Event{AgentID: id},
		})
	})
	if err == nil {
		*a = n
	}
	return err
}

// DeleteAgent removes an agent, revokes the agent's assignments and app
// passwords, and removes the locks on the agent. Workstations that were his are
// nobody's.
func (s *Store) DeleteAgent(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		old, err := one[broker.Agent](t.query, kindAgent, agentByID, string(id))
		if err != nil {
			return err
		}
		if err := t.revokeAppPasswordsOf(by, id); err != nil {
			return err
		}
		if err := t.freeWorkstationsOf(by, id); err != nil {
			return err
		}
		if err := t.revokeAssignments(by,
			`SELECT doc FROM assignments WHERE agent_id = $1 AND revoked_at IS NULL ORDER BY id`, string(id)); err != nil {
			return err
		}
		if err := t.removeLocks(by, broker.LockAgent, id); err != nil {
			return err
		}
		before, err := encode(old)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE agents SET deleted_at = $1 WHERE id = $2`, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordChange(by, changed{
			kind: kindAgent, verb: "deleted", id: id, before: before, event: broker.Event{AgentID: id},
		})
	})
}

// Agent returns an agent.
func (s *Store) Agent(ctx context.Context, id broker.ID) (*broker.Agent, error) {
	return one[broker.Agent](s.read(ctx), kindAgent, agentByID, string(id))
}

// AgentByName returns the agent of that name, in any case of letters.
func (s *Store) AgentByName(ctx context.Context, name string) (*broker.Agent, error) {
	return one[broker.Agent](s.read(ctx), kindAgent,
		`SELECT doc FROM agents WHERE name_key = $1 AND deleted_at IS NULL`, key(name))
}

// Agents returns all agents, by name.
func (s *Store) Agents(ctx context.Context) ([]*broker.Agent, error) {
	return many[broker.Agent](s.read(ctx), kindAgent, `SELECT doc FROM agents WHERE deleted_at IS NULL ORDER BY name_key`)
}
