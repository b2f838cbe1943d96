// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

const fullTerms = `{
	"actions": ["list", "headers", "read", "send"], "hardware_key": true,
	"hours": {"zone": "Asia/Kolkata", "shifts": [{"days": ["mon", "tue"], "from": "22:00", "to": "06:00"}]},
	"folders": {"allow": ["INBOX", "Clients/*"], "deny": ["Clients/Private"]},
	"slice": "SINCE @-30d NOT KEYWORD Privileged", "recovery_mail": "hidden",
	"quotas": {"messages": {"hour": 10, "day": 50}, "octets": {"day": 100000000}, "headers": {"hour": 500}},
	"sending": {
		"recipients": {"allow": ["*@firm.example"], "deny": ["boss@firm.example"]}, "reply_only": true,
		"max_recipients": 5, "messages_per_hour": 10, "recipients_per_hour": 20, "max_octets": 1000000, "no_attachments": true,
		"content": [{"name": "card numbers", "pattern": "[0-9]{16}", "block": true}, {"name": "prices", "pattern": "(?i)price"}]
	},
	"max_agents": 3
}`

// TestTermsAreKeptAsGiven: each field reaches the state and comes back, and an
// assignment that names none has all of the delegation's.
func TestTermsAreKeptAsGiven(t *testing.T) {
	c := start(t)
	c.fill()
	want, err := policy.ParseTerms([]byte(fullTerms))
	if err != nil {
		t.Fatal(err)
	}
	d := ok[httpapi.Delegation](c, "POST", "/v1/delegations", `{"mailbox":"sales@acme.example","terms":`+fullTerms+`}`)
	if diff := cmp.Diff(want, d.Terms); diff != "" {
		t.Errorf("delegation (-want +got):\n%s", diff)
	}
	a := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"asha","delegation":"`+string(d.ID)+`"}`)
	mine := want.Clone()
	mine.MaxAgents = 0
	if diff := cmp.Diff(mine, a.Terms); diff != "" {
		t.Errorf("assignment (-want +got):\n%s", diff)
	}

	path := "/v1/delegations/" + string(d.ID)
	for _, step := range []struct {
		body   string
		change func(*policy.Terms)
	}{
		{`{"terms":{}}`, func(*policy.Terms) {}},
		{`{"terms":{"slice":""}}`, func(x *policy.Terms) { x.Slice = "" }},
		{`{"terms":{"slice":"SEEN"}}`, func(x *policy.Terms) { x.Slice = "SEEN" }},
		{`{"terms":{"recovery_mail":"shown"}}`, func(x *policy.Terms) { x.RecoveryMail = policy.RecoveryShown }},
		{`{"terms":{"recovery_mail":"default"}}`, func(x *policy.Terms) { x.RecoveryMail = "" }},
		{`{"terms":{"folders":{"deny":["A"]}}}`, func(x *policy.Terms) { x.Folders = policy.FolderPatterns{Deny: []string{"A"}} }},
		{`{"terms":{"folders":{}}}`, func(x *policy.Terms) { x.Folders = policy.FolderPatterns{} }},
		{`{"terms":{"quotas":{"octets":{"hour":7}}}}`, func(x *policy.Terms) { x.Quotas = policy.Quotas{Octets: policy.Rate{Hour: 7}} }},
		{`{"terms":{"quotas":{}}}`, func(x *policy.Terms) { x.Quotas = policy.Quotas{} }},
		{`{"terms":{"sending":{"reply_only":true}}}`, func(x *policy.Terms) { x.Sending = policy.Sending{ReplyOnly: true} }},
		{`{"terms":{"sending":{}}}`, func(x *policy.Terms) { x.Sending = policy.Sending{} }},
		{`{"terms":{"hours":{}}}`, func(x *policy.Terms) { x.Hours = policy.Hours{} }},
		{`{"terms":{"max_agents":1}}`, func(x *policy.Terms) { x.MaxAgents = 1 }},
		{`{"terms":{"max_agents":0}}`, func(x *policy.Terms) { x.MaxAgents = 0 }},
	} {
		step.change(&want)
		if diff := cmp.Diff(want, ok[httpapi.DelegationUpdated](c, "PATCH", path, step.body).Delegation.Terms); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", step.body, diff)
		}
	}
}

// TestBadTermsNameTheField, give the reason, and store nothing.
func TestBadTermsNameTheField(t *testing.T) {
	c := start(t)
	d, a, _ := c.fill()
	ok[httpapi.DelegationUpdated](c, "PATCH", "/v1/delegations/"+string(d.ID), `{"terms":`+fullTerms+`}`)
	for _, test := range []struct{ body, where string }{
		{`{"hours":{"shifts":[{"days":["mon"],"from":"09:00","to":"18:00"}]}}`, "#/terms/hours/zone"},
		{`{"hours":{"zone":"Asia/Kolkata","shifts":[{"days":["mon"],"from":"9","to":"18:00"}]}}`, "#/terms/hours/shifts/0/from"},
		{`{"slice":"SINCE yesterday"}`, "#/terms/slice"},
		{`{"slice":"SEEN UNSEEN"}`, "#/terms/slice"},
		{`{"recovery_mail":"visible"}`, "#/terms/recovery_mail"},
		{`{"actions":[]}`, "#/terms/actions"},
		{`{"not_before":"2126-03-01T00:00:00Z","not_after":"2126-02-01T00:00:00Z"}`, "#/terms/not_after"},
		{`{"hours":{"zone":"Mars/Olympus","shifts":[{"days":["mon"],"from":"09:00","to":"18:00"}]}}`, "#/terms/hours/zone"},
		{`{"folders":{"allow":["A"],"deny":["A"]}}`, "#/terms/folders/allow/0"},
		{`{"folders":{"allow":["INBOX","A/"]}}`, "#/terms/folders/allow/1"},
		{`{"folders":{"alow":["INBOX"]}}`, "#/terms/folders/alow"},
		{`{"quotas":{"messages":{"hour":5,"day":2}}}`, "#/terms/quotas/messages/hour"},
		{`{"sending":{"recipients":{"deny":["firm.example"]}}}`, "#/terms/sending/recipients/deny/0"},
		{`{"sending":{"content":[{"name":"x","pattern":"("}]}}`, "#/terms/sending/content/0/pattern"},
		{`{"max_agents":-1}`, "#/terms/max_agents"},
	} {
		p := c.refused("PATCH", "/v1/delegations/"+string(d.ID), `{"terms":`+test.body+`}`, 422, broker.Invalid)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != test.where {
			t.Errorf("%s: %+v", test.body, p)
		}
	}
	for _, test := range []struct{ body, where string }{
		{`{"folders":{"allow":["Archive"]}}`, "#/terms/folders"},
		{`{"slice":"ALL"}`, "#/terms/slice"},
		{`{"recovery_mail":"shown"}`, "#/terms/recovery_mail"},
		{`{"actions":["delete"]}`, "#/terms/actions"},
		{`{"quotas":{"messages":{"hour":11}}}`, "#/terms/quotas"},
		{`{"sending":{"reply_only":true}}`, "#/terms/sending/recipients"},
		{`{"hours":{"zone":"UTC","shifts":[{"days":["mon"],"from":"22:00","to":"23:00"}]}}`, "#/terms/hours"},
		{`{"max_agents":1}`, "#/terms/max_agents"},
	} {
		p := c.refused("PATCH", "/v1/assignments/"+string(a.ID), `{"terms":`+test.body+`}`, 422, broker.Invalid)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != test.where {
			t.Errorf("%s: %+v", test.body, p)
		}
	}
	want, _ := policy.ParseTerms([]byte(fullTerms))
	if diff := cmp.Diff(want, ok[httpapi.Delegation](c, "GET", "/v1/delegations/"+string(d.ID), "").Terms); diff != "" {
		t.Errorf("something was stored:\n%s", diff)
	}
}
