// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// DelegationInput makes a delegation.
type DelegationInput struct {
	Mailbox string     `json:"mailbox" minLength:"1" doc:"Id or address."`
	Terms   TermsInput `json:"terms,omitempty"`
	// ApproveAgents is broker.Delegation's.
	ApproveAgents bool `json:"approve_agents,omitempty" doc:"Has each agent who is assigned wait for the firm's approval."`
}

// DelegationPatch changes what is in it.
type DelegationPatch struct {
	Terms         *TermsPatch `json:"terms,omitempty"`
	ApproveAgents *bool       `json:"approve_agents,omitempty" doc:"Has each agent who is assigned from now on wait for the firm's approval."`
}

// GrantState says whether a delegation, assignment or app password holds now.
type GrantState string

// The states.
const (
	GrantActive      GrantState = "active"
	GrantNotYetValid GrantState = "not-yet-valid"
	GrantExpired     GrantState = "expired"
	GrantRevoked     GrantState = "revoked"
	// GrantPending is an assignment's that waits for the firm's approval.
	GrantPending GrantState = "pending"
)

// holds reports whether it holds now or will.
func (s GrantState) holds() bool {
	return s == GrantActive || s == GrantNotYetValid || s == GrantPending
}

// grantState is what a grant's times make of it now. It speaks of the grant
// alone: an active assignment may stand on an expired delegation.
func (a *api) grantState(notBefore, notAfter, revokedAt time.Time) GrantState {
	now := a.Now()
	switch {
	case !revokedAt.IsZero():
		return GrantRevoked
	case !notAfter.IsZero() && !now.Before(notAfter):
		return GrantExpired
	case now.Before(notBefore):
		return GrantNotYetValid
	}
	return GrantActive
}

// Delegation is a delegation with the names of what it holds.
type Delegation struct {
	broker.Delegation
	Firm    string     `json:"firm,omitempty"`
	Mailbox string     `json:"mailbox,omitempty"`
	Sites   []string   `json:"sites,omitempty" nullable:"false" doc:"The names of the terms' sites."`
	Sees    string     `json:"sees,omitempty" doc:"What an agent sees of this mailbox under the terms, in words."`
	State   GrantState `json:"state" enum:"active,not-yet-valid,expired,revoked"`
}

// DelegationUpdated is a delegation with its new terms, and what they ended.
type DelegationUpdated struct {
	Delegation Delegation `json:"delegation"`
	Ended
}

type delegationPath struct {
	Delegation string `path:"delegation" doc:"Id; or a mailbox, by id or address, that has one delegation."`
}

// grantsQuery narrows a list of grants.
type grantsQuery struct {
	All bool `query:"all" doc:"Revoked and expired ones too."`
}

func (a *api) registerDelegations() {
	route(a, http.MethodGet, "/v1/delegations", "list-delegations", "List delegations", a.listDelegations)
	route(a, http.MethodPost, "/v1/delegations", "create-delegation", "Delegate a mailbox", a.createDelegation)
	route(a, http.MethodGet, "/v1/delegations/{delegation}", "get-delegation", "Show a delegation",
		func(ctx context.Context, in *delegationPath) (*tagged[*Delegation], error) {
			d, err := a.findDelegation(ctx, "", in.Delegation)
			if err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			return show(d, a.showDelegation(d, names)), nil
		})
	route(a, http.MethodPatch, "/v1/delegations/{delegation}", "update-delegation",
		"Change a delegation's terms, ending the sessions that they make narrower; assignments keep theirs, and allow what both do",
		a.updateDelegation)
	route(a, http.MethodPost, "/v1/delegations/{delegation}/revoke", "revoke-delegation",
		"Revoke a delegation and its assignments, ending their sessions; for good",
		func(ctx context.Context, in *delegationPath) (*answer[Ended], error) {
			d, err := a.findDelegation(ctx, "", in.Delegation)
			if err != nil {
				return nil, err
			}
			if err := a.actsFor(ctx, d.FirmID); err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			ctx, err = unchanged(ctx, d.ID, d, func() (any, error) { return a.showDelegation(d, names), nil })
			if err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.DelegationID == d.ID },
				func() error { return a.State.RevokeDelegation(ctx, actor(ctx), d.ID) })
			return &answer[Ended]{ended}, err
		})
	route(a, http.MethodPost, "/v1/firms/{firm}/revoke-delegations", "revoke-delegations",
		"Revoke all that a firm gave: its delegations and their assignments, ending their sessions; for good", a.revokeDelegations)
}

// revokeDelegations revokes all that a firm gave.
func (a *api) revokeDelegations(ctx context.Context, in *firmPath) (*answer[Ended], error) {
	f, err := a.findFirm(ctx, "", in.Firm)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, f.ID); err != nil {
		return nil, err
	}
	ended, err := a.ending(ctx,
		func(s *broker.Session) bool { return s.FirmID == f.ID },
		func() error { return a.FirmState.RevokeFirm(ctx, actor(ctx), f.ID) })
	return &answer[Ended]{ended}, err
}

func (a *api) listDelegations(ctx context.Context, in *grantsQuery) (*answer[List[*Delegation]], error) {
	all, err := a.reads(ctx).Delegations(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var delegations []*Delegation
	for _, d := range all {
		if shown := a.showDelegation(d, names); in.All || shown.State.holds() {
			delegations = append(delegations, shown)
		}
	}
	return listOf(delegations), nil
}

func (a *api) showDelegation(d *broker.Delegation, names *directory) *Delegation {
	return &Delegation{
		Delegation: *d, Firm: names.firms[d.FirmID], Mailbox: names.mailboxes[d.MailboxID], Sites: names.sitesOf(&d.Terms),
		Sees:  d.Terms.Sees(names.recovery[d.MailboxID]),
		State: a.grantState(d.Terms.NotBefore, d.Terms.NotAfter, d.RevokedAt),
	}
}

func (a *api) createDelegation(ctx context.Context, in *struct{ Body DelegationInput }) (*answer[*Delegation], error) {
	m, err := a.findMailbox(ctx, "mailbox", in.Body.Mailbox)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, m.FirmID); err != nil {
		return nil, err
	}
	terms, err := a.terms(ctx, &in.Body.Terms, policy.Terms{Actions: policy.All})
	if err != nil {
		return nil, err
	}
	d := &broker.Delegation{FirmID: m.FirmID, MailboxID: m.ID, Terms: terms, ApproveAgents: in.Body.ApproveAgents}
	if err := a.State.CreateDelegation(ctx, actor(ctx), d); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Delegation]{a.showDelegation(d, names)}, nil
}

// findDelegation finds one by its id, or by its mailbox: by the one delegation
// there that holds or will, or else by the one that is expired.
func (a *api) findDelegation(ctx context.Context, field, ref string) (*broker.Delegation, error) {
	if id, err := broker.ParseID(ref); err == nil {
		d, err := a.reads(ctx).Delegation(ctx, id)
		if err == nil || broker.CodeOf(err) != broker.NotFound {
			return d, err
		}
	}
	m, err := a.findMailbox(ctx, field, ref)
	if err == nil {
		d, err := a.delegationOn(ctx, m, field, GrantState.holds)
		if broker.CodeOf(err) == broker.NotFound {
			d, err = a.delegationOn(ctx, m, field, func(s GrantState) bool { return s == GrantExpired })
		}
		return d, err
	}
	if broker.CodeOf(err) == broker.NotFound {
		e := broker.Errorf(broker.NotFound, "there is no delegation %q (it is named by its id or its mailbox)", ref)
		e.Field = field
		return nil, e
	}
	return nil, err
}

// delegationOn finds the one delegation of a mailbox whose state is wanted.
func (a *api) delegationOn(ctx context.Context, m *broker.Mailbox, field string, wanted func(GrantState) bool) (*broker.Delegation, error) {
	all, err := a.reads(ctx).Delegations(ctx)
	if err != nil {
		return nil, err
	}
	return a.delegationAmong(all, m, field, wanted)
}

// delegationAmong is delegationOn for who has read all delegations already.
func (a *api) delegationAmong(all []*broker.Delegation, m *broker.Mailbox, field string, wanted func(GrantState) bool) (*broker.Delegation, error) {
	var found *broker.Delegation
	for _, d := range all {
		if d.MailboxID != m.ID || !wanted(a.grantState(d.Terms.NotBefore, d.Terms.NotAfter, d.RevokedAt)) {
			continue
		}
		if found != nil {
			return nil, broker.InvalidField(field, "%s has several delegations: name one by its id", m.Address)
		}
		found = d
	}
	if found == nil {
		e := broker.Errorf(broker.NotFound, "%s is not delegated", m.Address)
		e.Field = field
		return nil, e
	}
	return found, nil
}

func (a *api) updateDelegation(ctx context.Context, in *struct {
	Delegation string `path:"delegation" doc:"Id; or a mailbox, by id or address, that has one delegation."`
	Body       DelegationPatch
},
) (*tagged[DelegationUpdated], error) {
	if in.Body.Terms == nil && in.Body.ApproveAgents == nil {
		return nil, broker.InvalidField("terms", "is missing")
	}
	d, err := a.findDelegation(ctx, "", in.Delegation)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, d.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if d, err = a.reads(ctx).Delegation(ctx, d.ID); err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, d.FirmID); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	ctx, err = unchanged(ctx, d.ID, d, func() (any, error) { return a.showDelegation(d, names), nil })
	if err != nil {
		return nil, err
	}
	if in.Body.Terms != nil {
		if d.Terms, err = a.patchTerms(ctx, in.Body.Terms, d.Terms, policy.Terms{}); err != nil {
			return nil, err
		}
	}
	if in.Body.ApproveAgents != nil {
		d.ApproveAgents = *in.Body.ApproveAgents
	}
	ended, err := a.narrowing(ctx,
		func(s *broker.Session) bool { return s.DelegationID == d.ID },
		func() error { return a.State.UpdateDelegation(ctx, actor(ctx), d) })
	if err != nil {
		return nil, err
	}
	if names, err = a.directory(ctx); err != nil {
		return nil, err
	}
	return show(d, DelegationUpdated{Delegation: *a.showDelegation(d, names), Ended: ended}), nil
}
