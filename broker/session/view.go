// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"sync"

	"github.com/postern-mail/postern/broker"
)

// view is what was read of the state at one policy revision, each thing once.
//
// Its maker had read that revision before, so that what is in a view is never
// older than its revision; it may be newer. Whoever decides by a view and finds
// the policy still at its revision afterwards has decided by that revision
// exactly.
//
// What it returns is shared: nobody may change it.
type view struct {
	state    broker.State
	revision int64

	passwords     table[*broker.AppPassword]
	byHash        table[*broker.AppPassword]
	agents        table[*broker.Agent]
	byName        table[*broker.Agent]
	workstations  table[*broker.Workstation]
	byPin         table[*broker.Workstation]
	byCertificate table[*broker.Workstation]
	mailboxes     table[*broker.Mailbox]
	byAddress     table[*broker.Mailbox]
	firms         table[*broker.Firm]
	delegations   table[*broker.Delegation]
	assignments   table[*broker.Assignment]
	assigned      table[[]*broker.Assignment]
	siteList      table[[]*broker.Site]
	lockList      table[lockIndex]
}

// lockIndex holds the locks that were not removed, by what they are on.
type lockIndex map[lockKey][]*broker.Lock

type lockKey struct {
	target broker.LockTarget
	id     broker.ID
}

// viewAt returns a view that is at least as new as revision, which the caller
// has read.
func (m *Manager) viewAt(revision int64) *view {
	for {
		current := m.view.Load()
		if current != nil && current.revision >= revision {
			return current
		}
		next := &view{state: m.state, revision: revision}
		if m.view.CompareAndSwap(current, next) {
			return next
		}
	}
}

// table remembers what was read, by a string that names it. An error is
// never remembered; that something does not exist is, unless strangers choose
// the names: they could fill the memory with them.
type table[T any] struct {
	mu   sync.RWMutex
	rows map[string]T
}

func (t *table[T]) get(key string, strangers bool, read func() (T, error)) (T, error) {
	t.mu.RLock()
	row, known := t.rows[key]
	t.mu.RUnlock()
	if known {
		return row, nil
	}
	row, err := read()
	missing := broker.CodeOf(err) == broker.NotFound
	if missing {
		var none T
		row = none
	} else if err != nil {
		return row, err
	}
	if missing && strangers {
		return row, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = make(map[string]T)
	}
	t.rows[key] = row
	return row, nil
}

// The methods below return nil, without an error, for what does not exist.

func (v *view) passwordByHash(ctx context.Context, hash []byte) (*broker.AppPassword, error) {
	p, err := v.byHash.get(string(hash), true, func() (*broker.AppPassword, error) {
		return v.state.AppPasswordByHash(ctx, hash)
	})
	if err != nil || p == nil || !sameHash(p.Hash, hash) {
		return nil, err
	}
	return p, nil
}

func (v *view) workstationByPin(ctx context.Context, pin string) (*broker.Workstation, error) {
	return v.byPin.get(pin, true, func() (*broker.Workstation, error) { return v.state.WorkstationByKeyPin(ctx, pin) })
}

// workstationOf returns whose a certificate is: its key's, or else that of the
// name that a company's own CA gave it. What is looked up tells of nothing but
// what its presenter has.
func (v *view) workstationOf(ctx context.Context, pin string, company *broker.CompanyCertificate) (*broker.Workstation, error) {
	if pin == "" {
		_, err := v.workstationByPin(ctx, noPin)
		return nil, err
	}
	pinned, err := v.workstationByPin(ctx, pin)
	if err != nil {
		return nil, err
	}
	name := certificateName(company)
	if name == nil {
		return pinned, nil
	}
	named, err := v.byCertificate.get(name.Authority+"\x00"+name.Name, true, func() (*broker.Workstation, error) {
		return v.state.WorkstationByCertificateName(ctx, *name)
	})
	if pinned != nil || err != nil {
		return pinned, err
	}
	return named, nil
}

func (v *view) mailboxByAddress(ctx context.Context, address string) (*broker.Mailbox, error) {
	return v.byAddress.get(address, true, func() (*broker.Mailbox, error) { return v.state.MailboxByAddress(ctx, address) })
}

func (v *view) password(ctx context.Context, id broker.ID) (*broker.AppPassword, error) {
	return v.passwords.get(string(id), false, func() (*broker.AppPassword, error) { return v.state.AppPassword(ctx, id) })
}

func (v *view) agent(ctx context.Context, id broker.ID) (*broker.Agent, error) {
	return v.agents.get(string(id), false, func() (*broker.Agent, error) { return v.state.Agent(ctx, id) })
}

func (v *view) agentByName(ctx context.Context, name string) (*broker.Agent, error) {
	return v.byName.get(name, true, func() (*broker.Agent, error) { return v.state.AgentByName(ctx, name) })
}

func (v *view) workstation(ctx context.Context, id broker.ID) (*broker.Workstation, error) {
	return v.workstations.get(string(id), false, func() (*broker.Workstation, error) { return v.state.Workstation(ctx, id) })
}

func (v *view) mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error) {
	return v.mailboxes.get(string(id), false, func() (*broker.Mailbox, error) { return v.state.Mailbox(ctx, id) })
}

func (v *view) firm(ctx context.Context, id broker.ID) (*broker.Firm, error) {
	return v.firms.get(string(id), false, func() (*broker.Firm, error) { return v.state.Firm(ctx, id) })
}

func (v *view) delegation(ctx context.Context, id broker.ID) (*broker.Delegation, error) {
	return v.delegations.get(string(id), false, func() (*broker.Delegation, error) { return v.state.Delegation(ctx, id) })
}

func (v *view) assignment(ctx context.Context, id broker.ID) (*broker.Assignment, error) {
	return v.assignments.get(string(id), false, func() (*broker.Assignment, error) { return v.state.Assignment(ctx, id) })
}

// assignmentsOf returns an agent's assignments on a mailbox, oldest first.
// Both ids may be those of nobody, which are not remembered.
func (v *view) assignmentsOf(ctx context.Context, agent, mailbox broker.ID) ([]*broker.Assignment, error) {
	read := func() ([]*broker.Assignment, error) {
		all, err := v.state.AssignmentsOf(ctx, agent, mailbox)
		if err == nil && len(all) == 0 {
			// An agent can ask for every mailbox.
			err = broker.Errorf(broker.NotFound, "no assignment")
		}
		return all, err
	}
	return v.assigned.get(string(agent)+" "+string(mailbox), true, read)
}

func (v *view) sites(ctx context.Context) ([]*broker.Site, error) {
	return v.siteList.get("", false, func() ([]*broker.Site, error) { return v.state.Sites(ctx) })
}

func (v *view) locks(ctx context.Context) (lockIndex, error) {
	return v.lockList.get("", false, func() (lockIndex, error) {
		all, err := v.state.Locks(ctx)
		if err != nil {
			return nil, err
		}
		index := make(lockIndex)
		for _, l := range all {
			key := lockKey{l.Target, l.TargetID}
			index[key] = append(index[key], l)
		}
		return index, nil
	})
}
