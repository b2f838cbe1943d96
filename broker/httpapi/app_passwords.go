// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
)

// AppPasswordInput makes an app password.
type AppPasswordInput struct {
	Agent     string     `json:"agent" minLength:"1" doc:"Whom it names: an agent's id or name."`
	Label     string     `json:"label,omitempty" example:"Thunderbird at Pune"`
	Groups    []string   `json:"groups,omitempty" nullable:"false" doc:"The workstation groups it is good on; without it, every workstation and network-only site."`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When it ends; without it, when revoked."`
}

// AppPassword is an app password with its agent's name; never the token.
type AppPassword struct {
	broker.AppPassword
	Agent string     `json:"agent,omitempty"`
	State GrantState `json:"state" enum:"active,expired,revoked"`
}

// AppPasswordCreated is a new app password and, this once, its token.
type AppPasswordCreated struct {
	AppPassword AppPassword `json:"app_password"`
	Token       string      `json:"token" doc:"What the agent types. It is shown this once, and not kept."`
}

type appPasswordPath struct {
	AppPassword string `path:"app_password" doc:"Id."`
}

func (a *api) registerAppPasswords() {
	route(a, http.MethodGet, "/v1/app-passwords", "list-app-passwords", "List app passwords", a.listAppPasswords)
	route(a, http.MethodPost, "/v1/app-passwords", "create-app-password", "Make an app password; its token is in this answer and nowhere else", a.createAppPassword)
	route(a, http.MethodGet, "/v1/app-passwords/{app_password}", "get-app-password", "Show an app password, without its token",
		func(ctx context.Context, in *appPasswordPath) (*tagged[*AppPassword], error) {
			p, err := a.findAppPassword(ctx, in.AppPassword)
			if err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			return show(p, a.showAppPassword(p, names)), nil
		})
	route(a, http.MethodPost, "/v1/app-passwords/{app_password}/revoke", "revoke-app-password", "Revoke an app password, ending its sessions; for good",
		func(ctx context.Context, in *appPasswordPath) (*answer[Ended], error) {
			p, err := a.findAppPassword(ctx, in.AppPassword)
			if err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			ctx, err = unchanged(ctx, p.ID, p, func() (any, error) { return a.showAppPassword(p, names), nil })
			if err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.AppPasswordID == p.ID },
				func() error { return a.State.RevokeAppPassword(ctx, actor(ctx), p.ID) })
			return &answer[Ended]{ended}, err
		})
}

func (a *api) findAppPassword(ctx context.Context, ref string) (*broker.AppPassword, error) {
	id, err := pathID("app password", ref)
	if err != nil {
		return nil, err
	}
	return a.reads(ctx).AppPassword(ctx, id)
}

func (a *api) listAppPasswords(ctx context.Context, in *struct {
	All   bool   `query:"all" doc:"Revoked and expired ones too."`
	Agent string `query:"agent" doc:"Only this agent's, by id or name."`
},
) (*answer[List[*AppPassword]], error) {
	var agent broker.ID
	if in.Agent != "" {
		g, err := a.findAgent(ctx, "agent", in.Agent)
		if err != nil {
			return nil, err
		}
		agent = g.ID
	}
	all, err := a.reads(ctx).AppPasswords(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var passwords []*AppPassword
	for _, p := range all {
		if agent != "" && p.AgentID != agent {
			continue
		}
		if shown := a.showAppPassword(p, names); in.All || shown.State.holds() {
			passwords = append(passwords, shown)
		}
	}
	return listOf(passwords), nil
}

func (a *api) showAppPassword(p *broker.AppPassword, names *directory) *AppPassword {
	return &AppPassword{
		AppPassword: *p, Agent: names.agents[p.AgentID],
		State: a.grantState(time.Time{}, p.ExpiresAt, p.RevokedAt),
	}
}

// newAppPassword makes a token for p, and stores p with its hash.
func (a *api) newAppPassword(ctx context.Context, p *broker.AppPassword) (token string, err error) {
	if !p.ExpiresAt.IsZero() && !p.ExpiresAt.After(a.Now()) {
		return "", broker.InvalidField("expires_at", "has passed already")
	}
	if token, p.Hash, err = a.Tokens.NewToken(); err != nil {
		return "", err
	}
	return token, a.State.CreateAppPassword(ctx, actor(ctx), p)
}

func (a *api) createAppPassword(ctx context.Context, in *struct{ Body AppPasswordInput }) (*answer[AppPasswordCreated], error) {
	agent, err := a.findAgent(ctx, "agent", in.Body.Agent)
	if err != nil {
		return nil, err
	}
	p := &broker.AppPassword{AgentID: agent.ID, Label: in.Body.Label, Groups: in.Body.Groups}
	if in.Body.ExpiresAt != nil {
		p.ExpiresAt = in.Body.ExpiresAt.UTC()
	}
	token, err := a.newAppPassword(ctx, p)
	if err != nil {
		return nil, err
	}
	return &answer[AppPasswordCreated]{AppPasswordCreated{
		AppPassword: AppPassword{AppPassword: *p, Agent: agent.Name, State: GrantActive},
		Token:       token,
	}}, nil
}
