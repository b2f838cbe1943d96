// SPDX-License-Identifier: Apache-2.0

package policy

import (
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// MaxGuardrails is how many policies a set holds.
const MaxGuardrails = 1000

// A guardrail may look at the time, which it sees in steps of a quarter of an
// hour; a decision that rests on one is good for a day at most.
const (
	guardrailStep  = 15 * time.Minute
	guardrailSteps = 24 * int(time.Hour/guardrailStep)
)

// GuardrailSchema is the Cedar schema that guardrails must keep to.
//
//go:embed guardrails.cedarschema
var GuardrailSchema string

// Guardrails are what the BPO's admin forbids above all delegations, in Cedar.
// They are immutable. Cedar denies what nothing permits; here everything that
// the terms grant is permitted, so that a set holds nothing but "forbid".
type Guardrails struct {
	groups []guardrailGroup
	// timed are those that look at the time, which are in groups as well.
	timed []guardrailGroup
}

// guardrailGroup are policies about the same actions. Unless they look at the
// action in their conditions, they are evaluated once for all of these.
type guardrailGroup struct {
	// session says that they are about being let in; actions what else.
	session    bool
	actions    Actions
	eachAction bool
	policies   []guardrail
}

// guardrail is a policy, with the one principal and the one resource, or its
// firm, that its scope names, if it names any. Most of a large set are about
// somebody else, and a comparison is cheaper than an evaluation.
type guardrail struct {
	*cedar.Policy
	principal, resource types.EntityUID
}

// applicable are those of a group whose scope may hold for a subject.
type applicable struct {
	policies []guardrail
	subject  *judgement
}

var _ cedar.PolicyIterator = (*applicable)(nil)

// All implements cedar.PolicyIterator. Its names are empty: a position names a
// policy well enough.
func (l *applicable) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for i := range l.policies {
			if p := &l.policies[i]; l.subject.mayBe(p) && !yield("", p.Policy) {
				return
			}
		}
	}
}

func (j *judgement) mayBe(p *guardrail) bool {
	none := types.EntityUID{}
	return (p.principal == none || p.principal == j.request.Principal) &&
		(p.resource == none || p.resource == j.request.Resource || p.resource == j.firm)
}

func (j *judgement) any(policies []guardrail) bool {
	for i := range policies {
		if j.mayBe(&policies[i]) {
			return true
		}
	}
	return false
}

func newGuardrail(p *cedar.Policy) guardrail {
	g := guardrail{Policy: p}
	switch s := p.AST().Principal.(type) {
	case ast.ScopeTypeEq:
		g.principal = s.Entity
	case ast.ScopeTypeIn:
		g.principal = s.Entity // agents are in nothing but themselves
	}
	switch s := p.AST().Resource.(type) {
	case ast.ScopeTypeEq:
		g.resource = s.Entity
	case ast.ScopeTypeIn:
		g.resource = s.Entity
	}
	return g
}

func annotation(p *cedar.Policy, key types.AnnotationKey) string {
	for _, a := range p.AST().Annotations {
		if a.Key == key {
			return string(a.Value)
		}
	}
	return ""
}

// ParseGuardrails reads a set of policies and holds each against the schema.
// The name is the file's, for errors, which say line and reason. An empty text
// is a set that forbids nothing.
func ParseGuardrails(name string, text []byte) (*Guardrails, error) {
	list, err := cedar.NewPolicyListFromBytes(name, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(list) > MaxGuardrails {
		return nil, fmt.Errorf("%s: more than %d policies", name, MaxGuardrails)
	}
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(GuardrailSchema)); err != nil {
		return nil, fmt.Errorf("the schema of guardrails: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("the schema of guardrails: %w", err)
	}
	validator := validate.New(resolved)
	g := &Guardrails{}
	for _, p := range list {
		at := func(err error) error { return fmt.Errorf("%s:%d: %w", name, p.Position().Line, err) }
		if p.Effect() != cedar.Forbid {
			return nil, at(errors.New("guardrails forbid: what terms grant is permitted already, and more cannot be"))
		}
		if err := validator.Policy("", (*ast.Policy)(p.AST())); err != nil {
			return nil, at(err)
		}
		g.add(p)
	}
	return g, nil
}

// add sorts a policy in by what it looks at.
func (g *Guardrails) add(p *cedar.Policy) {
	session, actions := guardedActions((*ast.Policy)(p.AST()).Action)
	eachAction, timed := false, false
	for _, c := range p.AST().Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeVariable:
				eachAction = eachAction || n.Name == "action"
				// The whole of the context holds the time, too.
				timed = timed || n.Name == "context"
			case ast.NodeTypeAccess:
				if _, ok := n.Arg.(ast.NodeTypeVariable); ok && n.Value != "time" {
					v := n.Arg.(ast.NodeTypeVariable)
					eachAction = eachAction || v.Name == "action"
					return false
				}
			}
			return true
		})
	}
	g.groups = sortIn(g.groups, p, session, actions, eachAction)
	if timed {
		g.timed = sortIn(g.timed, p, session, actions, eachAction)
	}
}

func sortIn(groups []guardrailGroup, p *cedar.Policy, session bool, actions Actions, eachAction bool) []guardrailGroup {
	for i := range groups {
		if g := &groups[i]; g.session == session && g.actions == actions && g.eachAction == eachAction {
			g.policies = append(g.policies, newGuardrail(p))
			return groups
		}
	}
	return append(groups, guardrailGroup{session, actions, eachAction, []guardrail{newGuardrail(p)}})
}

// guardedActions returns what a policy's scope names.
func guardedActions(scope ast.IsActionScopeNode) (session bool, actions Actions) {
	var named []types.EntityUID
	switch s := scope.(type) {
	case ast.ScopeTypeEq:
		named = []types.EntityUID{s.Entity}
	case ast.ScopeTypeIn:
		named = []types.EntityUID{s.Entity}
	case ast.ScopeTypeInSet:
		named = s.Entities
	default:
		return true, All
	}
	for _, uid := range named {
		if uid == actionUID("session") {
			session = true
		}
		for i, name := range actionNames {
			if uid == actionUID(name) {
				actions |= 1 << i
			}
		}
	}
	return session, actions
}

func actionUID(name string) types.EntityUID { return types.NewEntityUID("Action", types.String(name)) }

// Subject is what guardrails look at.
type Subject struct {
	// Agent, Mailbox and Firm are ids.
	Agent     string
	AgentName string
	Mailbox   string
	Address   string
	Firm      string
	// Protocol is imap or submission.
	Protocol string
	// WorkstationClass is hardware, software or none.
	WorkstationClass string
	// Authentication is app-password, ldap or certificate.
	Authentication string
	// Site is an id, or empty.
	Site string
}

// verdict is what guardrails say at one time.
type verdict struct {
	session bool
	actions Actions
	// message is what the policy that forbids the session tells the agent.
	message string
}

// judgement is the evaluation for one subject.
type judgement struct {
	entities types.EntityMap
	subject  *Subject
	firm     types.EntityUID
	request  cedar.Request
}

func newJudgement(s *Subject) *judgement {
	agent := types.NewEntityUID("Agent", types.String(s.Agent))
	mailbox := types.NewEntityUID("Mailbox", types.String(s.Mailbox))
	firm := types.NewEntityUID("Firm", types.String(s.Firm))
	return &judgement{
		subject: s,
		firm:    firm,
		request: cedar.Request{Principal: agent, Resource: mailbox},
		entities: types.EntityMap{
			agent: {UID: agent, Attributes: types.NewRecord(types.RecordMap{"name": types.String(s.AgentName)})},
			mailbox: {
				UID: mailbox, Parents: types.NewEntityUIDSet(firm),
				Attributes: types.NewRecord(types.RecordMap{"address": types.String(s.Address), "firm": firm}),
			},
			firm: {UID: firm},
		},
	}
}

// at sets the time.
func (j *judgement) at(t time.Time) {
	j.request.Context = types.NewRecord(types.RecordMap{
		"protocol":          types.String(j.subject.Protocol),
		"workstation_class": types.String(j.subject.WorkstationClass),
		"authentication":    types.String(j.subject.Authentication),
		"site":              types.String(j.subject.Site),
		"time":              types.NewDatetime(t.UTC().Truncate(guardrailStep)),
	})
}

// errGuardrail is a guardrail that could not be evaluated.
var errGuardrail = errors.New("a guardrail cannot be evaluated")

// forbidden evaluates groups, as far as they are about wanted.
func (j *judgement) forbidden(groups []guardrailGroup, wanted Actions) (v verdict, err error) {
	for i := range groups {
		group := &groups[i]
		if !group.session && group.actions&wanted == 0 {
			continue
		}
		if !group.eachAction {
			hit, message, err := j.ask(group, group.example())
			if err != nil {
				return v, err
			}
			if hit {
				v.add(group.session, group.actions, message)
			}
			continue
		}
		if group.session {
			hit, message, err := j.ask(group, "session")
			if err != nil {
				return v, err
			}
			if hit {
				v.add(true, 0, message)
			}
		}
		for bit, name := range actionNames {
			action := Actions(1) << bit
			if !group.actions.Has(action) || !wanted.Has(action) {
				continue
			}
			hit, message, err := j.ask(group, name)
			if err != nil {
				return v, err
			}
			if hit {
				v.add(false, action, message)
			}
		}
	}
	return v, nil
}

// example is one of the actions that the group is about.
func (g *guardrailGroup) example() string {
	for bit, name := range actionNames {
		if g.actions.Has(1 << bit) {
			return name
		}
	}
	return "session"
}

func (v *verdict) add(session bool, actions Actions, message string) {
	v.session = v.session || session
	v.actions |= actions
	if v.message == "" {
		v.message = message
	}
}

// ask reports whether any of the group's policies forbids the action.
func (j *judgement) ask(g *guardrailGroup, action string) (hit bool, message string, err error) {
	j.request.Action = actionUID(action)
	if !j.any(g.policies) {
		return false, "", nil
	}
	_, diagnostic := cedar.Authorize(&applicable{g.policies, j}, j.entities, j.request)
	if len(diagnostic.Errors) > 0 {
		return true, "", fmt.Errorf("%w: line %d: %s", errGuardrail, diagnostic.Errors[0].Position.Line, diagnostic.Errors[0].Message)
	}
	if len(diagnostic.Reasons) == 0 {
		return false, "", nil
	}
	at := diagnostic.Reasons[0].Position
	for _, p := range g.policies {
		if p.Position() == at {
			message = annotation(p.Policy, "message")
		}
	}
	return true, message, nil
}

// apply narrows a decision; a refusal takes its place.
func (g *Guardrails) apply(d *Decision, s *Subject, now time.Time) (*Decision, *Refusal) {
	if g == nil || len(g.groups) == 0 {
		return d, nil
	}
	j := newJudgement(s)
	j.at(now)
	v, err := j.forbidden(g.groups, d.Actions)
	if err != nil {
		return nil, &Refusal{ReasonGuardrail, "A guardrail of your company cannot be evaluated, so nobody is let in."}
	}
	d.Actions &^= v.actions
	if v.session || d.Actions == 0 {
		if v.message == "" {
			v.message = "A guardrail of your company does not allow this."
		}
		return nil, &Refusal{ReasonGuardrail, v.message}
	}
	d.Until = earlierEnd(d.Until, g.changes(j, v, d.Actions, now))
	return d, nil
}

// changes returns when the guardrails forbid more than they do now; zero:
// never. It looks a day ahead, and says a day where nothing changes in it.
func (g *Guardrails) changes(j *judgement, now verdict, wanted Actions, at time.Time) time.Time {
	if len(g.timed) == 0 {
		return time.Time{}
	}
	step := at.UTC().Truncate(guardrailStep)
	for range guardrailSteps {
		step = step.Add(guardrailStep)
		j.at(step)
		then, err := j.forbidden(g.timed, wanted)
		if err != nil || then.session || then.actions&wanted&^now.actions != 0 {
			break
		}
	}
	return step
}
