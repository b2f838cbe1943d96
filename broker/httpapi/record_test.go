// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// change is one operation of the walk, called by root over the socket: with what,
// and the types of events that it must leave. as is what the answer's own id is kept
// as, for those that follow.
type change struct {
	op, body, events, as string
}

// changes are the operations that change something, each once or more. {kind} in a
// body is a thing that an earlier one made.
var changes = []change{
	{"create-firm", `{"name":"New","domains":["new.example"]}`, "firm.created claim.created", "firm"},
	{"create-claim", "", "claim.replaced", ""},
	{"update-firm", `{"contact":"it@new.example"}`, "firm.updated", ""},
	{"create-mailbox", `{"firm":"New","address":"one@new.example","imap":{"host":"imap.new.example"},"submission":{"host":"smtp.new.example"}}`, "mailbox.created", "mailbox"},
	{"update-mailbox", `{"aliases":["two@new.example"]}`, "mailbox.updated", ""},
	{"set-credential", `{"kind":"password","secret":"open-sesame"}`, "credential.set", ""},
	{"set-watch", `{"lock_on_drift":true}`, "mailbox.updated", ""},
	{"create-provider", `{"firm":"New","name":"panel","driver":"test"}`, "provider.created", "provider"},
	{"update-provider", `{"name":"the panel"}`, "provider.updated", ""},
	{"set-provider-account", `{"kind":"password","secret":"open-sesame"}`, "provider-account.set", ""},
	{"set-rotation", `{"provider":"{provider}"}`, "mailbox.updated", ""},
	{"rotate", `{"mailboxes":["one@new.example"]}`, "rotation.requested", ""},
	{"create-site", `{"name":"Goa","networks":["198.51.100.0/24"]}`, "site.created", "site"},
	{"update-site", `{"network_only":true}`, "site.updated", ""},
	{"create-agent", `{"name":"ravi"}`, "agent.created", "agent"},
	{"update-agent", `{"full_name":"Ravi Kumar"}`, "agent.updated", ""},
	{"create-workstation", `{"name":"goa-01","class":"software","site":"Goa","key_pins":["` + strings.Repeat("c", 64) + `"]}`, "workstation.created", "workstation"},
	{"update-workstation", `{"groups":["night"]}`, "workstation.updated", ""},
	{"create-enrolment-code", `{"name":"goa-02","class":"software"}`, "enrolment-code.created", ""},
	{"create-delegation", `{"mailbox":"one@new.example","approve_agents":true}`, "delegation.created", "delegation"},
	{"update-delegation", `{"terms":{"max_agents":7}}`, "delegation.updated", ""},
	{"create-assignment", `{"agent":"ravi","mailbox":"one@new.example"}`, "assignment.created", "assignment"},
	{"approve-assignment", "", "assignment.approved", ""},
	{"update-assignment", `{"terms":{"actions":["list"]}}`, "assignment.updated", ""},
	{"create-app-password", `{"agent":"ravi"}`, "app-password.created", ""},
	{"create-lock", `{"target":"mailbox","name":"one@new.example"}`, "lock.created", "lock"},
	{"acknowledge-alert", "", "alert.acknowledged", ""},
	{"resolve-alert", "", "alert.resolved", ""},
	{"remove-lock", "", "lock.removed", ""},
	{"create-person", `{"name":"sam","role":"auditor","token":{}}`, "person.created api-token.created", "person"},
	{"create-token", `{"person":"sam"}`, "api-token.created", "token"},
	{"revoke-token", "", "api-token.revoked", ""},
	{"delete-person", "", "person.removed", ""},
	{"revoke-app-password", "", "app-password.revoked", ""},
	{"revoke-assignment", "", "assignment.revoked", ""},
	{"revoke-delegation", "", "delegation.revoked", ""},
	{"create-delegation", `{"mailbox":"one@new.example"}`, "delegation.created", "delegation"},
	{"import-agents", `{"rows":[{"name":"lena"}]}`, "agent.created", ""},
	{"import-assignments", `{"rows":[{"agent":"lena","mailbox":"one@new.example"}]}`, "assignment.created", ""},
	{"import-mailboxes", `{"rows":[{"firm":"New","address":"three@new.example","imap":{"host":"imap.new.example"},"submission":{"host":"smtp.new.example"}}]}`, "mailbox.created", ""},
	{"revoke-delegations", "", "delegation.revoked assignment.revoked", ""},
	{"remove-rotation", "", "mailbox.updated", ""},
	{"delete-agent", "", "agent.deleted", ""},
	{"delete-workstation", "", "workstation.deleted", ""},
	{"delete-site", "", "site.deleted", ""},
	{"create-agent", `{"name":"mira"}`, "agent.created", "agent"},
	{"off-board-agent", `{}`, "agent.deleted", ""},
	{"create-workstation", `{"name":"goa-03","class":"software","key_pins":["` + strings.Repeat("d", 64) + `"]}`, "workstation.created", "workstation"},
	{"off-board-workstation", `{}`, "workstation.deleted", ""},
	{"create-mailbox", `{"firm":"New","address":"four@new.example","imap":{"host":"imap.new.example"},"submission":{"host":"smtp.new.example"}}`, "mailbox.created", "mailbox"},
	{"delete-mailbox", "", "mailbox.deleted", ""},
	{"set-retention", `{"firm":"New","days":365}`, "retention.updated", ""},
	{"set-retention-rules", `{"minimum_days":90,"own_days":730}`, "retention.updated", ""},
	{"create-hold", `{"firm":"New","reason":"FIR 212/2026"}`, "hold.created", "hold"},
	{"release-hold", `{"reason":"closed"}`, "hold.released", ""},
	{"create-provider", `{"firm":"New","name":"another panel","driver":"test"}`, "provider.created", "provider"},
	{"delete-provider", "", "provider.deleted", ""},
	{"redeem-claim", `{"claim":"{claim}","name":"neo"}`, "claim.redeemed firm.updated person.created api-token.created", ""},
}

// walkedElsewhere are the operations whose events another test looks for, since
// they need more than a request: a key, a session, a rotator, a marked message.
var walkedElsewhere = map[string]string{
	"enrol": "enrolment_test.go", "challenge-tpm": "it changes nothing", "renew-certificate": "enrolment_test.go", "renew-workstation": "api_test.go",
	"import-workstations": "import_test.go", "end-session": "api_test.go: the session's own end", "enter-password": "rotation.step, of test/e2e",
	"probe-mailbox": "it asks for a look", "test-sink": "it sends to a sink alone", "submit-cosignature": "it is kept with the log that it is of",
	"create-canary": "storetest, by the firm's own", "remove-canary": "storetest, by the firm's own",
	"create-witness": "storetest", "remove-witness": "storetest", "confirm-restore": "storetest", "record-evidence": "test/e2e",
}

// TestEveryChangeIsOnRecord walks the operations that change something, and looks
// for the events of each: those of changes of state tell what was before and after
// it, as far as there was something.
func TestEveryChangeIsOnRecord(t *testing.T) {
	c := start(t)
	c.world.Upstream.Accept("open-sesame")
	refs, walked := map[string]string{}, map[string]bool{}
	operations := c.operations()
	seen := map[broker.ID]bool{}
	for _, step := range changes {
		i := slices.IndexFunc(operations, func(o operation) bool { return o.id == step.op })
		if i < 0 {
			t.Fatalf("there is no operation %s", step.op)
		}
		walked[step.op] = true
		body := parameter.ReplaceAllStringFunc(step.body, func(p string) string { return refs[strings.Trim(p, "{}")] })
		status, _, answer := c.as("", operations[i].method, operations[i].at(refs), body)
		if status != http.StatusOK && status != http.StatusNoContent {
			t.Fatalf("%s: %d %s", step.op, status, answer)
		}
		keep(t, refs, &step, answer)
		var types []string
		for _, e := range c.newEvents(seen) {
			types = append(types, string(e.Type))
			checkChange(t, step.op, e)
			if e.Type == broker.EventAlertRaised {
				refs["alert"] = string(e.Data.(broker.AlertRaised).AlertID)
			}
		}
		for typ := range strings.FieldsSeq(step.events) {
			if !slices.Contains(types, typ) {
				t.Errorf("%s leaves %v, and no %s", step.op, types, typ)
			}
		}
	}
	for _, o := range operations {
		if o.method != http.MethodGet && !walked[o.id] && walkedElsewhere[o.id] == "" {
			t.Errorf("%s changes something, and nobody looks for its event", o.id)
		}
	}
}

// keep keeps the id of what was made, and what is shown once.
func keep(t *testing.T, refs map[string]string, step *change, answer []byte) {
	t.Helper()
	var made map[string]json.RawMessage
	if json.Unmarshal(answer, &made) != nil {
		return // it has no answer
	}
	var claim struct {
		Claim string `json:"claim"`
	}
	if json.Unmarshal(made["claim"], &claim) == nil && claim.Claim != "" {
		refs["claim"] = claim.Claim
	} else if json.Unmarshal(answer, &claim) == nil && claim.Claim != "" {
		refs["claim"] = claim.Claim
	}
	id := func(in json.RawMessage) string {
		var x struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(in, &x) // then it has none
		return x.ID
	}
	if p := id(made["app_password"]); p != "" {
		refs["app_password"] = p
	}
	if step.as == "" {
		return
	}
	for _, in := range []json.RawMessage{answer, made[step.as], made["api_token"]} {
		if x := id(in); x != "" {
			refs[step.as] = x
			return
		}
	}
	t.Fatalf("%s has no id in %s", step.op, answer)
}

// newEvents returns what has come to all logs.
func (c *client) newEvents(seen map[broker.ID]bool) (all []*broker.StoredEvent) {
	c.t.Helper()
	firms, err := c.world.Store.Firms(context.Background())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, firm := range append(firms, &broker.Firm{}) {
		log, err := c.world.Store.Events(context.Background(), broker.EventQuery{FirmID: firm.ID, After: -1, Limit: 10000})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, e := range log {
			if !seen[e.ID] {
				seen[e.ID] = true
				all = append(all, e)
			}
		}
	}
	return all
}

// checkChange checks that a change of state tells what was before and after it,
// who made it, and nothing that was secret.
func checkChange(t *testing.T, op string, e *broker.StoredEvent) {
	t.Helper()
	if strings.Contains(string(e.Record), "open-sesame") {
		t.Errorf("%s: %s holds a secret", op, e.Type)
	}
	if !e.Type.IsChange() {
		return
	}
	data, ok := e.Data.(broker.StateChange)
	_, verb, _ := strings.Cut(string(e.Type), ".")
	before, after := verb != "created", verb != "deleted"
	if !ok || (len(data.Before) > 0) != before || (len(data.After) > 0) != after || e.Actor.Kind == "" {
		t.Errorf("%s: %s tells %s", op, e.Type, e.Record)
	}
	if before && after && string(data.Before) == string(data.After) {
		t.Errorf("%s: %s changes nothing: %s", op, e.Type, e.Record)
	}
}
