// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/policy"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// granted is an input that is decided in the agent's favour.
func granted() *policy.Input {
	return &policy.Input{
		Now:        now,
		Delegation: policy.Terms{Actions: policy.All},
		Assignment: policy.Terms{Actions: policy.All},
		Site:       "hq",
		Addresses:  []string{"Info@Firm.Example", "sales@firm.example"},
	}
}

func TestDecideGrants(t *testing.T) {
	tests := []struct {
		name   string
		change func(*policy.Input)
		want   policy.Decision
	}{
		{"everything", func(*policy.Input) {}, policy.Decision{
			Actions: policy.All, Addresses: []string{"info@firm.example", "sales@firm.example"},
		}},
		{"actions are intersected", func(in *policy.Input) {
			in.Delegation.Actions = policy.List | policy.Headers | policy.Read
			in.Assignment.Actions = policy.List | policy.Headers | policy.Send
		}, policy.Decision{Actions: policy.List | policy.Headers}},
		{"the delegation ends first", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, NotAfter: now.Add(time.Hour)}
			in.Assignment.NotAfter = now.Add(2 * time.Hour)
		}, policy.Decision{Actions: policy.List, Until: now.Add(time.Hour)}},
		{"the assignment ends first", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, NotAfter: now.Add(2 * time.Hour)}
			in.Assignment.NotAfter = now.Add(time.Hour)
		}, policy.Decision{Actions: policy.List, Until: now.Add(time.Hour)}},
		{"only the assignment ends", func(in *policy.Input) {
			in.Delegation.Actions = policy.List
			in.Assignment.NotAfter = now.Add(time.Hour)
		}, policy.Decision{Actions: policy.List, Until: now.Add(time.Hour)}},
		{"the last instant", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, NotAfter: now.Add(1)}
		}, policy.Decision{Actions: policy.List, Until: now.Add(1)}},
		{"the first instant", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, NotBefore: now}
		}, policy.Decision{Actions: policy.List}},
		{"a lock that has ended", func(in *policy.Input) {
			in.Delegation.Actions = policy.List
			in.Locks = []policy.Lock{{Message: "gone", Until: now}}
		}, policy.Decision{Actions: policy.List}},
		{"an allowed site", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, Sites: []string{"branch", "hq"}}
		}, policy.Decision{Actions: policy.List}},
		{"a hardware key", func(in *policy.Input) {
			in.Delegation = policy.Terms{Actions: policy.List, HardwareKey: true}
			in.HardwareKey = true
		}, policy.Decision{Actions: policy.List}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := granted()
			test.change(in)
			got, refusal := policy.Decide(in)
			if refusal != nil {
				t.Fatalf("refused: %v", refusal)
			}
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecideRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*policy.Input)
		reason string
		text   string
	}{
		{"locked", func(in *policy.Input) {
			in.Locks = []policy.Lock{{Message: "over", Until: now}, {Message: "Stop work and call IT."}}
		}, policy.ReasonLocked, "Stop work and call IT."},
		{"locked until later", func(in *policy.Input) {
			in.Locks = []policy.Lock{{Message: "Until noon.", Until: now.Add(1)}}
		}, policy.ReasonLocked, "Until noon."},
		{"locked without a message", func(in *policy.Input) {
			in.Locks = []policy.Lock{{}}
		}, policy.ReasonLocked, "locked"},
		{"a lock stands before a revoke", func(in *policy.Input) {
			in.Locks, in.DelegationRevoked = []policy.Lock{{Message: "m"}}, true
		}, policy.ReasonLocked, "m"},
		{"delegation revoked", func(in *policy.Input) { in.DelegationRevoked = true }, policy.ReasonRevoked, "withdrawn"},
		{"assignment pending", func(in *policy.Input) { in.AssignmentPending = true }, policy.ReasonPending, "not approved"},
		{"assignment revoked", func(in *policy.Input) { in.AssignmentRevoked = true }, policy.ReasonRevoked, "no longer assigned"},
		{"delegation not yet valid", func(in *policy.Input) { in.Delegation.NotBefore = now.Add(1) }, policy.ReasonNotYetValid, "begins on 2 March 2026 at 09:00 UTC"},
		{"assignment not yet valid", func(in *policy.Input) { in.Assignment.NotBefore = now.Add(1) }, policy.ReasonNotYetValid, "begins on"},
		{"delegation expired", func(in *policy.Input) { in.Delegation.NotAfter = now }, policy.ReasonExpired, "ended on 2 March 2026 at 09:00 UTC"},
		{"assignment expired", func(in *policy.Input) { in.Assignment.NotAfter = now }, policy.ReasonExpired, "ended on"},
		{"another site", func(in *policy.Input) { in.Delegation.Sites = []string{"branch"} }, policy.ReasonSite, "site"},
		{"another site by the assignment", func(in *policy.Input) { in.Assignment.Sites = []string{"branch"} }, policy.ReasonSite, "site"},
		{"no site", func(in *policy.Input) { in.Site, in.Delegation.Sites = "", []string{"", "hq"} }, policy.ReasonSite, "site"},
		{"sites without a common one", func(in *policy.Input) {
			in.Delegation.Sites, in.Assignment.Sites = []string{"hq"}, []string{"branch"}
		}, policy.ReasonSite, "site"},
		{"software key", func(in *policy.Input) { in.Delegation.HardwareKey = true }, policy.ReasonWorkstation, "hardware"},
		{"software key by the assignment", func(in *policy.Input) { in.Assignment.HardwareKey = true }, policy.ReasonWorkstation, "hardware"},
		{"no common action", func(in *policy.Input) {
			in.Delegation.Actions, in.Assignment.Actions = policy.Read, policy.Send
		}, policy.ReasonNoActions, "Nothing is granted"},
		{"an action that does not exist", func(in *policy.Input) {
			in.Delegation.Actions, in.Assignment.Actions = 1<<15, 1<<15
		}, policy.ReasonNoActions, "Nothing is granted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := granted()
			test.change(in)
			decision, refusal := policy.Decide(in)
			if refusal == nil {
				t.Fatalf("granted %+v", decision)
			}
			if decision != nil {
				t.Error("a decision beside a refusal")
			}
			if refusal.Reason != test.reason || !strings.Contains(refusal.Text, test.text) {
				t.Errorf("refusal %q, want reason %q and %q in the text", refusal, test.reason, test.text)
			}
		})
	}
}

func TestDecisionKeepsNothingOfItsInput(t *testing.T) {
	in := granted()
	d, _ := policy.Decide(in)
	in.Addresses[0] = "rival@evil.example"
	if d.Addresses[0] != "info@firm.example" {
		t.Errorf("the decision's address became %q", d.Addresses[0])
	}
}

func BenchmarkDecide(b *testing.B) {
	in := granted()
	in.Delegation.NotAfter, in.Assignment.NotAfter = now.Add(time.Hour), now.Add(time.Minute)
	in.Delegation.Sites, in.Assignment.Sites = []string{"branch", "hq"}, []string{"hq"}
	in.Locks = []policy.Lock{{Message: "gone", Until: now}}
	b.ReportAllocs()
	for b.Loop() {
		if _, refusal := policy.Decide(in); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

// BenchmarkDecideByAllTerms decides by terms that use every field.
func BenchmarkDecideByAllTerms(b *testing.B) {
	terms, err := policy.ParseTerms([]byte(everyTerm))
	if err != nil {
		b.Fatal(err)
	}
	in := granted()
	in.Site, in.HardwareKey, in.Zones = "a", true, &policy.Zones{}
	in.Now = time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC) // Monday, 23:30 in India
	in.Delegation, in.Assignment = terms, terms.Clone()
	in.Assignment.Slice, in.Assignment.Folders.Allow = "SINCE @-7d NOT KEYWORD Privileged", []string{"INBOX"}
	b.ReportAllocs()
	for b.Loop() {
		if _, refusal := policy.Decide(in); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

// checked is a decision with a bit of everything that is asked for a command.
func checked(t testing.TB) *policy.Decision {
	in := granted()
	in.Delegation.Actions = policy.All &^ policy.Delete
	in.Delegation.Folders = policy.FolderPatterns{Allow: []string{"INBOX", "Clients/*", "Archive/%"}, Deny: []string{"Clients/Private", "*/Board"}}
	in.Assignment.Folders = policy.FolderPatterns{Deny: []string{"Clients/Zeta"}}
	in.Delegation.Sending.Recipients = policy.RecipientPatterns{Deny: []string{"*@rival.example", "*@*.rival.example"}}
	in.Assignment.Sending.Recipients = policy.RecipientPatterns{Allow: []string{"*@firm.example", "*@customer.example"}}
	d, refusal := policy.Decide(in)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return d
}

// allow is the check of one command of each kind.
func allow(d *policy.Decision) bool {
	return d.Actions.Has(policy.Read|policy.List) && !d.Actions.Has(policy.Delete) &&
		d.Visible("Clients.Acme.2026", '.') && d.MaySendTo("anna@customer.example")
}

func BenchmarkCommandCheck(b *testing.B) {
	d := checked(b)
	for name, check := range map[string]func() bool{
		"action":    func() bool { return d.Actions.Has(policy.Read | policy.List) },
		"folder":    func() bool { return d.Visible("Clients.Acme.2026", '.') },
		"recipient": func() bool { return d.MaySendTo("anna@customer.example") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !check() {
					b.Fatal("refused")
				}
			}
		})
	}
}

// The check that runs on every command may cost the collector nothing.
func TestCommandCheckAllocatesNothing(t *testing.T) {
	d := checked(t)
	allowed := true
	if n := testing.AllocsPerRun(100, func() { allowed = allowed && allow(d) }); n != 0 || !allowed {
		t.Errorf("%v allocations, allowed %v", n, allowed)
	}
}
