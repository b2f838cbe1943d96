// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/policy"
)

const everyTerm = `{
	"actions": ["list", "headers", "read", "send"],
	"not_before": "2026-01-01T00:00:00Z", "not_after": "2026-12-31T00:00:00Z",
	"hours": {"zone": "Asia/Kolkata", "shifts": [{"days": ["mon", "tue"], "from": "22:00", "to": "06:00"}]},
	"sites": ["a"], "hardware_key": true,
	"folders": {"allow": ["INBOX", "Clients/*"], "deny": ["Clients/Private"]},
	"slice": "SINCE @-30d NOT KEYWORD Privileged", "recovery_mail": "hidden",
	"quotas": {"messages": {"hour": 10, "day": 50}, "octets": {"day": 100000000}, "headers": {"hour": 500}},
	"sending": {
		"recipients": {"allow": ["*@firm.example"], "deny": ["boss@firm.example"]}, "reply_only": true,
		"max_recipients": 5, "messages_per_hour": 10, "recipients_per_hour": 20, "max_octets": 1000000, "no_attachments": true,
		"content": [{"name": "card numbers", "pattern": "\\b\\d{16}\\b", "block": true}, {"name": "prices", "pattern": "(?i)price"}]
	},
	"max_agents": 3
}`

func TestParseTerms(t *testing.T) {
	terms, err := policy.ParseTerms([]byte(everyTerm))
	if err != nil {
		t.Fatal(err)
	}
	if field, reason := terms.Validate(); field != "" {
		t.Fatalf("%s: %s", field, reason)
	}
	b, err := json.Marshal(terms)
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.ParseTerms(b)
	if diff := cmp.Diff(terms, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff(terms, terms.Clone()); diff != "" {
		t.Errorf("clone:\n%s", diff)
	}
	if b, err = json.Marshal(policy.Terms{Actions: policy.List}); string(b) != `{"actions":["list"]}` {
		t.Errorf("terms that restrict nothing are %s, %v", b, err)
	}
}

func TestParseTermsIsStrict(t *testing.T) {
	for text, reason := range map[string]string{
		`{"action": ["list"]}`:                                `"action"`,
		`{"actions": ["list"], "folders": {"alow": ["A"]}}`:   `"alow"`,
		`{"actions": ["list"], "quotas": {"messages": 3}}`:    "quotas.messages",
		`{"actions": ["lists"]}`:                              `"lists"`,
		`{"actions": ["list"]} {}`:                            "more after",
		`{"actions": ["list"], "sending": {"reply_only": 1}}`: "reply_only",
		``: "EOF",
	} {
		if terms, err := policy.ParseTerms([]byte(text)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %+v, %v; want %q", text, terms, err, reason)
		}
	}
}

func TestValidateSendingAndQuotas(t *testing.T) {
	rule := func(c policy.ContentRule) policy.Sending { return policy.Sending{Content: []policy.ContentRule{c}} }
	long := strings.Repeat("a", policy.MaxContentPattern+1)
	tests := []struct {
		terms         policy.Terms
		field, reason string
	}{
		{policy.Terms{Sending: policy.Sending{MaxRecipients: -1}}, "sending.max_recipients", "negative"},
		{policy.Terms{Sending: policy.Sending{MessagesPerHour: -1}}, "sending.messages_per_hour", "negative"},
		{policy.Terms{Sending: policy.Sending{RecipientsPerHour: -1}}, "sending.recipients_per_hour", "negative"},
		{policy.Terms{Sending: policy.Sending{MaxOctets: -1}}, "sending.max_octets", "negative"},
		{policy.Terms{Sending: policy.Sending{MaxRecipients: 3, RecipientsPerHour: 2}}, "sending.max_recipients", "more than"},
		{policy.Terms{Sending: policy.Sending{MessagesPerHour: 3, RecipientsPerHour: 2}}, "sending.messages_per_hour", "more than"},
		{policy.Terms{Sending: policy.Sending{Content: make([]policy.ContentRule, policy.MaxContentRules+1)}}, "sending.content", "more than"},
		{policy.Terms{Sending: rule(policy.ContentRule{Pattern: "a"})}, "sending.content[0].name", "give a name"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a\nb", Pattern: "a"})}, "sending.content[0].name", "control"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a"})}, "sending.content[0].pattern", "missing"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a", Pattern: "a("})}, "sending.content[0].pattern", "missing closing"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a", Pattern: `(?=a)`})}, "sending.content[0].pattern", "invalid"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a", Pattern: "a*"})}, "sending.content[0].pattern", "every message"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a", Pattern: `[^\x00-\x{10FFFF}]`})}, "sending.content[0].pattern", "nothing"},
		{policy.Terms{Sending: rule(policy.ContentRule{Name: "a", Pattern: long})}, "sending.content[0].pattern", "longer"},
		{policy.Terms{Sending: policy.Sending{Content: []policy.ContentRule{{Name: "a", Pattern: "a"}, {Name: "a", Pattern: "b"}}}}, "sending.content[1].name", "twice"},
		{policy.Terms{Quotas: policy.Quotas{Messages: policy.Rate{Hour: -1}}}, "quotas.messages.hour", "negative"},
		{policy.Terms{Quotas: policy.Quotas{Octets: policy.Rate{Day: -1}}}, "quotas.octets.day", "negative"},
		{policy.Terms{Quotas: policy.Quotas{Headers: policy.Rate{Hour: 3, Day: 2}}}, "quotas.headers.hour", "whole day"},
		{policy.Terms{MaxAgents: -1}, "max_agents", "negative"},
		{policy.Terms{RecoveryMail: "visible"}, "recovery_mail", "hidden or shown"},
	}
	for _, test := range tests {
		test.terms.Actions = policy.All
		if field, reason := test.terms.Validate(); field != test.field || !strings.Contains(reason, test.reason) {
			t.Errorf("%+v: %q, %q; want %q, %q", test.terms, field, reason, test.field, test.reason)
		}
	}
}
