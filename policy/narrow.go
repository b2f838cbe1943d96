// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"time"
)

// Validate looks for terms that contradict themselves. It returns the first
// field that is wrong, in its JSON spelling, and why; both are empty when the
// terms are sound.
func (t Terms) Validate() (field, reason string) {
	switch {
	case t.Actions == 0:
		return "actions", "at least one action must be granted"
	case t.Actions&^All != 0:
		return "actions", "there are actions that do not exist"
	case !t.NotAfter.IsZero() && !t.NotAfter.After(t.NotBefore):
		return "not_after", "must be later than not_before"
	}
	for i, site := range t.Sites {
		if site == "" {
			return "sites", "a site's id is empty"
		}
		if slices.Contains(t.Sites[:i], site) {
			return "sites", "a site is named twice"
		}
	}
	return "", ""
}

// Within reports whether inner is equal to outer or narrower in every field.
// If it is not, field names the first that is wider, in its JSON spelling.
//
// A field left empty stands for no restriction, so it is wider than any
// restriction that outer has; Narrow fills such fields in.
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
	}
	return "", true
}

// Narrow returns the terms that allow what both outer and inner allow, and
// nothing else. Terms that have no site in common allow nothing: since an
// empty list of sites stands for any site, it is the actions that become
// empty then.
func Narrow(outer, inner Terms) Terms {
	t := Terms{
		Actions:     outer.Actions & inner.Actions,
		NotBefore:   outer.NotBefore,
		NotAfter:    earlierEnd(outer.NotAfter, inner.NotAfter),
		HardwareKey: outer.HardwareKey || inner.HardwareKey,
	}
	if inner.NotBefore.After(t.NotBefore) {
		t.NotBefore = inner.NotBefore
	}
	switch {
	case len(outer.Sites) == 0:
		t.Sites = slices.Clone(inner.Sites)
	case len(inner.Sites) == 0:
		t.Sites = slices.Clone(outer.Sites)
	default:
		for _, site := range outer.Sites {
			if slices.Contains(inner.Sites, site) {
				t.Sites = append(t.Sites, site)
			}
		}
		if len(t.Sites) == 0 {
			t.Actions = 0
			t.Sites = slices.Clone(outer.Sites)
		}
	}
	return t
}

// Covers reports whether d allows all that other allows, for as long. A
// session under other lives on when the decision made anew covers it; when it
// does not, the new one is narrower in some way and the session ends.
func (d *Decision) Covers(other *Decision) bool {
	if !d.Actions.Has(other.Actions) || !lasts(other.Until, d.Until) {
		return false
	}
	for _, address := range other.Addresses {
		if !slices.Contains(d.Addresses, address) {
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
