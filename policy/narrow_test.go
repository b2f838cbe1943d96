// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

func TestWithinNamesTheField(t *testing.T) {
	outer := policy.Terms{
		Actions: policy.List | policy.Read, NotBefore: now, NotAfter: now.Add(time.Hour),
		Sites: []string{"hq", "branch"}, HardwareKey: true,
		Hours:   policy.Hours{Zone: "Asia/Kolkata", Shifts: []policy.Shift{shift("22:00", "06:00", "sun", "mon")}},
		Folders: policy.FolderPatterns{Allow: []string{"INBOX", "Clients/*"}, Deny: []string{"Clients/Private"}},
		Slice:   "SINCE @-30d NOT KEYWORD Privileged", MaxAgents: 3,
		Quotas: policy.Quotas{Messages: policy.Rate{Hour: 10, Day: 50}},
		Sending: policy.Sending{
			Recipients: policy.RecipientPatterns{Deny: []string{"*@rival.example"}}, ReplyOnly: true, MaxRecipients: 5,
			MessagesPerHour: 10, RecipientsPerHour: 20, MaxOctets: 1000, NoAttachments: true,
			Content: []policy.ContentRule{{Name: "cards", Pattern: `\d{16}`, Block: true}},
		},
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
		{"more actions", func(in *policy.Terms) { in.Actions |= policy.Delete }, "actions"},
		{"begins earlier", func(in *policy.Terms) { in.NotBefore = now.Add(-1) }, "not_before"},
		{"begins at once", func(in *policy.Terms) { in.NotBefore = time.Time{} }, "not_before"},
		{"ends later", func(in *policy.Terms) { in.NotAfter = now.Add(time.Hour + 1) }, "not_after"},
		{"ends never", func(in *policy.Terms) { in.NotAfter = time.Time{} }, "not_after"},
		{"another site", func(in *policy.Terms) { in.Sites = []string{"hq", "home"} }, "sites"},
		{"any site", func(in *policy.Terms) { in.Sites = nil }, "sites"},
		{"software key", func(in *policy.Terms) { in.HardwareKey = false }, "hardware_key"},
		{"a password beside", func(in *policy.Terms) { in.NeedsPassword = true }, ""},
		{"fewer hours", func(in *policy.Terms) { in.Hours.Shifts = []policy.Shift{shift("00:00", "05:00", "mon")} }, ""},
		{"more hours", func(in *policy.Terms) { in.Hours.Shifts = []policy.Shift{shift("22:00", "06:01", "mon")} }, "hours"},
		{"another day", func(in *policy.Terms) { in.Hours.Shifts = []policy.Shift{shift("22:00", "23:00", "tue")} }, "hours"},
		{"another zone", func(in *policy.Terms) { in.Hours.Zone = "Asia/Colombo" }, "hours"},
		{"any hour", func(in *policy.Terms) { in.Hours = policy.Hours{} }, "hours"},
		{"fewer folders", func(in *policy.Terms) { in.Folders = policy.FolderPatterns{Allow: []string{"inbox", "Clients/%"}} }, "folders"},
		{"fewer folders, and what is denied", func(in *policy.Terms) {
			in.Folders = policy.FolderPatterns{Allow: []string{"inbox", "Clients/%"}, Deny: []string{"Clients/P*"}}
		}, ""},
		{"folders apart from what is denied", func(in *policy.Terms) { in.Folders = policy.FolderPatterns{Allow: []string{"Clients/A"}} }, ""},
		{"another folder", func(in *policy.Terms) { in.Folders.Allow = []string{"INBOX", "Clients"} }, "folders"},
		{"all folders", func(in *policy.Terms) { in.Folders.Allow = nil }, "folders"},
		{"less denied", func(in *policy.Terms) { in.Folders.Deny = []string{"Clients/Private/*"} }, "folders"},
		{"a smaller slice", func(in *policy.Terms) { in.Slice = "NOT KEYWORD Privileged UNSEEN SINCE @-7d" }, ""},
		{"a larger slice", func(in *policy.Terms) { in.Slice = "SINCE @-31d NOT KEYWORD Privileged" }, "slice"},
		{"another slice", func(in *policy.Terms) { in.Slice = "SINCE @-7d" }, "slice"},
		{"no slice", func(in *policy.Terms) { in.Slice = "" }, "slice"},
		{"a slice that cannot be read", func(in *policy.Terms) { in.Slice += " (" }, "slice"},
		{"smaller quotas", func(in *policy.Terms) { in.Quotas.Messages, in.Quotas.Octets.Day = policy.Rate{Hour: 1, Day: 5}, 1 }, ""},
		{"a quota for the day alone", func(in *policy.Terms) { in.Quotas.Messages = policy.Rate{Day: 10} }, ""},
		{"a larger quota", func(in *policy.Terms) { in.Quotas.Messages.Day = 51 }, "quotas"},
		{"no quota", func(in *policy.Terms) { in.Quotas.Messages = policy.Rate{Hour: 1} }, "quotas"},
		{"recovery mail hidden", func(in *policy.Terms) { in.RecoveryMail = policy.RecoveryHidden }, ""},
		{"recovery mail shown", func(in *policy.Terms) { in.RecoveryMail = policy.RecoveryShown }, "recovery_mail"},
		{"more agents", func(in *policy.Terms) { in.MaxAgents = 0 }, ""},
	}
	for field, change := range map[string]func(*policy.Sending){
		"recipients":          func(s *policy.Sending) { s.Recipients.Deny = nil },
		"reply_only":          func(s *policy.Sending) { s.ReplyOnly = false },
		"max_recipients":      func(s *policy.Sending) { s.MaxRecipients = 6 },
		"messages_per_hour":   func(s *policy.Sending) { s.MessagesPerHour = 0 },
		"recipients_per_hour": func(s *policy.Sending) { s.RecipientsPerHour = 21 },
		"max_octets":          func(s *policy.Sending) { s.MaxOctets = 1001 },
		"no_attachments":      func(s *policy.Sending) { s.NoAttachments = false },
		"content":             func(s *policy.Sending) { s.Content = []policy.ContentRule{{Name: "cards", Pattern: `\d{16}`}} },
	} {
		tests = append(tests, struct {
			name   string
			change func(*policy.Terms)
			field  string
		}{"sending: " + field, func(in *policy.Terms) { in.Actions = policy.Send; change(&in.Sending) }, "sending." + field})
	}
	outer.Actions |= policy.Send
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inner := outer.Clone()
			test.change(&inner)
			if field, ok := policy.Within(outer, inner); field != test.field || ok != (test.field == "") {
				t.Errorf("Within = %q, %v; want %q", field, ok, test.field)
			}
		})
	}
	if field, ok := policy.Within(policy.Terms{Actions: policy.All, RecoveryMail: policy.RecoveryShown}, outer); !ok {
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

// at is one instant, place, machine, folder, message and recipient that terms
// may allow something with.
type at struct {
	now       time.Time
	site      string
	hardware  bool
	password  bool
	folder    string
	message   message
	recipient string
}

// allowed is an independent reading of what terms mean: the actions that are
// left with this folder, message and recipient.
func allowed(t policy.Terms, where at) policy.Actions {
	site := len(t.Sites) == 0
	for _, s := range t.Sites {
		site = site || (s == where.site && s != "")
	}
	if !site || where.now.Before(t.NotBefore) ||
		(!t.NotAfter.IsZero() && !where.now.Before(t.NotAfter)) ||
		(t.HardwareKey && !where.hardware) || (t.NeedsPassword && !where.password) || !openAt(t.Hours, where.now) {
		return 0
	}
	actions := within(t.Actions, where, []policy.FolderPatterns{t.Folders}, []policy.Slice{t.Slice}, []policy.RecipientPatterns{t.Sending.Recipients})
	if where.message.fromProvider && t.RecoveryMail != policy.RecoveryShown || where.message.code && t.RecoveryMail == policy.RecoveryHidden {
		actions &= policy.Send
	}
	return actions
}

// within takes away what folders, slices and recipients hide.
func within(actions policy.Actions, where at, folders []policy.FolderPatterns, slices []policy.Slice, recipients []policy.RecipientPatterns) policy.Actions {
	for _, f := range folders {
		if !f.Visible(where.folder, '/') {
			actions &= policy.Send
		}
	}
	for _, s := range slices {
		if !shows(s, where.message) {
			actions &= policy.Send
		}
	}
	for _, r := range recipients {
		if !r.Allowed(where.recipient) {
			actions &^= policy.Send
		}
	}
	return actions
}

func drawTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" is zero") {
		return time.Time{}
	}
	return now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, label)))
}

func drawPatterns(t *rapid.T, label string, from []string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID).Draw(t, label)
}

func drawRate(t *rapid.T, label string) policy.Rate {
	return policy.Rate{Hour: int64(rapid.IntRange(0, 2).Draw(t, label+" hour")), Day: int64(rapid.IntRange(0, 3).Draw(t, label+" day"))}
}

func drawSending(t *rapid.T, label string) policy.Sending {
	number := rapid.IntRange(0, 3)
	addresses := []string{"*@a.example", "x@*", "x@a.example", "*@*.example", "y@b.example"}
	s := policy.Sending{
		Recipients: policy.RecipientPatterns{
			Allow: drawPatterns(t, label+" to", addresses), Deny: drawPatterns(t, label+" not to", addresses),
		},
		ReplyOnly:         rapid.Bool().Draw(t, label+" reply_only"),
		MaxRecipients:     number.Draw(t, label+" max_recipients"),
		MessagesPerHour:   number.Draw(t, label+" messages_per_hour"),
		RecipientsPerHour: number.Draw(t, label+" recipients_per_hour"),
		MaxOctets:         int64(number.Draw(t, label+" max_octets")),
		NoAttachments:     rapid.Bool().Draw(t, label+" no_attachments"),
	}
	for _, pattern := range drawPatterns(t, label+" content", []string{"p", "q"}) {
		s.Content = append(s.Content, policy.ContentRule{Name: "name", Pattern: pattern, Block: rapid.Bool().Draw(t, label+" block "+pattern)})
	}
	return s
}

func drawTerms(t *rapid.T, label string) policy.Terms {
	folders := []string{"INBOX", "A", "A/*", "%", "*/B", "a", "*"}
	return policy.Terms{
		Actions:       policy.Actions(rapid.IntRange(0, int(policy.All)).Draw(t, label+" actions")),
		NotBefore:     drawTime(t, label+" not_before"),
		NotAfter:      drawTime(t, label+" not_after"),
		Hours:         drawHours(t, label),
		Sites:         drawPatterns(t, label+" sites", []string{"a", "b", "c"}),
		HardwareKey:   rapid.Bool().Draw(t, label+" hardware_key"),
		NeedsPassword: rapid.Bool().Draw(t, label+" needs_password"),
		Folders: policy.FolderPatterns{
			Allow: drawPatterns(t, label+" folders", folders), Deny: drawPatterns(t, label+" hidden folders", folders),
		},
		Slice:        drawSlice(t, label),
		RecoveryMail: rapid.SampledFrom([]policy.RecoveryMail{"", "hidden", "shown"}).Draw(t, label+" recovery mail"),
		Quotas: policy.Quotas{
			Messages: drawRate(t, label+" messages"), Octets: drawRate(t, label+" octets"), Headers: drawRate(t, label+" headers"),
		},
		Sending:   drawSending(t, label),
		MaxAgents: rapid.IntRange(0, 2).Draw(t, label+" max_agents"),
	}
}

func drawAt(t *rapid.T) at {
	return at{
		now:       now.Add(time.Duration(rapid.IntRange(-4, 4).Draw(t, "now")) * rapid.SampledFrom([]time.Duration{1, time.Hour}).Draw(t, "unit")),
		site:      rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "site"),
		hardware:  rapid.Bool().Draw(t, "hardware"),
		password:  rapid.Bool().Draw(t, "password"),
		folder:    rapid.SampledFrom([]string{"INBOX", "inbox", "A", "A/B", "A/C", "B", "C/B", "a"}).Draw(t, "folder"),
		message:   drawMessage(t),
		recipient: rapid.SampledFrom([]string{"x@a.example", "y@a.example", "x@b.example", "y@b.example", `"x"@a.example`}).Draw(t, "recipient"),
	}
}

// limits lists what numbers allow, 0 standing for the most.
func limits(q policy.Quotas, s policy.Sending) []int64 {
	all := []int64{
		q.Messages.Hour, q.Messages.Day, q.Octets.Hour, q.Octets.Day, q.Headers.Hour, q.Headers.Day,
		int64(s.MaxRecipients), int64(s.MessagesPerHour), int64(s.RecipientsPerHour), s.MaxOctets,
	}
	for i, n := range all {
		if n == 0 {
			all[i] = math.MaxInt64
		}
	}
	// A day's limit is one for each hour of it, and an hour's recipients are
	// one for each message and for their number.
	for _, pair := range [][2]int{{0, 1}, {2, 3}, {4, 5}, {6, 8}, {7, 8}} {
		all[pair[0]] = min(all[pair[0]], all[pair[1]])
	}
	return all
}

// looser returns what a and b have that is more than terms allow; "": nothing.
func looser(q policy.Quotas, s policy.Sending, than policy.Terms) string {
	most := limits(than.Quotas, than.Sending)
	for i, n := range limits(q, s) {
		if n > most[i] {
			return fmt.Sprintf("limit %d is %d, not %d", i, n, most[i])
		}
	}
	switch {
	case than.Sending.ReplyOnly && !s.ReplyOnly:
		return "reply_only"
	case than.Sending.NoAttachments && !s.NoAttachments:
		return "no_attachments"
	}
	for _, c := range than.Sending.Content {
		if !slices.ContainsFunc(s.Content, func(x policy.ContentRule) bool { return x.Pattern == c.Pattern && (x.Block || !c.Block) }) {
			return "content " + c.Pattern
		}
	}
	return ""
}

func TestNarrowingOnlyNarrows(t *testing.T) {
	zones := &policy.Zones{}
	rapid.Check(t, func(t *rapid.T) {
		outer, inner, where := drawTerms(t, "outer"), drawTerms(t, "inner"), drawAt(t)
		both := allowed(outer, where) & allowed(inner, where)

		narrow := policy.Narrow(outer, inner)
		if got := allowed(narrow, where); got&^both != 0 {
			t.Fatalf("narrowed terms allow %v, both allow %v", got, both)
		}
		for _, terms := range []policy.Terms{outer, inner} {
			if field, ok := policy.Within(terms, narrow); !ok && narrow.Actions.Has(policy.Send) {
				t.Fatalf("narrowed terms are wider in %s", field)
			}
			if problem := looser(narrow.Quotas, narrow.Sending, terms); problem != "" {
				t.Fatalf("narrowed terms are looser: %s", problem)
			}
		}
		if _, ok := policy.Within(outer, inner); ok {
			if allowed(inner, where)&^allowed(outer, where) != 0 {
				t.Fatalf("terms that are within allow more")
			}
		}

		in := &policy.Input{
			Now: where.now, Delegation: outer.Clone(), Assignment: inner.Clone(), Site: where.site, HardwareKey: where.hardware, Password: where.password, Zones: zones,
			RecoverySenders: []string{"provider.example"},
		}
		decision, refusal := policy.Decide(in)
		switch {
		case (decision == nil) == (refusal == nil):
			t.Fatal("neither or both of decision and refusal")
		case refusal != nil && both != 0:
			t.Fatalf("refused (%v) what both allow", refusal)
		}
		if decision == nil {
			return
		}
		got := within(decision.Actions, where, decision.Folders, decision.Slices, decision.Recipients)
		if got != both {
			t.Fatalf("decided %v, both allow %v", got, both)
		}
		if visible := decision.Visible(where.folder, '/'); !visible && !decision.Restricted() {
			t.Fatal("a folder is hidden and the decision is not restricted")
		}
		for _, terms := range []policy.Terms{outer, inner} {
			if !terms.NotAfter.IsZero() && (decision.Until.IsZero() || decision.Until.After(terms.NotAfter)) {
				t.Fatalf("the decision ends at %v, the terms at %v", decision.Until, terms.NotAfter)
			}
			if until, _, _ := terms.Hours.Open(where.now, zones); !until.IsZero() && (decision.Until.IsZero() || decision.Until.After(until)) {
				t.Fatalf("the decision ends at %v, the shift at %v", decision.Until, until)
			}
			if sending := decision.Sending; decision.Actions.Has(policy.Send) {
				if problem := looser(decision.Quotas, sending, terms); problem != "" {
					t.Fatalf("the decision is looser: %s", problem)
				}
			}
		}
		kept := copyOf(t, decision)
		spoil(&in.Delegation)
		spoil(&in.Assignment)
		if diff := cmp.Diff(kept, decision, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the decision changed with its input:\n%s", diff)
		}
		if !decision.Covers(kept) {
			t.Fatal("a decision does not cover itself")
		}
	})
}

// copyOf shares nothing with d.
func copyOf(t *rapid.T, d *policy.Decision) *policy.Decision {
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	c := &policy.Decision{}
	if err := json.Unmarshal(b, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// spoil writes over everything that terms point to.
func spoil(t *policy.Terms) {
	for _, list := range [][]string{
		t.Sites, t.Folders.Allow, t.Folders.Deny, t.Sending.Recipients.Allow, t.Sending.Recipients.Deny,
	} {
		for i := range list {
			list[i] = "spoilt"
		}
	}
	for i := range t.Sending.Content {
		t.Sending.Content[i] = policy.ContentRule{}
	}
}

// A session lives on when its decision is covered by one that was made anew:
// that one must allow all that it did.
func TestNoNarrowerDecisionCovers(t *testing.T) {
	zones := &policy.Zones{}
	covered := 0
	rapid.Check(t, func(t *rapid.T) {
		where := drawAt(t)
		decide := func(terms policy.Terms) *policy.Decision {
			d, _ := policy.Decide(&policy.Input{
				Now: where.now, Delegation: terms, Assignment: policy.Terms{Actions: policy.All},
				Site: where.site, HardwareKey: where.hardware, Password: where.password, Zones: zones, RecoverySenders: []string{"provider.example"},
			})
			return d
		}
		terms, others := drawTerms(t, "old"), drawTerms(t, "next")
		old := decide(terms)
		// Change a few things: terms drawn apart are hardly ever covered.
		for i, change := range []func(){
			func() { terms.Actions = others.Actions },
			func() { terms.Hours = others.Hours },
			func() { terms.Folders.Allow = others.Folders.Allow },
			func() { terms.Folders.Deny = others.Folders.Deny },
			func() { terms.Slice = others.Slice },
			func() { terms.RecoveryMail = others.RecoveryMail },
			func() { terms.Quotas = others.Quotas },
			func() { terms.Sending = others.Sending },
			func() { terms.Sending.Recipients.Allow = others.Sending.Recipients.Allow },
		} {
			if rapid.IntRange(0, 3).Draw(t, fmt.Sprint("change ", i)) == 0 {
				change()
			}
		}
		next := decide(terms)
		if old == nil || next == nil || !next.Covers(old) {
			return
		}
		covered++
		before := within(old.Actions, where, old.Folders, old.Slices, old.Recipients)
		after := within(next.Actions, where, next.Folders, next.Slices, next.Recipients)
		if before&^after != 0 {
			t.Fatalf("%v was allowed, %v is", before, after)
		}
		if problem := looser(old.Quotas, old.Sending, policy.Terms{Quotas: next.Quotas, Sending: next.Sending}); problem != "" && next.Actions.Has(policy.Send) {
			t.Fatalf("the new limits are tighter: %s", problem)
		}
	})
	if covered == 0 {
		t.Error("no decision was covered by another one: nothing was tried")
	}
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
		when := now.Add(time.Duration(rapid.IntRange(-4, 4).Draw(t, "now")))
		for _, address := range []string{"a", "b"} {
			if next.Covers(&old) && reach(old, when, address)&^reach(next, when, address) != 0 {
				t.Fatalf("covered, and narrower at %v", when)
			}
		}
	})
}
