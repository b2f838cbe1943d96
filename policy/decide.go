// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"time"
)

// Decide intersects the delegation, the assignment, the locks and the guardrails. Exactly one
// of its results is nil.
//
// A refusal's text is a whole sentence that an agent understands; the caller
// adds whom to ask. Of several reasons the first of this order is given:
// locked, revoked, not approved yet, expired, not yet valid, hours, site, workstation class, password,
// no actions, guardrail. Ends are exclusive: at NotAfter itself the terms no longer hold,
// and at a lock's Until it no longer locks.
func Decide(in *Input) (*Decision, *Refusal) {
	for i := range in.Locks {
		if lock := &in.Locks[i]; lock.Until.IsZero() || in.Now.Before(lock.Until) {
			return nil, locked(lock)
		}
	}
	switch {
	case in.DelegationRevoked:
		return nil, &Refusal{ReasonRevoked, "The firm has withdrawn access to this mailbox."}
	case in.AssignmentRevoked:
		return nil, &Refusal{ReasonRevoked, "You are no longer assigned to this mailbox."}
	case in.AssignmentPending:
		return nil, &Refusal{ReasonPending, "The firm has not approved you for this mailbox yet."}
	}
	until := earlierEnd(in.Delegation.NotAfter, in.Assignment.NotAfter)
	if !until.IsZero() && !in.Now.Before(until) {
		return nil, &Refusal{ReasonExpired, "Your access to this mailbox ended on " + instant(until) + "."}
	}
	from := in.Delegation.NotBefore
	if in.Assignment.NotBefore.After(from) {
		from = in.Assignment.NotBefore
	}
	if in.Now.Before(from) {
		return nil, &Refusal{ReasonNotYetValid, "Your access to this mailbox begins on " + instant(from) + "."}
	}
	for _, terms := range []*Terms{&in.Delegation, &in.Assignment} {
		end, open, err := terms.Hours.Open(in.Now, in.Zones)
		switch {
		case err != nil:
			return nil, &Refusal{ReasonHours, "The hours of your access to this mailbox cannot be read."}
		case !open:
			return nil, &Refusal{ReasonHours, "This mailbox may not be used at this hour."}
		}
		until = earlierEnd(until, end)
	}
	if !siteAllowed(in.Delegation.Sites, in.Site) || !siteAllowed(in.Assignment.Sites, in.Site) {
		return nil, &Refusal{ReasonSite, "This mailbox may not be used from the site that you are at."}
	}
	if (in.Delegation.HardwareKey || in.Assignment.HardwareKey) && !in.HardwareKey {
		return nil, &Refusal{ReasonWorkstation, "This mailbox may be used only from a workstation that keeps its key in hardware."}
	}
	if (in.Delegation.NeedsPassword || in.Assignment.NeedsPassword) && !in.Password {
		return nil, &Refusal{ReasonPassword, "This mailbox takes a password beside the workstation's certificate."}
	}
	actions := in.Delegation.Actions & in.Assignment.Actions & All
	if actions == 0 {
		return nil, &Refusal{ReasonNoActions, "Nothing is granted to you in this mailbox."}
	}
	d := &Decision{
		Actions: actions, Until: until,
		Folders: both(in.Delegation.Folders.clone(), in.Assignment.Folders.clone(), FolderPatterns.IsZero, FolderPatterns.equal),
		Slices:  both(in.Delegation.Slice, in.Assignment.Slice, func(s Slice) bool { return s == "" }, Slice.equal),
		Quotas:  in.Delegation.Quotas.narrow(in.Assignment.Quotas),
	}
	recovery := in.Delegation.RecoveryMail.narrow(in.Assignment.RecoveryMail)
	d.Slices = append(d.Slices, recovery.slices(in.RecoverySenders)...)
	d, refusal := in.Guardrails.apply(d, &in.Subject, in.Now)
	if refusal != nil {
		return nil, refusal
	}
	if d.Actions.Has(Send) {
		d.Addresses = lower(in.Addresses)
		outer, inner := &in.Delegation.Sending, &in.Assignment.Sending
		d.Recipients = both(outer.Recipients.clone(), inner.Recipients.clone(), RecipientPatterns.IsZero, RecipientPatterns.equal)
		d.Sending = outer.numbers(*inner)
	}
	return d, nil
}

// both lists the restrictions that hold together. It does not look which of
// them is the narrower: that may take long, and a decision may not.
func both[T any](outer, inner T, none func(T) bool, equal func(T, T) bool) []T {
	switch {
	case none(outer) && none(inner):
		return nil
	case none(outer) || equal(outer, inner):
		return []T{inner}
	case none(inner):
		return []T{outer}
	}
	return []T{outer, inner}
}

func locked(l *Lock) *Refusal {
	text := l.Message
	if text == "" {
		text = "Access is locked for now."
	}
	return &Refusal{ReasonLocked, text}
}

func siteAllowed(sites []string, site string) bool {
	return len(sites) == 0 || (site != "" && slices.Contains(sites, site))
}

// lower copies the addresses, so that no one can change a decision.
func lower(addresses []string) []string {
	all := make([]string, len(addresses))
	for i, a := range addresses {
		all[i] = strings.ToLower(a)
	}
	return all
}

func instant(t time.Time) string { return t.UTC().Format("2 January 2006 at 15:04 UTC") }
