// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

// guarded is granted under guardrails.
func guarded(t testing.TB, text string) *policy.Input {
	t.Helper()
	g, err := policy.ParseGuardrails("guardrails.cedar", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	in := granted()
	in.Guardrails = g
	in.Subject = policy.Subject{
		Agent: "a1", AgentName: "asha", Mailbox: "m1", Address: "info@firm.example", Firm: "f1",
		Protocol: "imap", WorkstationClass: "software", Site: "hq",
	}
	return in
}

func TestGuardrails(t *testing.T) {
	tests := []struct {
		name, text string
		actions    policy.Actions
		message    string
	}{
		{"none", "", policy.All, ""},
		{"an action", `forbid (principal, action == Action::"send", resource);`, policy.All &^ policy.Send, ""},
		{"actions", `forbid (principal, action in [Action::"send", Action::"delete"], resource);`, policy.All &^ policy.Send &^ policy.Delete, ""},
		{"all but one, by a condition", `forbid (principal, action, resource) when { action != Action::"list" && action != Action::"session" };`, policy.List, ""},
		{"the session", `@message("Call IT.") forbid (principal, action == Action::"session", resource);`, 0, "Call IT."},
		{"everything", `forbid (principal, action, resource);`, 0, "guardrail"},
		{"an agent", `forbid (principal == Agent::"a1", action == Action::"read", resource);`, policy.All &^ policy.Read, ""},
		{"another agent", `forbid (principal == Agent::"a2", action, resource);`, policy.All, ""},
		{"an agent by name", `forbid (principal, action == Action::"read", resource) when { principal.name like "ash*" };`, policy.All &^ policy.Read, ""},
		{"a firm", `forbid (principal, action == Action::"read", resource in Firm::"f1");`, policy.All &^ policy.Read, ""},
		{"another firm", `forbid (principal, action, resource) when { resource.firm == Firm::"f2" };`, policy.All, ""},
		{"a class", `forbid (principal, action == Action::"send", resource) unless { context.workstation_class == "hardware" };`, policy.All &^ policy.Send, ""},
		{"a site", `forbid (principal, action, resource) when { context.site == "" };`, policy.All, ""},
		{"a protocol", `forbid (principal, action == Action::"session", resource) when { context.protocol == "imap" };`, 0, "guardrail"},
		{"an error", `forbid (principal, action == Action::"send", resource) when { 9223372036854775807 + 1 == 0 };`, 0, "cannot be evaluated"},
		{"an error of one action", `forbid (principal, action, resource) when { if action == Action::"flag" then 9223372036854775807 + 1 == 0 else false };`, 0, "cannot be evaluated"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, refusal := policy.Decide(guarded(t, test.text))
			switch {
			case test.actions == 0:
				if refusal == nil || refusal.Reason != policy.ReasonGuardrail || !strings.Contains(refusal.Text, test.message) {
					t.Errorf("decided %+v, refused %v", d, refusal)
				}
			case refusal != nil || d.Actions != test.actions:
				t.Errorf("decided %+v, refused %v; want %v", d, refusal, test.actions)
			case (len(d.Addresses) > 0) != test.actions.Has(policy.Send):
				t.Errorf("addresses %v", d.Addresses)
			}
		})
	}
}

func TestGuardrailsAreRefusedWithLineAndReason(t *testing.T) {
	tests := []struct{ text, where, reason string }{
		{"\n\nforbid (principal, action, resource", ":3:", ""},
		{"forbid (principal, action, resource);\n\npermit (principal, action, resource);", "g.cedar:3:", "guardrails forbid"},
		{"\nforbid (principal, action == Action::\"fly\", resource);", "g.cedar:2:", "fly"},
		{"\nforbid (principal, action, resource) when { context.clas == \"x\" };", "g.cedar:2:", "clas"},
		{"\nforbid (principal, action, resource) when { principal.name == 3 };", "g.cedar:2:", ""},
		{"forbid (principal == User::\"a\", action, resource);", "g.cedar:1:", "User"},
	}
	for _, test := range tests {
		_, err := policy.ParseGuardrails("g.cedar", []byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.where) || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s\n got %v\nwant %q and %q", test.text, err, test.where, test.reason)
		}
	}
}

// A guardrail that looks at the time ends the decision when it begins to
// forbid, and not before.
func TestGuardrailsOverTime(t *testing.T) {
	const fromTen = `forbid (principal, action == Action::"send", resource) when { context.time >= datetime("2026-03-02T10:10:00Z") };`
	d, refusal := policy.Decide(guarded(t, fromTen))
	// Times are seen in steps: 10:15 is the first that is not before 10:10.
	if want := time.Date(2026, 3, 2, 10, 15, 0, 0, time.UTC); refusal != nil || d.Actions != policy.All || !d.Until.Equal(want) {
		t.Fatalf("decided %+v, refused %v; want until %v", d, refusal, want)
	}
	in := guarded(t, fromTen)
	in.Now = d.Until
	if d, _ = policy.Decide(in); d.Actions != policy.All&^policy.Send || !d.Until.Equal(in.Now.Add(24*time.Hour)) {
		t.Errorf("then decided %+v", d)
	}
	in = guarded(t, fromTen+`forbid (principal, action == Action::"flag", resource) when { context.site == "x" };`)
	in.Delegation.Actions = policy.All &^ policy.Send
	if d, _ = policy.Decide(in); !d.Until.Equal(now.Add(24 * time.Hour)) {
		t.Errorf("it ends at %v for an action that was never granted", d.Until)
	}
}

// TestGuardrailsAreCedars holds the sorted evaluation against Cedar's own, with
// everything permitted, one action at a time.
func TestGuardrailsAreCedars(t *testing.T) {
	scopes := []string{`action`, `action == Action::"session"`, `action == Action::"send"`, `action in [Action::"list", Action::"flag"]`, `action in Action::"read"`}
	principals := []string{`principal`, `principal == Agent::"a1"`, `principal in Agent::"a1"`, `principal == Agent::"a2"`, `principal is Agent`}
	resources := []string{`resource`, `resource == Mailbox::"m1"`, `resource in Firm::"f1"`, `resource is Mailbox in Firm::"f1"`, `resource == Mailbox::"m2"`, `resource in Firm::"f2"`}
	conditions := []string{
		``, `when { action == Action::"flag" }`, `unless { action in [Action::"session", Action::"list"] }`,
		`when { context.protocol == "imap" }`, `when { context.site == "elsewhere" }`, `when { resource in Firm::"f1" }`,
		`when { context.time < datetime("2026-03-03") }`, `when { 9223372036854775807 + 1 == 0 }`,
	}
	rapid.Check(t, func(rt *rapid.T) {
		var text strings.Builder
		for i := range rapid.IntRange(0, 4).Draw(rt, "policies") {
			fmt.Fprintf(&text, "forbid (%s, %s, %s) %s;\n", rapid.SampledFrom(principals).Draw(rt, fmt.Sprint("principal ", i)),
				rapid.SampledFrom(scopes).Draw(rt, fmt.Sprint("scope ", i)), rapid.SampledFrom(resources).Draw(rt, fmt.Sprint("resource ", i)), rapid.SampledFrom(conditions).Draw(rt, fmt.Sprint("condition ", i)))
		}
		in := guarded(t, text.String())
		d, refusal := policy.Decide(in)

		set, err := cedar.NewPolicySetFromBytes("", []byte("permit (principal, action, resource);\n"+text.String()))
		if err != nil {
			rt.Fatal(err)
		}
		firm, agent, mailbox := types.NewEntityUID("Firm", "f1"), types.NewEntityUID("Agent", "a1"), types.NewEntityUID("Mailbox", "m1")
		entities := types.EntityMap{firm: {UID: firm}, agent: {UID: agent}, mailbox: {UID: mailbox, Parents: types.NewEntityUIDSet(firm)}}
		failed := false
		ask := func(action string) bool {
			decision, diagnostic := cedar.Authorize(set, entities, cedar.Request{
				Principal: agent, Resource: mailbox, Action: types.NewEntityUID("Action", types.String(action)),
				Context: types.NewRecord(types.RecordMap{
					"protocol": types.String("imap"), "workstation_class": types.String("software"),
					"site": types.String("hq"), "time": types.NewDatetime(now),
				}),
			})
			failed = failed || len(diagnostic.Errors) > 0
			return decision == cedar.Allow
		}
		session := ask("session")
		var want policy.Actions
		for _, name := range policy.All.Names() {
			if ask(name) {
				action, _ := policy.ParseActions([]string{name})
				want |= action
			}
		}
		switch {
		case failed || !session || want == 0:
			if refusal == nil || refusal.Reason != policy.ReasonGuardrail {
				rt.Fatalf("%s\ndecided %+v, refused %v", &text, d, refusal)
			}
		case refusal != nil || d.Actions != want:
			rt.Fatalf("%s\ndecided %+v, refused %v; want %v", &text, d, refusal, want)
		}
	})
}

// BenchmarkDecideUnderGuardrails decides under a hundred guardrails, of the
// kinds that are written.
func BenchmarkDecideUnderGuardrails(b *testing.B) {
	var text strings.Builder
	for i := range 100 {
		switch i % 5 {
		case 0:
			fmt.Fprintf(&text, "forbid (principal == Agent::\"x%d\", action == Action::\"send\", resource);\n", i)
		case 1:
			fmt.Fprintf(&text, "forbid (principal, action, resource in Firm::\"x%d\") when { context.workstation_class != \"hardware\" };\n", i)
		case 2:
			fmt.Fprintf(&text, "forbid (principal, action in [Action::\"read\", Action::\"send\"], resource == Mailbox::\"x%d\");\n", i)
		case 3:
			fmt.Fprintf(&text, "forbid (principal, action == Action::\"session\", resource) when { context.site == \"x%d\" };\n", i)
		case 4:
			fmt.Fprintf(&text, "forbid (principal == Agent::\"x%d\", action, resource) unless { context.protocol == \"imap\" };\n", i)
		}
	}
	in := guarded(b, text.String())
	b.ReportAllocs()
	for b.Loop() {
		if d, refusal := policy.Decide(in); refusal != nil || d.Actions != policy.All {
			b.Fatal(refusal)
		}
	}
}
