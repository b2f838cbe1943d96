// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

const (
	// defaultReportDays and maxReportDays are how far back a report looks.
	defaultReportDays = 30
	maxReportDays     = 366
	// reportTime bounds how long a report may read logs: what it takes away is
	// taken away before.
	reportTime = 60 * time.Second
)

// AgentOffBoarding ends all that an agent has.
type AgentOffBoarding struct {
	Days         int      `json:"days,omitempty" minimum:"1" maximum:"366" doc:"How far back the report looks; 30 unless given."`
	Workstations []string `json:"workstations,omitempty" nullable:"false" doc:"Workstations that leave with the agent, by id or name: their certificates end as well."`
}

// WorkstationOffBoarding ends all that a workstation can do.
type WorkstationOffBoarding struct {
	Days int `json:"days,omitempty" minimum:"1" maximum:"366" doc:"How far back the report looks; 30 unless given."`
}

// OffBoarded is what was ended, and what cannot be.
type OffBoarded struct {
	Agent *broker.Agent `json:"agent,omitempty"`
	Ended
	Workstations []string    `json:"workstations" nullable:"false" doc:"Workstations whose certificates open nothing any more."`
	AppPasswords []broker.ID `json:"app_passwords" nullable:"false" doc:"App passwords that were revoked."`
	Assignments  []broker.ID `json:"assignments" nullable:"false" doc:"Assignments that were revoked."`
	// DirectoryAccounts are what Postern cannot end.
	DirectoryAccounts []string `json:"directory_accounts" nullable:"false" doc:"Accounts in the company's directory whose passwords were used here, or were the agent's: only the directory can disable them or change their passwords."`
	Reach             []Reach  `json:"reach" nullable:"false" doc:"The mailboxes that were within reach until now."`
	Downloads
}

// Reach is a mailbox that was within reach.
type Reach struct {
	MailboxID broker.ID      `json:"mailbox_id"`
	Mailbox   string         `json:"mailbox,omitempty"`
	Firm      string         `json:"firm,omitempty"`
	Agent     string         `json:"agent,omitempty"`
	Actions   policy.Actions `json:"actions" doc:"What the assignment and its delegation allowed."`
}

func (a *api) registerOffBoarding() {
	route(a, http.MethodPost, "/v1/agents/{agent}/off-board", "off-board-agent",
		"End an agent's sessions, app passwords and assignments, remove him, and report what he reached and downloaded", a.offBoardAgent)
	route(a, http.MethodPost, "/v1/workstations/{workstation}/off-board", "off-board-workstation",
		"End a workstation's sessions and certificates and the app passwords that were used on it, remove it, and report what was downloaded to it", a.offBoardWorkstation)
}

func (a *api) offBoardAgent(ctx context.Context, in *struct {
	Agent string `path:"agent" doc:"Id or name."`
	Body  AgentOffBoarding
},
) (*answer[*OffBoarded], error) {
	g, err := a.findAgent(ctx, "", in.Agent)
	if err != nil {
		return nil, err
	}
	if ctx, err = unchanged(ctx, g.ID, g, nil); err != nil {
		return nil, err
	}
	out := newOffBoarded(g)
	if g.Authentication == broker.AuthLDAP {
		out.DirectoryAccounts = append(out.DirectoryAccounts, g.Account())
	}
	machines := map[broker.ID]bool{}
	for i, ref := range in.Body.Workstations {
		w, err := a.findWorkstation(ctx, indexed("workstations", i), ref)
		if err != nil {
			return nil, err
		}
		machines[w.ID] = true
	}
	names, err := a.reachOf(ctx, out, func(s *broker.Assignment) bool { return s.AgentID == g.ID })
	if err != nil {
		return nil, err
	}
	if out.AppPasswords, err = a.standingPasswords(ctx, func(p *broker.AppPassword) bool { return p.AgentID == g.ID }); err != nil {
		return nil, err
	}
	out.Ended, err = a.ending(ctx,
		func(s *broker.Session) bool { return s.AgentID == g.ID || machines[s.WorkstationID] },
		func() error {
			return a.State.Together(ctx, func(ctx context.Context) error {
				for id := range machines {
					if err := a.State.DeleteWorkstation(ctx, actor(ctx), id); err != nil {
						return err
					}
				}
				return a.State.DeleteAgent(ctx, actor(ctx), g.ID)
			})
		})
	if err != nil {
		return nil, err
	}
	for id := range machines {
		out.Workstations = append(out.Workstations, names.workstations[id])
		a.revokeCertificates(ctx, id, allPins)
	}
	slices.Sort(out.Workstations)
	out.Downloads = a.downloads(ctx, in.Body.Days, names, func(e *broker.Event) bool { return e.AgentID == g.ID })
	return &answer[*OffBoarded]{out}, nil
}

func (a *api) offBoardWorkstation(ctx context.Context, in *struct {
	Workstation string `path:"workstation" doc:"Id or name."`
	Body        WorkstationOffBoarding
},
) (*answer[*OffBoarded], error) {
	w, err := a.findWorkstation(ctx, "", in.Workstation)
	if err != nil {
		return nil, err
	}
	if ctx, err = a.unchangedWorkstation(ctx, w); err != nil {
		return nil, err
	}
	out := newOffBoarded(nil)
	// What a machine's mail client has stored is an app password that was used
	// there. It is looked for as long as the report may take, and no longer: the
	// machine's certificate goes in any case.
	used, unread := a.usedOn(ctx, w.ID, in.Body.Days)
	names, err := a.reachOf(ctx, out, func(s *broker.Assignment) bool { return used.agents[s.AgentID] })
	if err != nil {
		return nil, err
	}
	out.Assignments = []broker.ID{} // they stay: the agents do
	if out.AppPasswords, err = a.standingPasswords(ctx, func(p *broker.AppPassword) bool { return used.passwords[p.ID] }); err != nil {
		return nil, err
	}
	out.Ended, err = a.ending(ctx,
		func(s *broker.Session) bool { return s.WorkstationID == w.ID || used.passwords[s.AppPasswordID] },
		func() error {
			return a.State.Together(ctx, func(ctx context.Context) error {
				for _, id := range out.AppPasswords {
					if err := a.State.RevokeAppPassword(ctx, actor(ctx), id); err != nil {
						return err
					}
				}
				return a.State.DeleteWorkstation(ctx, actor(ctx), w.ID)
			})
		})
	if err != nil {
		return nil, err
	}
	out.Workstations = append(out.Workstations, w.Name)
	a.revokeCertificates(ctx, w.ID, allPins)
	for id := range used.directory {
		if g, err := a.State.Agent(ctx, id); err == nil {
			out.DirectoryAccounts = append(out.DirectoryAccounts, g.Account())
		}
	}
	slices.Sort(out.DirectoryAccounts)
	out.Downloads = a.downloads(ctx, in.Body.Days, names, func(e *broker.Event) bool { return e.WorkstationID == w.ID })
	out.Complete = out.Complete && unread == nil
	return &answer[*OffBoarded]{out}, nil
}

func newOffBoarded(g *broker.Agent) *OffBoarded {
	return &OffBoarded{
		Agent: g, Workstations: []string{}, AppPasswords: []broker.ID{}, Assignments: []broker.ID{}, Reach: []Reach{},
		DirectoryAccounts: []string{},
	}
}

// standingPasswords returns the app passwords that match and are not revoked.
func (a *api) standingPasswords(ctx context.Context, match func(*broker.AppPassword) bool) ([]broker.ID, error) {
	all, err := a.State.AppPasswords(ctx)
	if err != nil {
		return nil, err
	}
	ids := []broker.ID{}
	for _, p := range all {
		if match(p) && p.RevokedAt.IsZero() {
			ids = append(ids, p.ID)
		}
	}
	return ids, nil
}

// reachOf notes what the assignments that match reach now, and returns the
// names that there are now.
func (a *api) reachOf(ctx context.Context, out *OffBoarded, match func(*broker.Assignment) bool) (*directory, error) {
	assignments, err := a.State.Assignments(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range assignments {
		if !match(s) || !s.RevokedAt.IsZero() {
			continue
		}
		out.Assignments = append(out.Assignments, s.ID)
		d, err := a.State.Delegation(ctx, s.DelegationID)
		if err != nil {
			return nil, err
		}
		held := a.grantState(d.Terms.NotBefore, d.Terms.NotAfter, d.RevokedAt).holds() &&
			a.grantState(s.Terms.NotBefore, s.Terms.NotAfter, s.RevokedAt).holds() && !s.Pending
		if held {
			out.Reach = append(out.Reach, Reach{
				MailboxID: s.MailboxID, Mailbox: names.mailboxes[s.MailboxID], Firm: names.firms[s.FirmID],
				Agent: names.agents[s.AgentID], Actions: policy.Narrow(d.Terms, s.Terms).Actions,
			})
		}
	}
	return names, nil
}
