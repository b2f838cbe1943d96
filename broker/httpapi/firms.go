// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// FirmInput makes a firm.
type FirmInput struct {
	Name    string   `json:"name" minLength:"1" doc:"The firm's name: unique." example:"Acme Pumps"`
	Contact string   `json:"contact,omitempty" doc:"Whom a refused agent is told to ask." example:"it@acme.example"`
	Domains []string `json:"domains,omitempty" nullable:"false" doc:"Domains, or whole addresses, that the firm's people may give its mailboxes addresses in." example:"[\"acme.example\"]"`
}

// FirmPatch changes what is in it.
type FirmPatch struct {
	Contact *string   `json:"contact,omitempty" doc:"A claimed firm's is its own people's to change."`
	Domains *[]string `json:"domains,omitempty" nullable:"false" doc:"In place of all before; the BPO's to note."`
}

type firmPath struct {
	Firm string `path:"firm" doc:"Id or name."`
}

func (a *api) registerFirms() {
	route(a, http.MethodGet, "/v1/firms", "list-firms", "List firms",
		func(ctx context.Context, _ *none) (*answer[List[*broker.Firm]], error) {
			firms, err := a.reads(ctx).Firms(ctx)
			if err != nil {
				return nil, err
			}
			return listOf(firms), nil
		})
	route(a, http.MethodPost, "/v1/firms", "create-firm", "Create a firm, and the claim that its first admin redeems",
		func(ctx context.Context, in *struct{ Body FirmInput }) (*answer[*FirmCreated], error) {
			f := &broker.Firm{Name: in.Body.Name, Contact: in.Body.Contact, Domains: in.Body.Domains}
			if err := a.State.CreateFirm(ctx, actor(ctx), f); err != nil {
				return nil, err
			}
			claim, err := a.createClaim(ctx, f)
			return &answer[*FirmCreated]{&FirmCreated{Firm: *f, Claim: claim}}, err
		})
	route(a, http.MethodGet, "/v1/firms/{firm}", "get-firm", "Show a firm",
		func(ctx context.Context, in *firmPath) (*tagged[*broker.Firm], error) {
			f, err := a.findFirm(ctx, "", in.Firm)
			if err != nil {
				return nil, err
			}
			return show(f, f), nil
		})
	route(a, http.MethodPatch, "/v1/firms/{firm}", "update-firm", "Change a firm's contact or domains", a.updateFirm)
}

func (a *api) updateFirm(ctx context.Context, in *struct {
	Firm string `path:"firm" doc:"Id or name."`
	Body FirmPatch
},
) (*tagged[*broker.Firm], error) {
	f, err := a.findFirm(ctx, "", in.Firm)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, f.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if f, err = a.reads(ctx).Firm(ctx, f.ID); err != nil {
		return nil, err
	}
	if ctx, err = unchanged(ctx, f.ID, f, nil); err != nil {
		return nil, err
	}
	if in.Body.Contact != nil {
		f.Contact = *in.Body.Contact
	}
	if in.Body.Domains != nil {
		f.Domains = *in.Body.Domains
	}
	if err := a.State.UpdateFirm(ctx, actor(ctx), f); err != nil {
		return nil, err
	}
	return show(f, f), nil
}

// actsFor refuses the BPO's admins what is a claimed firm's own affair, before
// anything outside of the state is done; the state refuses the rest.
func (a *api) actsFor(ctx context.Context, firm broker.ID) error {
	if principal(ctx).Role != broker.RoleAdmin {
		return nil
	}
	f, err := a.State.Firm(ctx, firm)
	if err != nil || f.ClaimedAt.IsZero() {
		return err
	}
	return broker.Errorf(broker.Refused, "%s was claimed: from then on only its own admins do this", f.Name)
}
