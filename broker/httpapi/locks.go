// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
)

// LockInput locks something.
type LockInput struct {
	Target  broker.LockTarget `json:"target" enum:"agent,workstation,mailbox,firm,site" doc:"What kind of thing to lock."`
	Name    string            `json:"name" minLength:"1" doc:"Which: its id or name."`
	Message string            `json:"message,omitempty" doc:"What a refused agent is told: why, and whom to ask."`
	Until   *time.Time        `json:"until,omitempty" doc:"When it ends by itself; without it, when removed."`
}

// Lock is a lock with its target's name.
type Lock struct {
	broker.Lock
	Name string `json:"name,omitempty"`
	// Over says that its end has come: it refuses nobody any more.
	Over bool `json:"over,omitempty"`
}

// LockAdded is a new lock, and what it ended.
type LockAdded struct {
	Lock Lock `json:"lock"`
	Ended
}

func (a *api) registerLocks() {
	route(a, http.MethodGet, "/v1/locks", "list-locks", "List locks that were not removed", a.listLocks)
	route(a, http.MethodPost, "/v1/locks", "create-lock", "Lock an agent, workstation, mailbox, firm or site, ending the sessions there", a.createLock)
	route(a, http.MethodDelete, "/v1/locks/{lock}", "remove-lock", "Remove a lock", a.removeLock)
}

func (a *api) listLocks(ctx context.Context, _ *none) (*answer[List[*Lock]], error) {
	all, err := a.reads(ctx).Locks(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	locks := make([]*Lock, len(all))
	for i, l := range all {
		locks[i] = a.showLock(l, names)
	}
	return listOf(locks), nil
}

func (a *api) showLock(l *broker.Lock, names *directory) *Lock {
	shown := &Lock{Lock: *l, Over: !l.Until.IsZero() && !a.Now().Before(l.Until)}
	switch l.Target {
	case broker.LockAgent:
		shown.Name = names.agents[l.TargetID]
	case broker.LockWorkstation:
		shown.Name = names.workstations[l.TargetID]
	case broker.LockMailbox:
		shown.Name = names.mailboxes[l.TargetID]
	case broker.LockFirm:
		shown.Name = names.firms[l.TargetID]
	case broker.LockSite:
		shown.Name = names.sites[l.TargetID]
	}
	return shown
}

func (a *api) createLock(ctx context.Context, in *struct{ Body LockInput }) (*answer[LockAdded], error) {
	l := &broker.Lock{Target: in.Body.Target, Message: in.Body.Message}
	if in.Body.Until != nil {
		l.Until = in.Body.Until.UTC()
		if !l.Until.After(a.Now()) {
			return nil, broker.InvalidField("until", "has passed already")
		}
	}
	id, touches, err := a.lockTarget(ctx, in.Body.Target, in.Body.Name)
	if err != nil {
		return nil, err
	}
	l.TargetID = id
	ended, err := a.ending(ctx, touches, func() error { return a.State.CreateLock(ctx, actor(ctx), l) })
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[LockAdded]{LockAdded{Lock: *a.showLock(l, names), Ended: ended}}, nil
}

// lockTarget finds what is to be locked, and which sessions that touches.
func (a *api) lockTarget(ctx context.Context, target broker.LockTarget, name string) (id broker.ID, touches func(*broker.Session) bool, err error) {
	switch target {
	case broker.LockAgent:
		g, err := a.findAgent(ctx, "name", name)
		if err != nil {
			return "", nil, err
		}
		return g.ID, func(s *broker.Session) bool { return s.AgentID == g.ID }, nil
	case broker.LockWorkstation:
		w, err := a.findWorkstation(ctx, "name", name)
		if err != nil {
			return "", nil, err
		}
		return w.ID, func(s *broker.Session) bool { return s.WorkstationID == w.ID }, nil
	case broker.LockMailbox:
		m, err := a.findMailbox(ctx, "name", name)
		if err != nil {
			return "", nil, err
		}
		return m.ID, func(s *broker.Session) bool { return s.MailboxID == m.ID }, nil
	case broker.LockFirm:
		f, err := a.findFirm(ctx, "name", name)
		if err != nil {
			return "", nil, err
		}
		return f.ID, func(s *broker.Session) bool { return s.FirmID == f.ID }, nil
	case broker.LockSite:
		site, err := a.findSite(ctx, "name", name)
		if err != nil {
			return "", nil, err
		}
		return site.ID, func(s *broker.Session) bool { return s.SiteID == site.ID }, nil
	}
	return "", nil, broker.InvalidField("target", "%q is nothing that can be locked: agent, workstation, mailbox, firm or site", target)
}

func (a *api) removeLock(ctx context.Context, in *struct {
	Lock string `path:"lock" doc:"Id."`
},
) (*answer[*Lock], error) {
	id, err := pathID("lock", in.Lock)
	if err != nil {
		return nil, err
	}
	locks, err := a.reads(ctx).Locks(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range locks {
		if l.ID != id {
			continue
		}
		if err := a.State.RemoveLock(ctx, actor(ctx), id); err != nil {
			return nil, err
		}
		names, err := a.directory(ctx)
		if err != nil {
			return nil, err
		}
		return &answer[*Lock]{a.showLock(l, names)}, nil
	}
	return nil, broker.Errorf(broker.NotFound, "there is no lock %s that was not removed", id)
}
