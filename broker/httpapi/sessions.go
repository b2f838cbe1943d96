// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// Session is a session's record with the names of what it holds.
type Session struct {
	broker.Session
	Firm        string `json:"firm,omitempty"`
	Mailbox     string `json:"mailbox,omitempty"`
	Agent       string `json:"agent,omitempty"`
	Workstation string `json:"workstation,omitempty"`
	Site        string `json:"site,omitempty"`
}

func (a *api) registerSessions() {
	route(a, http.MethodGet, "/v1/sessions", "list-sessions", "List sessions, newest first: live ones, or all", a.listSessions)
	route(a, http.MethodPost, "/v1/sessions/{session}/end", "end-session", "End a live session; its client may come back at once",
		func(ctx context.Context, in *struct {
			Session string `path:"session" doc:"Id."`
		},
		) (*answer[Ended], error) {
			id, err := pathID("session", in.Session)
			if err != nil {
				return nil, err
			}
			gone := broker.Errorf(broker.NotFound, "there is no live session %s here", id)
			if p := principal(ctx); p.FirmID != "" {
				live, err := a.reads(ctx).Sessions(ctx, true, maxSessions)
				if _, err = among(live, err, func(s *broker.Session) bool { return s.ID == id }); err != nil {
					return nil, gone.WithCause(err)
				}
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.ID == id },
				func() error { return a.Sessions.EndSession(ctx, actor(ctx), id) })
			if broker.CodeOf(err) == broker.NotFound {
				err = gone.WithCause(err)
			}
			return &answer[Ended]{ended}, err
		})
}

func (a *api) listSessions(ctx context.Context, in *struct {
	All   bool `query:"all" doc:"Ended ones too."`
	Limit int  `query:"limit" minimum:"1" maximum:"10000" doc:"How many; 100 unless given."`
},
) (*answer[List[*Session]], error) {
	limit := in.Limit
	if limit == 0 {
		limit = defaultSessions
	}
	if !in.All && in.Limit == 0 {
		limit = maxSessions
	}
	records, err := a.reads(ctx).Sessions(ctx, !in.All, limit)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	sessions := make([]*Session, len(records))
	for i, r := range records {
		sessions[i] = showSession(r, names)
	}
	return listOf(sessions), nil
}

func showSession(r *broker.Session, names *directory) *Session {
	return &Session{
		Session: *r, Firm: names.firms[r.FirmID], Mailbox: names.mailboxes[r.MailboxID], Agent: names.agents[r.AgentID],
		Workstation: names.workstations[r.WorkstationID], Site: names.sites[r.SiteID],
	}
}
