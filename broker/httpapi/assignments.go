// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// AssignmentInput puts an agent on a delegation, which is named by its id, or
// by its mailbox when that has only one that is not over.
type AssignmentInput struct {
	Agent      string     `json:"agent" minLength:"1" doc:"Id or name."`
	Delegation string     `json:"delegation,omitempty" doc:"The delegation's id."`
	Mailbox    string     `json:"mailbox,omitempty" doc:"In its place: a mailbox, by id or address, that has one delegation that is not over."`
	Terms      TermsInput `json:"terms,omitempty" doc:"Equal to the delegation's or narrower. What is left out is as the delegation has it now."`
}

// Assignment is an assignment with the names of what it holds.
type Assignment struct {
	broker.Assignment
	Firm    string     `json:"firm,omitempty"`
	Mailbox string     `json:"mailbox,omitempty"`
	Agent   string     `json:"agent,omitempty"`
	Sites   []string   `json:"sites,omitempty" nullable:"false" doc:"The names of the terms' sites."`
	State   GrantState `json:"state" enum:"active,pending,not-yet-valid,expired,revoked" doc:"pending: it waits for the firm's approval, and opens nothing."`
}

// AssignmentUpdated is an assignment with its new terms, and what they ended.
type AssignmentUpdated struct {
	Assignment Assignment `json:"assignment"`
	Ended
}

type assignmentPath struct {
	Assignment string `path:"assignment" doc:"Id."`
}

func (a *api) registerAssignments() {
	route(a, http.MethodGet, "/v1/assignments", "list-assignments", "List assignments", a.listAssignments)
	route(a, http.MethodPost, "/v1/assignments", "create-assignment", "Put an agent on a delegation", a.createAssignment)
	route(a, http.MethodGet, "/v1/assignments/{assignment}", "get-assignment", "Show an assignment",
		func(ctx context.Context, in *assignmentPath) (*tagged[*Assignment], error) {
			s, err := a.findAssignment(ctx, in.Assignment)
			if err != nil {
				return nil, err
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			return show(s, a.showAssignment(s, names)), nil
		})
	route(a, http.MethodPatch, "/v1/assignments/{assignment}", "update-assignment",
		"Change an assignment's terms within the delegation's, ending the sessions that they make narrower", a.updateAssignment)
	route(a, http.MethodPost, "/v1/assignments/{assignment}/approve", "approve-assignment",
		"Approve an agent whom the BPO assigned, where the delegation demands it", a.approveAssignment)
	route(a, http.MethodPost, "/v1/assignments/{assignment}/revoke", "revoke-assignment", "Revoke an assignment, ending its sessions; for good",
		func(ctx context.Context, in *assignmentPath) (*answer[Ended], error) {
			assignment, err := a.findAssignment(ctx, in.Assignment)
			if err != nil {
				return nil, err
			}
			if ctx, err = a.unchangedAssignment(ctx, assignment); err != nil {
				return nil, err
			}
			ended, err := a.ending(ctx,
				func(s *broker.Session) bool { return s.AssignmentID == assignment.ID },
				func() error { return a.State.RevokeAssignment(ctx, actor(ctx), assignment.ID) })
			return &answer[Ended]{ended}, err
		})
}

func (a *api) findAssignment(ctx context.Context, ref string) (*broker.Assignment, error) {
	id, err := pathID("assignment", ref)
	if err != nil {
		return nil, err
	}
	return a.reads(ctx).Assignment(ctx, id)
}

func (a *api) listAssignments(ctx context.Context, in *grantsQuery) (*answer[List[*Assignment]], error) {
	all, err := a.reads(ctx).Assignments(ctx)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var assignments []*Assignment
	for _, s := range all {
		if shown := a.showAssignment(s, names); in.All || shown.State.holds() {
			assignments = append(assignments, shown)
		}
	}
	return listOf(assignments), nil
}

func (a *api) showAssignment(s *broker.Assignment, names *directory) *Assignment {
	shown := &Assignment{
		Assignment: *s, Firm: names.firms[s.FirmID], Mailbox: names.mailboxes[s.MailboxID], Agent: names.agents[s.AgentID],
		Sites: names.sitesOf(&s.Terms),
		State: a.grantState(s.Terms.NotBefore, s.Terms.NotAfter, s.RevokedAt),
	}
	if s.Pending && shown.State.holds() {
		shown.State = GrantPending
	}
	return shown
}

// unchangedAssignment is unchanged for an assignment.
func (a *api) unchangedAssignment(ctx context.Context, s *broker.Assignment) (context.Context, error) {
	return unchanged(ctx, s.ID, s, func() (any, error) {
		names, err := a.directory(ctx)
		if err != nil {
			return nil, err
		}
		return a.showAssignment(s, names), nil
	})
}

// approveAssignment lets an agent whom the BPO assigned into the mailbox.
func (a *api) approveAssignment(ctx context.Context, in *assignmentPath) (*answer[*Assignment], error) {
	s, err := a.findAssignment(ctx, in.Assignment)
	if err != nil {
		return nil, err
	}
	// What the BPO changes meanwhile must not be approved unseen.
	if ctx, err = a.unchangedAssignment(ctx, s); err != nil {
		return nil, err
	}
	if err := a.State.ApproveAssignment(ctx, actor(ctx), s.ID); err != nil {
		return nil, err
	}
	if s, err = a.reads(ctx).Assignment(ctx, s.ID); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Assignment]{a.showAssignment(s, names)}, nil
}

func (a *api) createAssignment(ctx context.Context, in *struct{ Body AssignmentInput }) (*answer[*Assignment], error) {
	agent, err := a.findAgent(ctx, "agent", in.Body.Agent)
	if err != nil {
		return nil, err
	}
	d, err := a.delegationFor(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	s, err := a.assign(ctx, agent, d, &in.Body.Terms)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Assignment]{a.showAssignment(s, names)}, nil
}

// assign puts an agent on a delegation.
func (a *api) assign(ctx context.Context, agent *broker.Agent, d *broker.Delegation, in *TermsInput) (*broker.Assignment, error) {
	terms, err := a.terms(ctx, in, d.Terms)
	if err != nil {
		return nil, err
	}
	s := &broker.Assignment{
		DelegationID: d.ID, FirmID: d.FirmID, MailboxID: d.MailboxID,
		AgentID: agent.ID, Terms: terms,
	}
	return s, a.State.CreateAssignment(ctx, actor(ctx), s)
}

// delegationFor finds the delegation that an assignment names.
func (a *api) delegationFor(ctx context.Context, in *AssignmentInput) (*broker.Delegation, error) {
	if (in.Delegation == "") == (in.Mailbox == "") {
		return nil, broker.InvalidField("delegation", "give one of delegation and mailbox")
	}
	if in.Delegation != "" {
		return a.findDelegation(ctx, "delegation", in.Delegation)
	}
	m, err := a.findMailbox(ctx, "mailbox", in.Mailbox)
	if err != nil {
		return nil, err
	}
	return a.delegationOn(ctx, m, "mailbox", GrantState.holds)
}

func (a *api) updateAssignment(ctx context.Context, in *struct {
	Assignment string `path:"assignment" doc:"Id."`
	Body       GrantPatch
},
) (*tagged[AssignmentUpdated], error) {
	s, err := a.findAssignment(ctx, in.Assignment)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err = a.reads(ctx).Assignment(ctx, s.ID); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	ctx, err = unchanged(ctx, s.ID, s, func() (any, error) { return a.showAssignment(s, names), nil })
	if err != nil {
		return nil, err
	}
	d, err := a.reads(ctx).Delegation(ctx, s.DelegationID)
	if err != nil {
		return nil, err
	}
	// A delegation that was made narrower since leaves terms behind that are
	// wider, and mean nothing: they must not refuse a change of others.
	if s.Terms, err = a.patchTerms(ctx, &in.Body.Terms, policy.Narrow(d.Terms, s.Terms), d.Terms); err != nil {
		return nil, err
	}
	ended, err := a.narrowing(ctx,
		func(live *broker.Session) bool { return live.AssignmentID == s.ID },
		func() error { return a.State.UpdateAssignment(ctx, actor(ctx), s) })
	if err != nil {
		return nil, err
	}
	if names, err = a.directory(ctx); err != nil {
		return nil, err
	}
	return show(s, AssignmentUpdated{Assignment: *a.showAssignment(s, names), Ended: ended}), nil
}
