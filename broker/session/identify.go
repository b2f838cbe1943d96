// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// What is looked up in place of what a login does not have. Every login causes
// the same look-ups, so that their number and their time tell nothing.
const (
	noPin     = "0000000000000000000000000000000000000000000000000000000000000000"
	noID      = broker.ID("00000000-0000-0000-0000-000000000000")
	noAddress = "nobody@mailbox.invalid"
	noName    = "nobody"
)

// attempt is one login on its way in.
type attempt struct {
	login broker.Login
	hash  []byte
	pin   string
	// company is the certificate, where a company's own CA issued it; unfit is why
	// it opens nothing.
	company *broker.CompanyCertificate
	unfit   string
	// claimed is the agent whom the login names, if it names one.
	claimed string
	// asked says that the directory was asked; it said yes to the agent verified,
	// or no, for the cause verdict.
	asked    bool
	verified broker.ID
	verdict  string
}

func (m *Manager) newAttempt(l broker.Login) *attempt {
	a := &attempt{login: l, hash: m.TokenHash(l.Token.Reveal()), claimed: agentOf(l.Username, l.AuthorizationID)}
	if l.Certificate != nil {
		a.pin = broker.KeyPin(l.Certificate)
	}
	return a
}

// certify finds out what a company's own CA says of the certificate. The error
// is Unavailable: what the CA has revoked is not known.
func (m *Manager) certify(a *attempt) (down *broker.Error) {
	if m.companyCAs == nil || a.login.Certificate == nil {
		return nil
	}
	var err error
	if a.company, err = m.companyCAs.Identify(a.login.Certificate); err == nil && a.company != nil {
		err = m.companyCAs.Standing(a.company)
	}
	if a.unfit, down = unfitness(err); a.unfit != "" {
		m.logger.Warn("a certificate of a company's CA is not good", zap.String("key_pin", a.pin), zap.Error(err))
	}
	return down
}

// unfitness takes CompanyCAs' errors apart.
func unfitness(err error) (cause string, down *broker.Error) {
	switch broker.CodeOf(err) {
	case "":
		return "", nil
	case broker.Denied:
		return cmp.Or(reasonOf(err), causeUnknownCertificate), nil
	}
	down = broker.Errorf(broker.Unavailable, textRevocation).WithCause(err)
	down.Reason = reasonOf(err)
	return "", down
}

// finding is what an attempt came to at one view.
type finding struct {
	facts
	// cause is why it is denied; empty: it is not.
	cause  string
	grants []grant
}

// identify finds out who is asking for what. The error is the state's.
func (m *Manager) identify(ctx context.Context, v *view, a *attempt) (*finding, error) {
	f := &finding{facts: facts{
		now: m.now(), zones: &m.zones, guardrails: m.guardrails, protocol: a.login.Protocol, addr: a.login.RemoteAddr.Addr().Unmap(), pin: a.pin,
		certificateAlone: m.certificateAlone, company: a.company, unfit: a.unfit,
	}}
	var err error
	if f.password, err = v.passwordByHash(ctx, a.hash); err != nil {
		return nil, err
	}
	known, err := v.workstationOf(ctx, a.pin, a.company)
	if err != nil {
		return nil, err
	}
	f.takeWorkstation(known)
	agentID, err := m.method(ctx, v, a, f)
	if err != nil {
		return nil, err
	}
	if f.agent, err = v.agent(ctx, agentID); err != nil {
		return nil, err
	}
	name := ""
	if f.agent != nil {
		name = f.agent.Name
	}
	address, named := mailboxOf(a.login.Username, a.login.AuthorizationID, name)
	if !named {
		address = noAddress
	}
	if f.mailbox, err = v.mailboxByAddress(ctx, address); err != nil {
		return nil, err
	}
	if f.mailbox != nil && (!named || strings.ToLower(f.mailbox.Address) != address) {
		f.mailbox = nil // an alias is not a mailbox's name
	}
	mailboxID := noID
	if f.mailbox != nil {
		mailboxID = f.mailbox.ID
	}
	assignments, err := v.assignmentsOf(ctx, agentID, mailboxID)
	if err != nil {
		return nil, err
	}
	if f.sites, err = v.sites(ctx); err != nil {
		return nil, err
	}
	if f.locks, err = v.locks(ctx); err != nil {
		return nil, err
	}
	switch f.cause = f.denial(); {
	case f.cause != "":
	case f.method == broker.AuthCertificate && f.unverified(a):
	case !named:
		f.cause = causeUsername
	case f.mailbox == nil:
		f.cause = causeUnknownMailbox
	case len(assignments) == 0:
		f.cause = causeNotAssigned
	case f.unverified(a):
		// The last of all: nobody has passwords tried but where a right one
		// would let him in.
	default:
		f.grants, err = grantsOf(ctx, v, assignments)
	}
	return f, err
}

// method finds out what a login is to let somebody in by, and whom. A token
// that is known is taken for one, whomever the login names: a local part may
// hold a slash, and what stands before it be an agent's name.
func (m *Manager) method(ctx context.Context, v *view, a *attempt, f *finding) (agent broker.ID, err error) {
	var claimed *broker.Agent
	if m.directory != nil {
		name := noName
		if a.claimed != "" {
			name = a.claimed
		}
		if claimed, err = v.agentByName(ctx, name); err != nil {
			return "", err
		}
	}
	f.method = broker.AuthAppPassword
	switch {
	case a.login.External:
		f.method = broker.AuthCertificate
		if f.workstation != nil && f.workstation.AgentID != "" {
			return f.workstation.AgentID, nil
		}
	case f.password != nil:
		return f.password.AgentID, nil
	case claimed != nil && a.claimed != "" && claimed.Authentication == broker.AuthLDAP && !a.login.Token.Empty():
		f.method = broker.AuthLDAP
		return claimed.ID, nil
	}
	return noID, nil
}

// unverified sets the cause when the directory is needed and did not say yes.
func (f *finding) unverified(a *attempt) bool {
	if !f.asksDirectory() || a.verified == f.agent.ID {
		return false
	}
	if f.cause = a.verdict; f.cause == "" {
		f.cause = causeUnverified
	}
	return true
}

func grantsOf(ctx context.Context, v *view, assignments []*broker.Assignment) ([]grant, error) {
	grants := make([]grant, 0, len(assignments))
	for _, a := range assignments {
		d, err := v.delegation(ctx, a.DelegationID)
		if err != nil {
			return nil, err
		}
		grants = append(grants, grant{a, d})
	}
	return grants, nil
}

// astray reports whether a good app password was used where it is not good.
func (f *finding) astray() bool {
	if f.password == nil {
		return false
	}
	switch f.cause {
	case causeNoCertificate, causeUnknownCertificate, causeWorkstationGroup:
		return true
	}
	return f.unfit != "" && f.cause == f.unfit
}

// event returns an event about the attempt, in the log of the firm whose
// mailbox was asked for; else in the BPO's own.
func (f *finding) event(t broker.EventType, data any) *broker.Event {
	e := &broker.Event{Type: t, Actor: broker.Actor{Kind: "stranger"}, Data: data}
	if f.agent != nil {
		e.AgentID = f.agent.ID
		e.Actor = broker.Actor{Kind: "agent", Name: f.agent.Name, ID: f.agent.ID}
	}
	if f.workstation != nil {
		e.WorkstationID = f.workstation.ID
	}
	if f.mailbox != nil {
		e.FirmID, e.MailboxID = f.mailbox.FirmID, f.mailbox.ID
	}
	return e
}
