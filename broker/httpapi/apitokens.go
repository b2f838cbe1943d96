// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// DefaultTokenLifetime and MaxTokenLifetime are an API token's.
	DefaultTokenLifetime = 90 * 24 * time.Hour
	MaxTokenLifetime     = 366 * 24 * time.Hour
)

// TokenTerms are what a new API token is good for.
type TokenTerms struct {
	Label     string     `json:"label,omitempty" example:"nightly report"`
	Scopes    []string   `json:"scopes,omitempty" nullable:"false" doc:"Narrows what the person's role allows: read, or groups of operations (the tags of this document). Without it, nothing is narrowed." example:"[\"read\"]"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When it ends: in 366 days at most; without it, in 90 days."`
}

// TokenInput makes an API token.
type TokenInput struct {
	Person string `json:"person,omitempty" doc:"Whom it speaks for, by id or name, of the caller's own side; without it, the caller. Only admins make tokens for others."`
	TokenTerms
}

// APIToken is an API token with its person's name; never the token itself.
type APIToken struct {
	broker.APIToken
	Person string     `json:"person,omitempty"`
	State  GrantState `json:"state" enum:"active,expired,revoked"`
}

// APITokenCreated is a new token and, this once, the token itself.
type APITokenCreated struct {
	APIToken APIToken `json:"api_token"`
	Token    string   `json:"token" doc:"What to show as a bearer token. It is shown this once, and not kept."`
}

func (a *api) registerAPITokens() {
	route(a, http.MethodGet, "/v1/tokens", "list-tokens", "List API tokens: an admin those of his side, others their own", a.listAPITokens)
	route(a, http.MethodPost, "/v1/tokens", "create-token", "Make an API token; it is in this answer and nowhere else",
		func(ctx context.Context, in *struct{ Body TokenInput }) (*answer[*APITokenCreated], error) {
			by := principal(ctx)
			ref := in.Body.Person
			if ref == "" {
				ref = string(by.Actor.ID)
			}
			if ref == "" {
				return nil, broker.InvalidField("person", "missing: Postern does not know you as a person of its own")
			}
			p, err := a.findPerson(ctx, "person", ref)
			if err != nil {
				return nil, err
			}
			if p.ID != by.Actor.ID && !mayManagePeople(by) {
				return nil, broker.Errorf(broker.Refused, "only admins make tokens for others")
			}
			t, err := a.newAPIToken(ctx, "", &in.Body.TokenTerms)
			if err != nil {
				return nil, err
			}
			created, err := a.storeAPIToken(ctx, t, p)
			return &answer[*APITokenCreated]{created}, err
		})
	route(a, http.MethodPost, "/v1/tokens/{token}/revoke", "revoke-token", "Revoke an API token; for good",
		func(ctx context.Context, in *struct {
			Token string `path:"token" doc:"Id."`
		},
		) (*answer[*APIToken], error) {
			id, err := pathID("token", in.Token)
			if err != nil {
				return nil, err
			}
			visible, err := a.visibleAPITokens(ctx)
			if err != nil {
				return nil, err
			}
			t, err := among(visible, nil, func(t *APIToken) bool { return t.ID == id })
			if err != nil {
				return nil, broker.Errorf(broker.NotFound, "there is no token %q", in.Token)
			}
			if err := a.People.RevokeAPIToken(ctx, actor(ctx), t.ID); err != nil {
				return nil, err
			}
			t.State = GrantRevoked
			return &answer[*APIToken]{t}, nil
		})
}

func mayManagePeople(p *Principal) bool {
	return p.Role == broker.RoleAdmin || p.Role == broker.RoleFirmAdmin
}

func (a *api) listAPITokens(ctx context.Context, in *struct {
	All bool `query:"all" doc:"Revoked and expired ones too."`
},
) (*answer[List[*APIToken]], error) {
	visible, err := a.visibleAPITokens(ctx)
	if err != nil {
		return nil, err
	}
	if !in.All {
		visible = slices.DeleteFunc(visible, func(t *APIToken) bool { return !t.State.holds() })
	}
	return listOf(visible), nil
}

// visibleAPITokens are those of the caller's side if he manages its people,
// else his own.
func (a *api) visibleAPITokens(ctx context.Context) ([]*APIToken, error) {
	by := principal(ctx)
	all, err := a.People.APITokens(ctx, by.FirmID)
	if err != nil {
		return nil, err
	}
	people, err := a.People.People(ctx, by.FirmID)
	if err != nil {
		return nil, err
	}
	names := map[broker.ID]string{}
	for _, p := range people {
		names[p.ID] = p.Name
	}
	var visible []*APIToken
	for _, t := range all {
		if mayManagePeople(by) || t.PersonID == by.Actor.ID {
			visible = append(visible, &APIToken{
				APIToken: *t, Person: names[t.PersonID], State: a.grantState(time.Time{}, t.ExpiresAt, t.RevokedAt),
			})
		}
	}
	return visible, nil
}

// newAPIToken is a token that is not stored yet.
type newAPIToken struct {
	stored broker.APIToken
	shown  string
}

// newAPIToken checks what a new token is to be good for. A narrowed token
// makes none that is wider, nor one that lasts longer than any may.
func (a *api) newAPIToken(ctx context.Context, field string, in *TokenTerms) (*newAPIToken, error) {
	by := principal(ctx)
	known := scopes()
	for _, scope := range in.Scopes {
		if !slices.Contains(known, scope) {
			return nil, broker.InvalidField(field+"scopes", "there is no scope %q: use %s", scope, strings.Join(known, ", "))
		}
		if len(by.Scopes) > 0 && !slices.Contains(by.Scopes, scope) {
			return nil, broker.InvalidField(field+"scopes", "your own token does not hold %q", scope)
		}
	}
	if len(by.Scopes) > 0 && len(in.Scopes) == 0 {
		return nil, broker.InvalidField(field+"scopes", "missing: your own token is narrowed to %s", strings.Join(by.Scopes, ", "))
	}
	now := a.Now()
	t := &newAPIToken{stored: broker.APIToken{Label: in.Label, Scopes: in.Scopes, ExpiresAt: now.Add(DefaultTokenLifetime)}}
	if in.ExpiresAt != nil {
		t.stored.ExpiresAt = in.ExpiresAt.UTC()
	}
	switch end := t.stored.ExpiresAt; {
	case !end.After(now):
		return nil, broker.InvalidField(field+"expires_at", "has passed already")
	case end.After(now.Add(MaxTokenLifetime)):
		return nil, broker.InvalidField(field+"expires_at", "more than 366 days away")
	}
	t.shown, t.stored.Hash = a.APITokens.New()
	return t, nil
}

func (a *api) storeAPIToken(ctx context.Context, t *newAPIToken, p *broker.Person) (*APITokenCreated, error) {
	t.stored.PersonID = p.ID
	if err := a.People.CreateAPIToken(ctx, actor(ctx), &t.stored); err != nil {
		return nil, err
	}
	return &APITokenCreated{APIToken: APIToken{APIToken: t.stored, Person: p.Name, State: GrantActive}, Token: t.shown}, nil
}
