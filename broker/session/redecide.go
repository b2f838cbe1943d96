// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"strings"
	"sync"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// notices are changes that the state told of and Run has not followed yet.
type notices struct {
	mu      sync.Mutex
	changes []broker.Change
	lost    bool
	wake    chan struct{}
}

// add is called by the state and does not block.
func (n *notices) add(c broker.Change) {
	n.mu.Lock()
	if len(n.changes) < maxNotices {
		n.changes = append(n.changes, c)
	} else {
		n.changes, n.lost = nil, true
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notices) take() (changes []broker.Change, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	changes, lost = n.changes, n.lost
	n.changes, n.lost = nil, false
	return changes, lost
}

// touchedBy reports whether any of the changes can alter the decision.
func (s *live) touchedBy(changes []broker.Change) bool {
	for _, c := range changes {
		if s.touched(c) {
			return true
		}
	}
	return false
}

// touched is generous: whatever is not known to leave the session alone
// touches it.
func (s *live) touched(c broker.Change) bool {
	r := s.record
	switch c.Kind {
	case "firm":
		return c.ID == r.FirmID
	case "mailbox":
		return c.ID == r.MailboxID
	case "agent":
		return c.ID == r.AgentID
	case "workstation":
		return c.ID == r.WorkstationID
	case "delegation":
		return c.ID == r.DelegationID
	case "assignment":
		return c.ID == r.AssignmentID
	case "app-password":
		return c.ID == r.AppPasswordID
	case "canary":
		return false
	case "lock":
		switch c.Target {
		case broker.LockAgent:
			return c.TargetID == r.AgentID
		case broker.LockWorkstation:
			return c.TargetID == r.WorkstationID
		case broker.LockMailbox:
			return c.TargetID == r.MailboxID
		case broker.LockFirm:
			return c.TargetID == r.FirmID
		}
	}
	// A site's networks may begin or cease to hold any session's address.
	return true
}

// redecide returns how the session must end by v, or nil if it lives on. The
// error is the state's.
//
// It looks at the locks and the delegation first: the end of thousands of
// sessions may hang on those, and takes no other look-up then.
func (m *Manager) redecide(ctx context.Context, v *view, s *live) (*broker.End, error) {
	f := &facts{now: m.now(), zones: &m.zones, guardrails: m.guardrails, protocol: s.record.Protocol, addr: s.addr, pin: s.pin, method: s.record.Authentication, certificateAlone: m.certificateAlone, company: s.company}
	if s.company != nil {
		if end := m.standing(s); end != nil {
			return end, nil
		}
	}
	var g grant
	var err error
	if f.locks, err = v.locks(ctx); err != nil {
		return nil, err
	}
	if g.delegation, err = v.delegation(ctx, s.record.DelegationID); err != nil {
		return nil, err
	}
	if end := s.early(f, g.delegation); end != nil {
		return end, nil
	}
	if g.assignment, err = v.assignment(ctx, s.record.AssignmentID); err != nil {
		return nil, err
	}
	if err := f.read(ctx, v, s); err != nil {
		return nil, err
	}
	end := s.judge(f, g)
	if end == nil && f.mailbox != nil {
		end = s.rotated(f.mailbox)
	}
	if end == nil {
		s.decidedAt.Store(v.revision)
	}
	return end, nil
}

// early decides by locks and delegation alone, taking the rest to be as it was
// when the session was opened. If the rest changed as well, and for the better,
// the worst that happens is that the client connects again.
func (s *live) early(f *facts, d *broker.Delegation) *broker.End {
	in := policy.Input{
		Now: f.now, Site: string(s.record.SiteID), HardwareKey: s.hardware, Addresses: s.decision.Addresses, Zones: f.zones,
		DelegationRevoked: d == nil || !d.RevokedAt.IsZero(), RecoverySenders: s.mailbox.AllRecoverySenders(),
		Password: s.record.Authentication != broker.AuthCertificate,
	}
	if d != nil {
		in.Delegation, in.Assignment = d.Terms, d.Terms
	}
	for _, key := range []lockKey{
		{broker.LockAgent, s.record.AgentID},
		{broker.LockWorkstation, s.record.WorkstationID},
		{broker.LockMailbox, s.record.MailboxID},
		{broker.LockFirm, s.record.FirmID},
		{broker.LockSite, s.record.SiteID},
	} {
		for _, l := range f.locks[key] {
			in.Locks = append(in.Locks, policy.Lock{Message: l.Message, Until: l.Until})
		}
	}
	return s.endBy(policy.Decide(&in))
}

// endBy returns how the session ends when it is decided so; nil: it lives on.
func (s *live) endBy(d *policy.Decision, refusal *policy.Refusal) *broker.End {
	switch {
	case refusal != nil:
		return &broker.End{Reason: endReason(refusal), Text: advise(refusal.Text, s.contact), Detail: refusal.Reason}
	case !d.Covers(s.decision):
		return &broker.End{Reason: broker.EndRevoked, Text: textChanged, Detail: "the decision became narrower"}
	}
	return nil
}

// read reads the rest of the facts, by the session's ids.
func (f *facts) read(ctx context.Context, v *view, s *live) (err error) {
	r := s.record
	if f.mailbox, err = v.mailbox(ctx, r.MailboxID); err != nil {
		return err
	}
	if r.AppPasswordID != "" {
		if f.password, err = v.password(ctx, r.AppPasswordID); err != nil {
			return err
		}
	}
	if f.agent, err = v.agent(ctx, r.AgentID); err != nil {
		return err
	}
	if r.WorkstationID != "" {
		w, err := v.workstation(ctx, r.WorkstationID)
		if err != nil {
			return err
		}
		f.takeWorkstation(w)
	}
	f.sites, err = v.sites(ctx)
	return err
}

// judge applies the rules of a login to a session that is open.
func (s *live) judge(f *facts, g grant) *broker.End {
	cause := f.denial()
	if cause == "" && f.mailbox == nil {
		cause = causeUnknownMailbox
	}
	if cause != "" {
		return &broker.End{Reason: broker.EndRevoked, Text: advise(endText(cause), s.contact), Detail: cause}
	}
	if s.movedAway(f.mailbox) {
		return &broker.End{Reason: broker.EndRevoked, Text: textMailbox, Detail: "the mailbox was changed"}
	}
	d, _, refusal := f.decide(g)
	return s.endBy(d, refusal)
}

// movedAway reports whether the mailbox is no longer the account that the
// session is logged in to. Its aliases are the decision's matter.
func (s *live) movedAway(now *broker.Mailbox) bool {
	was := s.mailbox
	if now.FirmID != was.FirmID || !strings.EqualFold(now.Address, was.Address) || now.Username != was.Username {
		return true
	}
	if s.record.Protocol == broker.ProtocolIMAP {
		return now.IMAP != was.IMAP
	}
	return now.Submission != was.Submission
}
