// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

func TestWithinNamesTheField(t *testing.T) {
	outer := policy.Terms{
		Actions: policy.List | policy.Read, NotBefore: now, NotAfter: now.Add(time.Hour),
		Sites: []string{"hq", "branch"}, HardwareKey: true,
	}
	tests := []struct {
		name   string
		change func(*policy.Terms)
		field  string
	}{
		{"equal", func(*policy.Terms) {}, ""},
		{"fewer actions", func(in *policy.Terms) { in.Actions = policy.List }, ""},
		{"shorter", func(in *policy.Terms) {
			in.NotBefore, in.NotAfter = now.Add(time.Minute), now.Add(2*time.Minute)
		}, ""},
		{"fewer sites", func(in *policy.Terms) { in.Sites = []string{"branch"} }, ""},
		{"more actions", func(in *policy.Terms) { in.Actions |= policy.Send }, "actions"},
		{"begins earlier", func(in *policy.Terms) { in.NotBefore = now.Add(-1) }, "not_before"},
		{"begins at once", func(in *policy.Terms) { in.NotBefore = time.Time{} }, "not_before"},
		{"ends later", func(in *policy.Terms) { in.NotAfter = now.Add(time.Hour + 1) }, "not_after"},
		{"ends never", func(in *policy.Terms) { in.NotAfter = time.Time{} }, "not_after"},
		{"another site", func(in *policy.Terms) { in.Sites = []string{"hq", "home"} }, "sites"},
		{"any site", func(in *policy.Terms) { in.Sites = nil }, "sites"},
		{"software key", func(in *policy.Terms) { in.HardwareKey = false }, "hardware_key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inner := outer
			test.change(&inner)
			if field, ok := policy.Within(outer, inner); field != test.field || ok != (test.field == "") {
				t.Errorf("Within = %q, %v; want %q", field, ok, test.field)
			}
		})
	}
	if field, ok := policy.Within(policy.Terms{Actions: policy.All}, outer); !ok {
		t.Errorf("%s is not within terms that restrict nothing", field)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name  string
		terms policy.Terms
		field string
	}{
		{"sound", policy.Terms{Actions: policy.All, NotBefore: now, NotAfter: now.Add(1), Sites: []string{"a", "b"}}, ""},
		{"no end", policy.Terms{Actions: policy.Read, NotBefore: now}, ""},
		{"no actions", policy.Terms{}, "actions"},
		{"unknown action", policy.Terms{Actions: 1 << 15}, "actions"},
		{"ends before it begins", policy.Terms{Actions: policy.Read, NotBefore: now, NotAfter: now.Add(-1)}, "not_after"},
		{"ends when it begins", policy.Terms{Actions: policy.Read, NotBefore: now, NotAfter: now}, "not_after"},
		{"a site without an id", policy.Terms{Actions: policy.Read, Sites: []string{""}}, "sites"},
		{"a site twice", policy.Terms{Actions: policy.Read, Sites: []string{"a", "b", "a"}}, "sites"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			field, reason := test.terms.Validate()
			if field != test.field || (reason == "") != (field == "") {
				t.Errorf("Validate = %q, %q; want field %q", field, reason, test.field)
			}
		})
	}
}

func TestCovers(t *testing.T) {
	old := policy.Decision{Actions: policy.List | policy.Send, Until: now, Addresses: []string{"a@firm.example"}}
	tests := []struct {
		name   string
		change func(*policy.Decision)
		covers bool
	}{
		{"equal", func(*policy.Decision) {}, true},
		{"more actions", func(d *policy.Decision) { d.Actions = policy.All }, true},
		{"longer", func(d *policy.Decision) { d.Until = now.Add(1) }, true},
		{"without an end", func(d *policy.Decision) { d.Until = time.Time{} }, true},
		{"more addresses", func(d *policy.Decision) { d.Addresses = []string{"b@firm.example", "a@firm.example"} }, true},
		{"fewer actions", func(d *policy.Decision) { d.Actions = policy.Send }, false},
		{"other actions", func(d *policy.Decision) { d.Actions = policy.All &^ policy.List }, false},
		{"shorter", func(d *policy.Decision) { d.Until = now.Add(-1) }, false},
		{"other addresses", func(d *policy.Decision) { d.Addresses = []string{"b@firm.example"} }, false},
		{"no addresses", func(d *policy.Decision) { d.Addresses = nil }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			next := old
			test.change(&next)
			if got := next.Covers(&old); got != test.covers {
				t.Errorf("Covers = %v", got)
			}
		})
	}
	endless := policy.Decision{Actions: policy.List}
	ending := policy.Decision{Actions: policy.List, Until: now}
	if ending.Covers(&endless) {
		t.Error("a decision that ends covers one without an end")
	}
}

// at is one instant, place and machine that terms may allow something at.
type at struct {
	now      time.Time
	site     string
	hardware bool
}

// allowed is an independent reading of what terms mean.
func allowed(t policy.Terms, where at) policy.Actions {
	site := len(t.Sites) == 0
	for _, s := range t.Sites {
		site = site || (s == where.site && s != "")
	}
	if !site || where.now.Before(t.NotBefore) ||
		(!t.NotAfter.IsZero() && !where.now.Before(t.NotAfter)) ||
		(t.HardwareKey && !where.hardware) {
		return 0
	}
	return t.Actions
}

func drawTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" is zero") {
		return time.Time{}
	}
	return now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, label)))
}

func drawTerms(t *rapid.T, label string) policy.Terms {
	return policy.Terms{
		Actions:     policy.Actions(rapid.IntRange(0, int(policy.All)).Draw(t, label+" actions")),
		NotBefore:   drawTime(t, label+" not_before"),
		NotAfter:    drawTime(t, label+" not_after"),
		Sites:       rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(t, label+" sites"),
		HardwareKey: rapid.Bool().Draw(t, label+" hardware_key"),
	}
}

func drawAt(t *rapid.T) at {
	return at{
		now:      now.Add(time.Duration(rapid.IntRange(-4, 4).Draw(t, "now"))),
		site:     rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "site"),
		hardware: rapid.Bool().Draw(t, "hardware"),
	}
}

func TestNarrowingOnlyNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		outer, inner, where := drawTerms(t, "outer"), drawTerms(t, "inner"), drawAt(t)
		both := allowed(outer, where) & allowed(inner, where)

		narrow := policy.Narrow(outer, inner)
		if got := allowed(narrow, where); got != both {
			t.Fatalf("narrowed terms allow %v, both allow %v", got, both)
		}
		if field, ok := policy.Within(outer, narrow); !ok {
			t.Fatalf("narrowed terms are wider in %s", field)
		}
		if field, ok := policy.Within(inner, narrow); !ok && narrow.Actions != 0 {
			t.Fatalf("narrowed terms are wider than the inner ones in %s", field)
		}
		if _, ok := policy.Within(outer, inner); ok && allowed(inner, where)&^allowed(outer, where) != 0 {
			t.Fatalf("terms that are within allow more")
		}

		decision, refusal := policy.Decide(&policy.Input{
			Now: where.now, Delegation: outer, Assignment: inner, Site: where.site, HardwareKey: where.hardware,
		})
		switch {
		case (decision == nil) == (refusal == nil):
			t.Fatal("neither or both of decision and refusal")
		case refusal != nil && both != 0:
			t.Fatalf("refused (%v) what both allow", refusal)
		case decision != nil && decision.Actions != both:
			t.Fatalf("decided %v, both allow %v", decision.Actions, both)
		}
		if decision == nil {
			return
		}
		for _, terms := range []policy.Terms{outer, inner} {
			if !terms.NotAfter.IsZero() && (decision.Until.IsZero() || decision.Until.After(terms.NotAfter)) {
				t.Fatalf("the decision ends at %v, the terms at %v", decision.Until, terms.NotAfter)
			}
		}
	})
}

// Covering is what keeps a session alive, so it must not call narrower
// decisions equal: whatever one allows at an instant, one that covers it does.
func TestCoveringAllowsAsMuch(t *testing.T) {
	draw := func(t *rapid.T, label string) policy.Decision {
		return policy.Decision{
			Actions:   policy.Actions(rapid.IntRange(0, 7).Draw(t, label+" actions")),
			Until:     drawTime(t, label+" until"),
			Addresses: rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, label+" addresses"),
		}
	}
	reach := func(d policy.Decision, when time.Time, address string) policy.Actions {
		if !d.Until.IsZero() && !when.Before(d.Until) {
			return 0
		}
		for _, a := range d.Addresses {
			if a == address {
				return d.Actions | policy.Send
			}
		}
		return d.Actions
	}
	rapid.Check(t, func(t *rapid.T) {
		old, next := draw(t, "old"), draw(t, "next")
		if !old.Covers(&old) {
			t.Fatal("a decision does not cover itself")
		}
		when := drawAt(t).now
		for _, address := range []string{"a", "b"} {
			if next.Covers(&old) && reach(old, when, address)&^reach(next, when, address) != 0 {
				t.Fatalf("covered, and narrower at %v", when)
			}
		}
	})
}
