// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// TermsInput says what may be done. In an assignment, what is left out is as
// the delegation has it now.
type TermsInput struct {
	Actions     []Action   `json:"actions,omitempty" nullable:"false" doc:"What may be done; without it, all."`
	NotBefore   *time.Time `json:"not_before,omitempty" doc:"When the terms begin to hold; without it, at once."`
	NotAfter    *time.Time `json:"not_after,omitempty" doc:"When they end; without it, when revoked."`
	Sites       []string   `json:"sites,omitempty" nullable:"false" doc:"Sites that may be used, by id or name; without it, any."`
	HardwareKey bool       `json:"hardware_key,omitempty" doc:"Demands a workstation of class hardware."`
}

// DelegationInput makes a delegation.
type DelegationInput struct {
	Mailbox string     `json:"mailbox" minLength:"1" doc:"Id or address."`
	Terms   TermsInput `json:"terms,omitempty"`
}

// GrantState says whether a delegation, assignment or app password holds now.
type GrantState string

// The states.
const (
	GrantActive      GrantState = "active"
	GrantNotYetValid GrantState = "not-yet-valid"
	GrantExpired     GrantState = "expired"
	GrantRevoked     GrantState = "revoked"
)

// holds reports whether it holds now or will.
func (s GrantState) holds() bool { return s == GrantActive || s == GrantNotYetValid }

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
	State   GrantState `json:"state" enum:"active,not-yet-valid,expired,revoked"`
}

type delegationPath struct {
	Delegation string `path:"delegation" doc:"Id."`
}

// grantsQuery narrows a list of grants.
type grantsQuery struct {
	All bool `query:"all" doc:"Revoked and expired ones too."`
}

func (a *api) registerDelegations() {
	route(a, http.MethodGet, "/v1/delegations", "list-delegations", "List delegations", a.listDelegations)
	route(a, http.MethodPost, "/v1/delegations", "create-delegation", "Delegate a mailbox", a.createDelegation)
	route(a, http.MethodGet, "/v1/delegations/{delegation}", "get-delegation", "Show a delegation",
		func(ctx context.Context, in *delegationPath) (*answer[*Delegation], error) {
			d, err := a.findDelegation(ctx, "", in.Delegation)
			if err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			return &answer[*Delegation]{a.showDelegation(d, names)}, nil
		})
	route(a, http.MethodPost, "/v1/delegations/{delegation}/revoke", "revoke-delegation",
		"Revoke a delegation and its assignments, ending their sessions; for good",
		func(ctx context.Context, in *delegationPath) (*answer[Ended], error) {
			d, err := a.findDelegation(ctx, "", in.Delegation)
			if err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.DelegationID == d.ID },
				func() error { return a.State.RevokeDelegation(ctx, actor(ctx), d.ID) })
			return &answer[Ended]{ended}, err
		})
}

func (a *api) listDelegations(ctx context.Context, in *grantsQuery) (*answer[List[*Delegation]], error) {
	all, err := a.State.Delegations(ctx)
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
		Delegation: *d, Firm: names.firms[d.FirmID], Mailbox: names.mailboxes[d.MailboxID],
		State: a.grantState(d.Terms.NotBefore, d.Terms.NotAfter, d.RevokedAt),
	}
}

func (a *api) createDelegation(ctx context.Context, in *struct{ Body DelegationInput }) (*answer[*Delegation], error) {
	m, err := a.findMailbox(ctx, "mailbox", in.Body.Mailbox)
	if err != nil {
		return nil, err
	}
	terms, err := a.terms(ctx, &in.Body.Terms, policy.Terms{Actions: policy.All})
	if err != nil {
		return nil, err
	}
	d := &broker.Delegation{FirmID: m.FirmID, MailboxID: m.ID, Terms: terms}
	if err := a.State.CreateDelegation(ctx, actor(ctx), d); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Delegation]{a.showDelegation(d, names)}, nil
}

// findDelegation finds one by its id.
func (a *api) findDelegation(ctx context.Context, field, ref string) (*broker.Delegation, error) {
	id, err := pathID("delegation", ref)
	if err == nil {
		var d *broker.Delegation
		if d, err = a.State.Delegation(ctx, id); err == nil {
			return d, nil
		}
	}
	if broker.CodeOf(err) == broker.NotFound {
		e := broker.Errorf(broker.NotFound, "there is no delegation %q (it is named by its id)", ref)
		e.Field = field
		return nil, e
	}
	return nil, err
}

// terms reads terms. What in leaves out is as in base; a hardware key that
// base demands stays demanded.
func (a *api) terms(ctx context.Context, in *TermsInput, base policy.Terms) (policy.Terms, error) {
	t := base
	t.HardwareKey = base.HardwareKey || in.HardwareKey
	if len(in.Actions) > 0 {
		names := make([]string, len(in.Actions))
		for i, name := range in.Actions {
			names[i] = string(name)
		}
		var err error
		if t.Actions, err = policy.ParseActions(names); err != nil {
			return t, broker.InvalidField("terms.actions", "%s", err.Error())
		}
	}
	if in.NotBefore != nil {
		t.NotBefore = in.NotBefore.UTC()
	}
	if in.NotAfter != nil {
		t.NotAfter = in.NotAfter.UTC()
		if !t.NotAfter.After(a.Now()) {
			return t, broker.InvalidField("terms.not_after", "has passed already")
		}
	}
	if len(in.Sites) == 0 {
		return t, nil
	}
	t.Sites = make([]string, len(in.Sites))
	for i, ref := range in.Sites {
		s, err := a.findSite(ctx, fmt.Sprintf("terms.sites[%d]", i), ref)
		if err != nil {
			return t, err
		}
		t.Sites[i] = string(s.ID)
	}
	return t, nil
}
