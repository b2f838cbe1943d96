// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/policy"
)

// recoveryDecision is what Decide makes of a mailbox whose provider's recovery
// mail is known by its sender.
func recoveryDecision(t *testing.T, r policy.RecoveryMail) policy.Decision {
	t.Helper()
	terms := policy.Terms{Actions: policy.All, RecoveryMail: r}
	d, refusal := policy.Decide(&policy.Input{
		Now: time.Now(), Delegation: terms, Assignment: terms,
		RecoverySenders: []string{"accounts.provider.example", "security@provider.example"},
	})
	if refusal != nil {
		t.Fatal(refusal)
	}
	return *d
}

func letterFrom(from, subject string) string {
	return "From: " + from + "\r\nTo: box@firm.example\r\nSubject: " + subject + "\r\n\r\nuse 493817\r\n"
}

// TestNever2ViewHidesRecoveryMail: mail by which the mailbox could be taken over
// is hidden, whether it was there before or comes in the middle of a session, in
// IDLE and out of it.
func TestNever2ViewHidesRecoveryMail(t *testing.T) {
	words := []string{"493817", "provider.example", "verification", "Passwort"}
	hidden := []string{
		letterFrom("no-reply@accounts.provider.example", "Ihr Passwort"),
		letterFrom(`"Anna" <Security@Provider.example>`, "hello"),
		letterFrom("=?utf-8?q?Provider?= <x@eu.Accounts.Provider.example>", "=?utf-8?b?Q29kZQ==?="),
	}
	visible := strings.ReplaceAll(letterFrom("anna@customer.example", "pumps"), "493817", "it")
	bySubject := letterFrom("bank@other.example", "=?utf-8?q?Your_Verification_code?=")
	for _, test := range []struct {
		name   string
		term   policy.RecoveryMail
		hidden []string
	}{
		{"default", policy.RecoveryDefault, hidden},
		{"hidden", policy.RecoveryHidden, append(slices.Clone(hidden), bySubject, letterFrom("shop@other.example", "Your OTP for today"), letterFrom("shop@other.example", "OTP 5"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEachServer(t, func(t *testing.T, server realServer) {
				var before []string
				for _, m := range append(slices.Clone(test.hidden), visible) {
					before = append(before, "APPEND INBOX "+nonSync(m))
				}
				v := newViewed(t, server, recoveryDecision(t, test.term), before...)
				first := uint32(len(test.hidden) + 1)
				if heard := v.expect("SELECT INBOX", "OK"); !slices.Contains(heard, "* 1 EXISTS") {
					t.Errorf("SELECT: %q", heard)
				}
				v.agent.raw("i IDLE\r\n")
				v.agent.expect("+")
				for _, m := range append(slices.Clone(test.hidden), visible) {
					v.own("APPEND INBOX " + nonSync(m))
				}
				// The hidden ones came before it, and nothing was said of them.
				v.agent.expect("* 2 EXISTS")
				v.agent.raw("DONE\r\n")
				v.agent.expect("i OK")
				for _, m := range test.hidden {
					v.own("APPEND INBOX " + nonSync(m))
				}
				heard := v.expect("NOOP", "OK")
				v.silent("NOOP", heard, "EXISTS", "EXPUNGE")
				for _, command := range []string{
					"FETCH 1:* (FLAGS ENVELOPE BODY.PEEK[])", "UID FETCH 1:* (BODY.PEEK[])", "UID FETCH * BODY.PEEK[TEXT]",
					"SEARCH TEXT 493817", "UID SEARCH FROM provider.example", "SORT (FROM) UTF-8 FROM provider.example",
				} {
					v.silent(command, v.expect(command, "OK"), words...)
				}
				want := fmt.Sprintf("* SEARCH %d %d", first, 2*first)
				if heard := v.expect("UID SEARCH ALL", "OK"); heard[0] != want {
					t.Errorf("UID SEARCH: %q, want %q", heard, want)
				}
				v.expect("CREATE Other", "OK")
				v.expect("UID COPY 1:* Other", "OK")
				v.expect("SELECT Other", "OK")
				v.silent("FETCH", v.expect("FETCH 1:* (ENVELOPE BODY.PEEK[])", "OK"), words...)
				if heard := v.own("STATUS Other (MESSAGES)"); !strings.Contains(heard[0], "MESSAGES 2)") {
					t.Errorf("Other holds %q", heard)
				}
			})
		})
	}
	t.Run("shown", func(t *testing.T) {
		v := newViewed(t, dovecot(), recoveryDecision(t, policy.RecoveryShown), "APPEND INBOX "+nonSync(hidden[0]))
		if heard := strings.Join(v.expect("SELECT INBOX", "OK"), " "); !strings.Contains(heard, "* 1 EXISTS") || v.rig.gate.decision.Restricted() {
			t.Errorf("SELECT: %q", heard)
		}
	})
}
