// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// reads is what handlers read of the state: each through [api.reads], which
// shows a firm's people their own firm's part. It has no method that changes
// anything, so that none can be called around the record of who did it.
type reads interface {
	Firm(ctx context.Context, id broker.ID) (*broker.Firm, error)
	Firms(ctx context.Context) ([]*broker.Firm, error)
	Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error)
	MailboxByAddress(ctx context.Context, address string) (*broker.Mailbox, error)
	Mailboxes(ctx context.Context) ([]*broker.Mailbox, error)
	Agent(ctx context.Context, id broker.ID) (*broker.Agent, error)
	AgentByName(ctx context.Context, name string) (*broker.Agent, error)
	Agents(ctx context.Context) ([]*broker.Agent, error)
	Workstation(ctx context.Context, id broker.ID) (*broker.Workstation, error)
	Workstations(ctx context.Context) ([]*broker.Workstation, error)
	Site(ctx context.Context, id broker.ID) (*broker.Site, error)
	Sites(ctx context.Context) ([]*broker.Site, error)
	Delegation(ctx context.Context, id broker.ID) (*broker.Delegation, error)
	Delegations(ctx context.Context) ([]*broker.Delegation, error)
	Assignment(ctx context.Context, id broker.ID) (*broker.Assignment, error)
	Assignments(ctx context.Context) ([]*broker.Assignment, error)
	AppPassword(ctx context.Context, id broker.ID) (*broker.AppPassword, error)
	AppPasswords(ctx context.Context) ([]*broker.AppPassword, error)
	Locks(ctx context.Context) ([]*broker.Lock, error)
	Sessions(ctx context.Context, liveOnly bool, limit int) ([]*broker.Session, error)
}

// reads returns what the caller may read.
func (a *api) reads(ctx context.Context) reads {
	p := principal(ctx)
	if p.FirmID == "" && !p.Role.OfFirm() {
		return a.State
	}
	return &firmReads{a, p.FirmID}
}

// firmReads shows one firm's part of the state. Whatever is looked for is
// looked for among what is the firm's, all of it: so what is another firm's is
// as little there, and takes as long, as what is nobody's.
type firmReads struct {
	a    *api
	firm broker.ID
}

// among returns the thing that is wanted, or NotFound.
func among[T any](all []T, err error, wanted func(T) bool) (found T, _ error) {
	if err != nil {
		return found, err
	}
	missing := error(broker.Errorf(broker.NotFound, "there is none"))
	for _, thing := range all {
		// To the end, wherever it is.
		if wanted(thing) {
			found, missing = thing, nil
		}
	}
	return found, missing
}

func (f *firmReads) Firms(ctx context.Context) ([]*broker.Firm, error) {
	own, err := f.a.State.Firm(ctx, f.firm)
	if err != nil {
		return nil, err
	}
	return []*broker.Firm{own}, nil
}

func (f *firmReads) Firm(ctx context.Context, id broker.ID) (*broker.Firm, error) {
	all, err := f.Firms(ctx)
	return among(all, err, func(x *broker.Firm) bool { return x.ID == id })
}

func (f *firmReads) Mailboxes(ctx context.Context) ([]*broker.Mailbox, error) {
	return f.a.FirmState.FirmMailboxes(ctx, f.firm)
}

func (f *firmReads) Mailbox(ctx context.Context, id broker.ID) (*broker.Mailbox, error) {
	all, err := f.Mailboxes(ctx)
	return among(all, err, func(m *broker.Mailbox) bool { return m.ID == id })
}

func (f *firmReads) MailboxByAddress(ctx context.Context, address string) (*broker.Mailbox, error) {
	all, err := f.Mailboxes(ctx)
	return among(all, err, func(m *broker.Mailbox) bool { return strings.EqualFold(m.Address, address) })
}

// Agents returns those who are or were assigned to the firm's mailboxes.
func (f *firmReads) Agents(ctx context.Context) ([]*broker.Agent, error) {
	assignments, err := f.Assignments(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[broker.ID]bool{}
	var agents []*broker.Agent
	for _, s := range assignments {
		if seen[s.AgentID] {
			continue
		}
		seen[s.AgentID] = true
		g, err := f.a.State.Agent(ctx, s.AgentID)
		if broker.CodeOf(err) == broker.NotFound {
			continue // he was removed
		}
		if err != nil {
			return nil, err
		}
		agents = append(agents, g)
	}
	slices.SortFunc(agents, func(x, y *broker.Agent) int { return strings.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)) })
	return agents, nil
}

func (f *firmReads) Agent(ctx context.Context, id broker.ID) (*broker.Agent, error) {
	all, err := f.Agents(ctx)
	return among(all, err, func(g *broker.Agent) bool { return g.ID == id })
}

func (f *firmReads) AgentByName(ctx context.Context, name string) (*broker.Agent, error) {
	all, err := f.Agents(ctx)
	return among(all, err, func(g *broker.Agent) bool { return strings.EqualFold(g.Name, name) })
}

// Sites returns the names of all sites, which terms may be limited to. Their
// networks are the BPO's affair.
func (f *firmReads) Sites(ctx context.Context) ([]*broker.Site, error) {
	all, err := f.a.State.Sites(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		s.Networks = nil
	}
	return all, nil
}

func (f *firmReads) Site(ctx context.Context, id broker.ID) (*broker.Site, error) {
	all, err := f.Sites(ctx)
	return among(all, err, func(s *broker.Site) bool { return s.ID == id })
}

// Workstations returns names alone: a firm sees from where its mailboxes are
// worked in, and nothing of the machines.
func (f *firmReads) Workstations(ctx context.Context) ([]*broker.Workstation, error) {
	all, err := f.a.State.Workstations(ctx)
	if err != nil {
		return nil, err
	}
	for i, w := range all {
		all[i] = &broker.Workstation{ID: w.ID, Name: w.Name}
	}
	return all, nil
}

func (f *firmReads) Workstation(ctx context.Context, id broker.ID) (*broker.Workstation, error) {
	all, err := f.Workstations(ctx)
	return among(all, err, func(w *broker.Workstation) bool { return w.ID == id })
}

func (f *firmReads) Delegations(ctx context.Context) ([]*broker.Delegation, error) {
	return f.a.FirmState.FirmDelegations(ctx, f.firm)
}

func (f *firmReads) Delegation(ctx context.Context, id broker.ID) (*broker.Delegation, error) {
	all, err := f.Delegations(ctx)
	return among(all, err, func(d *broker.Delegation) bool { return d.ID == id })
}

func (f *firmReads) Assignments(ctx context.Context) ([]*broker.Assignment, error) {
	return f.a.FirmState.FirmAssignments(ctx, f.firm)
}

func (f *firmReads) Assignment(ctx context.Context, id broker.ID) (*broker.Assignment, error) {
	all, err := f.Assignments(ctx)
	return among(all, err, func(s *broker.Assignment) bool { return s.ID == id })
}

func (f *firmReads) Sessions(ctx context.Context, liveOnly bool, limit int) ([]*broker.Session, error) {
	return f.a.FirmState.FirmSessions(ctx, f.firm, liveOnly, limit)
}

// AppPasswords returns none: they are the BPO's.
func (*firmReads) AppPasswords(context.Context) ([]*broker.AppPassword, error) { return nil, nil }

func (*firmReads) AppPassword(context.Context, broker.ID) (*broker.AppPassword, error) {
	return among[*broker.AppPassword](nil, nil, nil)
}

// Locks returns none: they are the BPO's.
func (*firmReads) Locks(context.Context) ([]*broker.Lock, error) { return nil, nil }
