// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// PersonInput adds somebody who manages Postern, on the caller's own side: to
// the BPO, or to his firm.
type PersonInput struct {
	Name     string           `json:"name" minLength:"1" doc:"Unique among the people of the firm, or of the BPO." example:"priya"`
	Role     broker.Role      `json:"role" enum:"admin,auditor,firm-admin,firm-auditor" doc:"The BPO's admins add admin and auditor; a firm's add firm-admin and firm-auditor."`
	Identity *broker.Identity `json:"identity,omitempty" doc:"Lets the person in by tokens of this OpenID Connect identity as well."`
	Token    *TokenTerms      `json:"token,omitempty" doc:"Makes a first API token too."`
}

// PersonCreated is a new person and, this once, the first API token.
type PersonCreated struct {
	Person broker.Person    `json:"person"`
	Token  *APITokenCreated `json:"token,omitempty"`
}

// Self is who the caller is.
type Self struct {
	Role   broker.Role `json:"role"`
	Name   string      `json:"name"`
	ID     broker.ID   `json:"id,omitempty" doc:"The person's; none over the server's socket without a token."`
	Firm   string      `json:"firm,omitempty"`
	FirmID broker.ID   `json:"firm_id,omitempty"`
	Scopes []string    `json:"scopes,omitempty" nullable:"false" doc:"What the token is narrowed to."`
}

type personPath struct {
	Person string `path:"person" doc:"Id or name."`
}

func (a *api) registerPeople() {
	route(a, http.MethodGet, "/v1/whoami", "whoami", "Say who the caller is",
		func(ctx context.Context, _ *none) (*answer[Self], error) {
			p := principal(ctx)
			self := Self{Role: p.Role, Name: p.Actor.Name, ID: p.Actor.ID, FirmID: p.FirmID, Scopes: p.Scopes}
			if p.FirmID != "" {
				f, err := a.reads(ctx).Firm(ctx, p.FirmID)
				if err != nil {
					return nil, err
				}
				self.Firm = f.Name
			}
			return &answer[Self]{self}, nil
		})
	route(a, http.MethodGet, "/v1/people", "list-people", "List the people of the caller's own side: the BPO's, or his firm's",
		func(ctx context.Context, _ *none) (*answer[List[*broker.Person]], error) {
			people, err := a.People.People(ctx, principal(ctx).FirmID)
			if err != nil {
				return nil, err
			}
			return listOf(people), nil
		})
	route(a, http.MethodPost, "/v1/people", "create-person", "Add a person to the caller's own side", a.createPerson)
	route(a, http.MethodDelete, "/v1/people/{person}", "delete-person", "Remove a person, revoking his tokens",
		func(ctx context.Context, in *personPath) (*answer[*broker.Person], error) {
			p, err := a.findPerson(ctx, "", in.Person)
			if err != nil {
				return nil, err
			}
			return &answer[*broker.Person]{p}, a.People.RemovePerson(ctx, actor(ctx), p.ID)
		})
}

// findPerson finds somebody of the caller's own side.
func (a *api) findPerson(ctx context.Context, field, ref string) (*broker.Person, error) {
	list := func(ctx context.Context) ([]*broker.Person, error) {
		return a.People.People(ctx, principal(ctx).FirmID)
	}
	return find(ctx, "person", field, ref,
		func(ctx context.Context, id broker.ID) (*broker.Person, error) {
			all, err := list(ctx)
			return among(all, err, func(p *broker.Person) bool { return p.ID == id })
		},
		named(list, func(p *broker.Person) string { return p.Name }))
}

func (a *api) createPerson(ctx context.Context, in *struct{ Body PersonInput }) (*answer[PersonCreated], error) {
	by := principal(ctx)
	if in.Body.Role.OfFirm() != (by.FirmID != "") {
		return nil, broker.InvalidField("role", "you add people to your own side: the BPO's are admin and auditor, a firm's firm-admin and firm-auditor")
	}
	// What a narrowed token makes must not be worth more than it is.
	if len(by.Scopes) > 0 && in.Body.Token == nil {
		return nil, broker.InvalidField("token", "missing: your own token is narrowed, and so must be the new person's")
	}
	if len(by.Scopes) > 0 && in.Body.Identity != nil {
		return nil, broker.InvalidField("identity", "your own token is narrowed, and an identity would not be")
	}
	var terms *newAPIToken
	if in.Body.Token != nil {
		var err error
		if terms, err = a.newAPIToken(ctx, "token.", in.Body.Token); err != nil {
			return nil, err
		}
	}
	p := &broker.Person{FirmID: by.FirmID, Name: in.Body.Name, Role: in.Body.Role, Identity: in.Body.Identity}
	if err := a.People.CreatePerson(ctx, actor(ctx), p); err != nil {
		return nil, err
	}
	created := PersonCreated{Person: *p}
	if terms != nil {
		token, err := a.storeAPIToken(ctx, terms, p)
		if err != nil {
			return nil, err
		}
		created.Token = token
	}
	return &answer[PersonCreated]{created}, nil
}
