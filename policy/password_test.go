// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/postern-mail/postern/policy"
)

// TestNeedsPassword: terms that demand a password refuse who has a certificate
// alone, whichever of the two demands it, and no assignment can waive it.
func TestNeedsPassword(t *testing.T) {
	open, demanding := policy.Terms{Actions: policy.All}, policy.Terms{Actions: policy.All, NeedsPassword: true}
	for _, terms := range [][2]policy.Terms{{demanding, open}, {open, demanding}, {demanding, demanding}} {
		in := &policy.Input{Delegation: terms[0], Assignment: terms[1]}
		if _, refusal := policy.Decide(in); refusal == nil || refusal.Reason != policy.ReasonPassword {
			t.Errorf("by certificate alone: %v", refusal)
		}
		in.Password = true
		if _, refusal := policy.Decide(in); refusal != nil {
			t.Errorf("with a password: %v", refusal)
		}
	}
	if field, ok := policy.Within(demanding, open); ok || field != "needs_password" {
		t.Errorf("an assignment waives it: %q", field)
	}
	if !policy.Narrow(open, demanding).NeedsPassword || !policy.Narrow(demanding, open).NeedsPassword {
		t.Error("it is lost when terms are narrowed")
	}
}

// TestGuardrailsSeeTheAuthentication: what let somebody in.
func TestGuardrailsSeeTheAuthentication(t *testing.T) {
	g, err := policy.ParseGuardrails("test", []byte(
		`forbid (principal, action == Action::"send", resource) when { context.authentication == "certificate" };`))
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]policy.Actions{
		"certificate": policy.All &^ policy.Send, "app-password": policy.All, "ldap": policy.All,
	} {
		d, refusal := policy.Decide(&policy.Input{
			Delegation: policy.Terms{Actions: policy.All}, Assignment: policy.Terms{Actions: policy.All},
			Guardrails: g, Subject: policy.Subject{Agent: "a", Mailbox: "m", Firm: "f", Authentication: method},
		})
		if refusal != nil || d.Actions != want {
			t.Errorf("%s: %v, %v", method, d, refusal)
		}
	}
}
