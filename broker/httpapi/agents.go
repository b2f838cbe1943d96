// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// AgentInput makes an agent.
type AgentInput struct {
	Name     string `json:"name" minLength:"1" doc:"Short, unique and stable: what agent/mailbox logs in with." example:"asha"`
	FullName string `json:"full_name,omitempty" example:"Asha Rao"`
	// What lets the agent in.
	Authentication   broker.Authentication `json:"authentication,omitempty" enum:"app-password,ldap" doc:"app-password, which is meant without it, or ldap: his password is the one that he has in the company's directory, and he has no app password."`
	DirectoryAccount string                `json:"directory_account,omitempty" doc:"With ldap: what the directory calls him; without it, by his name." example:"arao"`
}

// addAgent makes an agent.
func (a *api) addAgent(ctx context.Context, in *AgentInput) (*broker.Agent, error) {
	g := &broker.Agent{
		Name: in.Name, FullName: in.FullName,
		Authentication: in.Authentication, DirectoryAccount: in.DirectoryAccount,
	}
	if err := a.hasDirectory(g); err != nil {
		return nil, err
	}
	return g, a.State.CreateAgent(ctx, actor(ctx), g)
}

// AgentPatch changes what is in it. The name stays: records and mail clients
// name the agent so.
type AgentPatch struct {
	FullName         *string                `json:"full_name,omitempty" example:"Asha Rao"`
	Authentication   *broker.Authentication `json:"authentication,omitempty" enum:"app-password,ldap" doc:"With ldap, his app passwords are revoked. His sessions end when it changes."`
	DirectoryAccount *string                `json:"directory_account,omitempty" doc:"With ldap: what the directory calls him; empty: by his name."`
}

// AgentUpdated is a changed agent, and what the change ended.
type AgentUpdated struct {
	broker.Agent
	Ended
}

type agentPath struct {
	Agent string `path:"agent" doc:"Id or name."`
}

func (a *api) registerAgents() {
	route(a, http.MethodGet, "/v1/agents", "list-agents", "List agents",
		func(ctx context.Context, _ *none) (*answer[List[*broker.Agent]], error) {
			agents, err := a.reads(ctx).Agents(ctx)
			if err != nil {
				return nil, err
			}
			return listOf(agents), nil
		})
	route(a, http.MethodPost, "/v1/agents", "create-agent", "Add an agent",
		func(ctx context.Context, in *struct{ Body AgentInput }) (*answer[*broker.Agent], error) {
			g, err := a.addAgent(ctx, &in.Body)
			if err != nil {
				return nil, err
			}
			return &answer[*broker.Agent]{g}, nil
		})
	route(a, http.MethodGet, "/v1/agents/{agent}", "get-agent", "Show an agent",
		func(ctx context.Context, in *agentPath) (*tagged[*broker.Agent], error) {
			g, err := a.findAgent(ctx, "", in.Agent)
			if err != nil {
				return nil, err
			}
			return show(g, g), nil
		})
	route(a, http.MethodPatch, "/v1/agents/{agent}", "update-agent",
		"Change an agent's full name, or what lets him in, ending the sessions that it no longer does", a.updateAgent)
	route(a, http.MethodDelete, "/v1/agents/{agent}", "delete-agent",
		"Remove an agent, revoking his assignments and app passwords and ending his sessions",
		func(ctx context.Context, in *agentPath) (*answer[Ended], error) {
			g, err := a.findAgent(ctx, "", in.Agent)
			if err != nil {
				return nil, err
			}
			if ctx, err = unchanged(ctx, g.ID, g, nil); err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.AgentID == g.ID },
				func() error { return a.State.DeleteAgent(ctx, actor(ctx), g.ID) })
			return &answer[Ended]{ended}, err
		})
}

func (a *api) updateAgent(ctx context.Context, in *struct {
	Agent string `path:"agent" doc:"Id or name."`
	Body  AgentPatch
},
) (*tagged[*AgentUpdated], error) {
	g, err := a.findAgent(ctx, "", in.Agent)
	if err != nil {
		return nil, err
	}
	if ctx, err = unchanged(ctx, g.ID, g, nil); err != nil {
		return nil, err
	}
	b := &in.Body
	if b.FullName != nil {
		g.FullName = *b.FullName
	}
	if b.Authentication != nil {
		g.Authentication = *b.Authentication
		if g.Authentication != broker.AuthLDAP {
			g.DirectoryAccount = ""
		}
	}
	if b.DirectoryAccount != nil {
		g.DirectoryAccount = *b.DirectoryAccount
	}
	if err := a.hasDirectory(g); err != nil {
		return nil, err
	}
	ended, err := a.narrowing(ctx,
		func(s *broker.Session) bool { return s.AgentID == g.ID },
		func() error { return a.State.UpdateAgent(ctx, actor(ctx), g) })
	if err != nil {
		return nil, err
	}
	return show(g, &AgentUpdated{Agent: *g, Ended: ended}), nil
}

// hasDirectory refuses an agent whom nothing could let in.
func (a *api) hasDirectory(g *broker.Agent) error {
	if g.Authentication == broker.AuthLDAP && !a.Directory {
		return broker.InvalidField("authentication", "this server has no directory: see its configuration's directory")
	}
	return nil
}
