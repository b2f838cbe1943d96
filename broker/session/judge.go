// SPDX-License-Identifier: Apache-2.0

package session

import (
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// The causes of a denial, for the log and for metrics; the client learns none.
const (
	causeUnknownToken       = "unknown-token"
	causeRevokedToken       = "revoked-token"
	causeExpiredToken       = "expired-token"
	causeUnknownAgent       = "unknown-agent"
	causeNoCertificate      = "no-certificate"
	causeUnknownCertificate = "unknown-certificate"
	causeWorkstationGroup   = "workstation-group"
	causeUsername           = "username"
	causeUnknownMailbox     = "unknown-mailbox"
	causeNotAssigned        = "not-assigned"
	// causeExpiredCertificate is one of those that CompanyCAs give; the others
	// need no name here.
	causeExpiredCertificate = "expired-certificate"
	// causeAuthentication: the agent is to be let in by something else.
	causeAuthentication = "authentication"
	// causeCertificateAlone: the workstation is nobody's, or of a class whose
	// certificate alone lets nobody in.
	causeCertificateAlone = "certificate-alone"
	// causeUnverified: the directory was not asked. Its own reasons are causes
	// as well.
	causeUnverified = "directory-unasked"
)

// facts are what is known of whoever is at the other end. What does not exist
// is nil. Judging them is pure.
type facts struct {
	now   time.Time
	zones *policy.Zones
	// guardrails are the BPO's; nil: none.
	guardrails *policy.Guardrails
	protocol   broker.Protocol
	addr       netip.Addr
	// pin is the certificate's; empty: none was presented.
	pin string
	// company is the certificate, where a company's own CA issued it, and unfit
	// why it opens nothing; empty: it may.
	company *broker.CompanyCertificate
	unfit   string
	// method is what he is to be let in by, and certificateAlone the classes of
	// workstations whose certificate may be all.
	method           broker.Authentication
	certificateAlone []broker.WorkstationClass
	password         *broker.AppPassword
	agent            *broker.Agent
	workstation      *broker.Workstation
	sites            []*broker.Site
	locks            lockIndex
	mailbox          *broker.Mailbox
}

// denial returns why these are not somebody known on a sanctioned workstation,
// or "". Nothing here may be told to the client. Whether a directory's password
// is right is not among the facts.
func (f *facts) denial() (cause string) {
	switch f.method {
	case broker.AuthLDAP:
		cause = f.directoryDenial()
	case broker.AuthCertificate:
		if cause = f.machineDenial(); cause == "" {
			cause = f.certificateDenial()
		}
		return cause
	default:
		cause = f.tokenDenial()
	}
	if cause == "" {
		cause = f.machineDenial()
	}
	if cause == "" && !f.groupAllowed() {
		cause = causeWorkstationGroup
	}
	return cause
}

func (f *facts) tokenDenial() (cause string) {
	switch p := f.password; {
	case p == nil:
		return causeUnknownToken
	case !p.RevokedAt.IsZero():
		return causeRevokedToken
	case !p.ExpiresAt.IsZero() && !f.now.Before(p.ExpiresAt):
		return causeExpiredToken
	case f.agent == nil || f.agent.ID != p.AgentID:
		return causeUnknownAgent
	case f.agent.Authentication != "":
		return causeAuthentication
	}
	return ""
}

func (f *facts) directoryDenial() (cause string) {
	switch {
	case f.agent == nil:
		return causeUnknownAgent
	case f.agent.Authentication != broker.AuthLDAP:
		return causeAuthentication
	}
	return ""
}

// certificateDenial is asked about a workstation that is known.
func (f *facts) certificateDenial() (cause string) {
	switch w := f.workstation; {
	case w == nil || w.AgentID == "" || !slices.Contains(f.certificateAlone, w.Class):
		return causeCertificateAlone
	case f.agent == nil || f.agent.ID != w.AgentID:
		return causeUnknownAgent
	}
	return ""
}

// machineDenial returns why the machine is not sanctioned.
func (f *facts) machineDenial() (cause string) {
	switch {
	case f.pin == "" && f.networkOnlySite() == nil:
		return causeNoCertificate
	case f.pin != "" && f.unfit != "":
		return f.unfit
	case f.pin != "" && !f.sanctioned():
		// A machine whose certificate is not known is not taken for one
		// without a certificate: it may be one that was thrown out.
		return causeUnknownCertificate
	}
	return ""
}

// sanctioned reports whether the certificate is the workstation's: by its key, or
// by the name that a company's own CA gave it.
func (f *facts) sanctioned() bool {
	return f.workstation != nil && (f.pinned() || f.company.Names(f.workstation.CertificateName))
}

func (f *facts) pinned() bool { return slices.Contains(f.workstation.KeyPins, f.pin) }

// takeWorkstation notes the workstation, in the class that it passes for: where
// a name makes it one, its authority's certificates bound that.
func (f *facts) takeWorkstation(w *broker.Workstation) {
	f.workstation = w
	if w == nil || f.pinned() || f.company == nil || f.company.Class == broker.ClassHardware {
		return
	}
	bounded := *w
	bounded.Class = broker.ClassSoftware
	f.workstation = &bounded
}

// asksDirectory reports whether the directory must have said yes: to the
// password, or where a certificate stands for one, to the account.
func (f *facts) asksDirectory() bool {
	return f.method == broker.AuthLDAP || f.method == broker.AuthCertificate && f.agent.Authentication == broker.AuthLDAP
}

// groupAllowed reports whether the app password is good on the workstation. A
// machine that is known by its network alone is in no group.
func (f *facts) groupAllowed() bool {
	if f.password == nil || len(f.password.Groups) == 0 {
		return true
	}
	return f.workstation != nil && slices.ContainsFunc(f.workstation.Groups, func(g string) bool {
		return slices.Contains(f.password.Groups, g)
	})
}

// site returns the site that the session comes from: the workstation's own if
// it is bound to one, and nil if it is elsewhere then; otherwise, of the sites
// that hold the address, the one with the longest prefix.
func (f *facts) site() (site *broker.Site, elsewhere bool) {
	switch {
	case f.pin == "":
		return f.networkOnlySite(), false
	case f.workstation.SiteID == "":
		return narrowest(f.sites, f.addr, func(*broker.Site) bool { return true }), false
	}
	for _, s := range f.sites {
		if s.ID == f.workstation.SiteID && s.Contains(f.addr) {
			return s, false
		}
	}
	return nil, true
}

func (f *facts) networkOnlySite() *broker.Site {
	return narrowest(f.sites, f.addr, func(s *broker.Site) bool { return s.NetworkOnly })
}

// narrowest returns the site that holds addr in its longest prefix; of equals
// the one with the lower id.
func narrowest(sites []*broker.Site, addr netip.Addr, wanted func(*broker.Site) bool) *broker.Site {
	addr = addr.Unmap()
	var best *broker.Site
	longest := -1
	for _, s := range sites {
		if !wanted(s) {
			continue
		}
		for _, network := range s.Networks {
			length := network.Bits()
			if network.Contains(addr) && (length > longest || length == longest && s.ID < best.ID) {
				best, longest = s, length
			}
		}
	}
	return best
}

// active returns the locks on anything that the session has to do with. Those
// on any site that holds the address count, whichever the session's own is.
func (f *facts) active() []policy.Lock {
	if len(f.locks) == 0 {
		return nil
	}
	keys := []lockKey{{broker.LockAgent, f.agent.ID}, {broker.LockMailbox, f.mailbox.ID}, {broker.LockFirm, f.mailbox.FirmID}}
	if f.workstation != nil {
		keys = append(keys, lockKey{broker.LockWorkstation, f.workstation.ID}, lockKey{broker.LockSite, f.workstation.SiteID})
	}
	for _, s := range f.sites {
		if s.Contains(f.addr) {
			keys = append(keys, lockKey{broker.LockSite, s.ID})
		}
	}
	var locks []policy.Lock
	for _, key := range keys {
		for _, l := range f.locks[key] {
			locks = append(locks, policy.Lock{Message: l.Message, Until: l.Until})
		}
	}
	return locks
}

// grant is an assignment and what it rests on.
type grant struct {
	assignment *broker.Assignment
	delegation *broker.Delegation
}

// decide decides under one grant, once denial has found nothing. The decision
// ends with the app password, or a company's certificate, if that is sooner.
func (f *facts) decide(g grant) (*policy.Decision, broker.ID, *policy.Refusal) {
	site, elsewhere := f.site()
	in := policy.Input{
		Now:         f.now,
		Password:    f.method != broker.AuthCertificate,
		HardwareKey: f.workstation != nil && f.workstation.Class == broker.ClassHardware,
		Locks:       f.active(),
		Addresses:   f.mailbox.Addresses(),

		RecoverySenders: f.mailbox.AllRecoverySenders(),
		Zones:           f.zones,
		Guardrails:      f.guardrails,
		Subject: policy.Subject{
			Agent: string(f.agent.ID), AgentName: f.agent.Name,
			Mailbox: string(f.mailbox.ID), Address: f.mailbox.Address, Firm: string(f.mailbox.FirmID),
			Protocol: string(f.protocol), WorkstationClass: "none", Authentication: string(f.method),
		},
	}
	if f.workstation != nil {
		in.Subject.WorkstationClass = string(f.workstation.Class)
	}
	if site != nil {
		in.Site = string(site.ID)
		in.Subject.Site = in.Site
	}
	if d := g.delegation; d == nil || d.MailboxID != f.mailbox.ID {
		in.DelegationRevoked = true
	} else {
		in.Delegation, in.DelegationRevoked = d.Terms, !d.RevokedAt.IsZero()
	}
	if a := g.assignment; a == nil || a.AgentID != f.agent.ID || a.MailboxID != f.mailbox.ID {
		in.AssignmentRevoked = true
	} else {
		in.Assignment, in.AssignmentRevoked, in.AssignmentPending = a.Terms, !a.RevokedAt.IsZero(), a.Pending
	}
	d, refusal := policy.Decide(&in)
	if elsewhere && (refusal == nil || refusal.Reason != policy.ReasonLocked) {
		return nil, "", &policy.Refusal{Reason: policy.ReasonSite, Text: "This workstation may be used only at its own site."}
	}
	if refusal == nil {
		refusal = enforceable(d, f.protocol)
	}
	if refusal != nil {
		return nil, "", refusal
	}
	var ends []time.Time
	if f.password != nil {
		ends = append(ends, f.password.ExpiresAt)
	}
	if f.company != nil {
		ends = append(ends, f.company.NotAfter)
	}
	for _, end := range ends {
		if !end.IsZero() && (d.Until.IsZero() || end.Before(d.Until)) {
			sooner := *d
			sooner.Until = end
			d = &sooner
		}
	}
	return d, broker.ID(in.Site), nil
}

// choose decides under each grant, oldest first, and returns the widest
// decision: the one with the most actions, then the one that lasts longest,
// then the oldest. If every grant is refused the refusal is that of the newest
// grant that is not revoked, or else of the newest.
func (f *facts) choose(grants []grant) (best grant, d *policy.Decision, site broker.ID, refusal *policy.Refusal) {
	for _, g := range grants {
		next, nextSite, no := f.decide(g)
		switch {
		case no != nil:
			if d == nil && (refusal == nil || no.Reason != policy.ReasonRevoked || refusal.Reason == policy.ReasonRevoked) {
				best, refusal = g, no
			}
		case d == nil || wider(next, d):
			best, d, site, refusal = g, next, nextSite, nil
		}
	}
	return best, d, site, refusal
}

func wider(a, b *policy.Decision) bool {
	if x, y := bits.OnesCount16(uint16(a.Actions)), bits.OnesCount16(uint16(b.Actions)); x != y {
		return x > y
	}
	return !b.Until.IsZero() && (a.Until.IsZero() || a.Until.After(b.Until))
}
