// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"
)

// Within reports whether inner is equal to outer or narrower in every field.
// If it is not, field names the first that is wider, in its JSON spelling.
//
// A field left empty stands for no restriction, so it is wider than any
// restriction that outer has; Narrow fills such fields in. Where two patterns,
// slices or hours cannot be compared, inner is said to be wider though it may
// not be. MaxAgents is not compared: it is no matter of one agent's.
func Within(outer, inner Terms) (field string, ok bool) {
	switch {
	case !outer.Actions.Has(inner.Actions):
		return "actions", false
	case inner.NotBefore.Before(outer.NotBefore):
		return "not_before", false
	case !lasts(inner.NotAfter, outer.NotAfter):
		return "not_after", false
	case !sitesWithin(outer.Sites, inner.Sites):
		return "sites", false
	case outer.HardwareKey && !inner.HardwareKey:
		return "hardware_key", false
	case outer.NeedsPassword && !inner.NeedsPassword:
		return "needs_password", false
	case !outer.Hours.within(inner.Hours):
		return "hours", false
	case !outer.Folders.within(inner.Folders):
		return "folders", false
	case !outer.Slice.within(inner.Slice):
		return "slice", false
	case !outer.RecoveryMail.within(inner.RecoveryMail):
		return "recovery_mail", false
	case !outer.Quotas.within(inner.Quotas):
		return "quotas", false
	}
	if field := outer.Sending.within(inner.Sending); field != "" && inner.Actions.Has(Send) {
		return "sending." + field, false
	}
	return "", true
}

// Narrow returns terms that allow nothing but what both outer and inner allow,
// and all of that but where it cannot be written down: see the patterns' and
// the hours' own rules. Terms that have no site, no hour, no folder or no
// recipient in common allow nothing: since an empty list stands for any, it is
// the actions that become empty then, or lose Send.
func Narrow(outer, inner Terms) Terms {
	t := Terms{
		Actions:       outer.Actions & inner.Actions,
		NotBefore:     outer.NotBefore,
		NotAfter:      earlierEnd(outer.NotAfter, inner.NotAfter),
		HardwareKey:   outer.HardwareKey || inner.HardwareKey,
		NeedsPassword: outer.NeedsPassword || inner.NeedsPassword,
		Slice:         outer.Slice.and(inner.Slice),
		Quotas:        outer.Quotas.narrow(inner.Quotas),

		RecoveryMail: outer.RecoveryMail.narrow(inner.RecoveryMail),
	}
	if inner.NotBefore.After(t.NotBefore) {
		t.NotBefore = inner.NotBefore
	}
	var some [3]bool
	t.Sites, some[0] = narrowSites(outer.Sites, inner.Sites)
	t.Hours, some[1] = outer.Hours.narrow(inner.Hours)
	t.Folders, some[2] = outer.Folders.narrow(inner.Folders)
	if some != [3]bool{true, true, true} {
		t.Actions = 0
	}
	sending, ok := outer.Sending.narrow(inner.Sending)
	if t.Sending = sending; !ok {
		t.Actions &^= Send
		t.Sending.Recipients = outer.Sending.Recipients.clone()
	}
	return t
}

func narrowSites(outer, inner []string) (both []string, ok bool) {
	switch {
	case len(outer) == 0:
		return slices.Clone(inner), true
	case len(inner) == 0:
		return slices.Clone(outer), true
	}
	for _, site := range outer {
		if slices.Contains(inner, site) {
			both = append(both, site)
		}
	}
	if len(both) == 0 {
		return slices.Clone(outer), false
	}
	return both, true
}

// Covers reports whether d allows all that other allows, for as long. A
// session under other lives on when the decision made anew covers it; when it
// does not, the new one is narrower in some way and the session ends. What
// cannot be compared counts as narrower.
func (d *Decision) Covers(other *Decision) bool {
	if !d.Actions.Has(other.Actions) || !lasts(other.Until, d.Until) {
		return false
	}
	for _, address := range other.Addresses {
		if !slices.Contains(d.Addresses, address) {
			return false
		}
	}
	return allCovered(d.Folders, other.Folders, FolderPatterns.equal, FolderPatterns.within) &&
		allCovered(d.Slices, other.Slices, Slice.equal, Slice.within) &&
		d.Quotas.within(other.Quotas) &&
		allCovered(d.Recipients, other.Recipients, RecipientPatterns.equal, RecipientPatterns.within) &&
		d.Sending.within(other.Sending) == ""
}

// allCovered reports that each of the restrictions in now holds nothing back
// that one of those before did not. Mostly they are the same.
func allCovered[T any](now, before []T, equal, within func(T, T) bool) bool {
	for _, n := range now {
		if !slices.ContainsFunc(before, func(b T) bool { return equal(n, b) }) &&
			!slices.ContainsFunc(before, func(b T) bool { return within(n, b) }) {
			return false
		}
	}
	return true
}

// earlierEnd returns the earlier of two ends, of which zero is the latest.
func earlierEnd(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// lasts reports whether inner ends no later than outer; zero is the latest.
func lasts(inner, outer time.Time) bool {
	return outer.IsZero() || (!inner.IsZero() && !inner.After(outer))
}

// sitesWithin reports whether inner names no site that outer does not allow.
func sitesWithin(outer, inner []string) bool {
	if len(outer) == 0 {
		return true
	}
	if len(inner) == 0 {
		return false
	}
	for _, site := range inner {
		if !slices.Contains(outer, site) {
			return false
		}
	}
	return true
}
