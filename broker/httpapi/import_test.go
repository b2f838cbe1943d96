// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// wrongRows makes an import that must fail, and returns where and why.
func (c *client) wrongRows(token, kind, body string, status int) map[string]string {
	c.t.Helper()
	got, _, answer := c.as(token, "POST", "/v1/"+kind+"/import", body)
	var p httpapi.Problem
	if err := json.Unmarshal(answer, &p); err != nil || got != status {
		c.t.Fatalf("importing %s: %d, want %d: %s", kind, got, status, answer)
	}
	wrong := map[string]string{}
	for _, f := range p.Errors {
		wrong[f.Pointer] = f.Detail
	}
	return wrong
}

// logged counts the BPO's events of a type.
func (c *client) logged(types ...string) int {
	n := 0
	for _, typ := range types {
		n += len(ok[httpapi.LogPage](c, "GET", "/v1/events?type="+typ, "").Items)
	}
	return n
}

// TestImportIsAllOrNothing: a file with one slip stores nothing and names the
// slip, a dry run stores nothing, and a second run changes nothing.
func TestImportIsAllOrNothing(t *testing.T) {
	c := start(t)
	var rows []string
	for i := range httpapi.MaxImportRows {
		rows = append(rows, fmt.Sprintf(`{"name":"agent-%03d","full_name":"Agent %d"}`, i, i))
	}
	body := func(rows []string, more string) string {
		return `{` + more + `"rows":[` + strings.Join(rows, ",") + `]}`
	}
	slips := append([]string{}, rows...)
	slips[7], slips[20], slips[499] = `{"name":"a/b"}`, rows[19], `{"name":"x","full_name":"\u0007"}`
	for _, dry := range []string{"", `"dry_run":true,`} {
		wrong := c.wrongRows("", "agents", body(slips, dry), http.StatusUnprocessableEntity)
		if len(wrong) != 3 || wrong["#/rows/7/name"] == "" || !strings.Contains(wrong["#/rows/20/name"], "row before") || wrong["#/rows/499/full_name"] == "" {
			t.Errorf("wrong: %v", wrong)
		}
	}
	revision, err := c.world.Store.PolicyRevision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out := ok[httpapi.Imported](c, "POST", "/v1/agents/import", body(rows, `"dry_run":true,`)); !out.DryRun || out.Created != len(rows) || out.Rows[0].ID != "" {
		t.Errorf("dry run: %+v", out)
	}
	if now, err := c.world.Store.PolicyRevision(t.Context()); err != nil || now != revision || c.logged("agent.created") != 0 {
		t.Errorf("revision %d after %d, %d events: %v", now, revision, c.logged("agent.created"), err)
	}
	out := ok[httpapi.Imported](c, "POST", "/v1/agents/import", body(rows, ""))
	if out.Created != len(rows) || out.Unchanged != 0 || c.logged("agent.created") != len(rows) {
		t.Errorf("created %d, unchanged %d, %d events", out.Created, out.Unchanged, c.logged("agent.created"))
	}
	if g := ok[broker.Agent](c, "GET", "/v1/agents/agent-042", ""); g.FullName != "Agent 42" || g.ID != out.Rows[42].ID {
		t.Errorf("agent %+v, told %+v", g, out.Rows[42])
	}
	again := ok[httpapi.Imported](c, "POST", "/v1/agents/import", body(rows, ""))
	if again.Created != 0 || again.Unchanged != len(rows) || again.Rows[42].ID != out.Rows[42].ID || c.logged("agent.created", "agent.updated") != len(rows) {
		t.Errorf("again: created %d, unchanged %d", again.Created, again.Unchanged)
	}
	wrong := c.wrongRows("", "agents", `{"rows":[{"name":"agent-001"},{"name":"AGENT-002","full_name":"Other"}]}`, http.StatusConflict)
	if len(wrong) != 1 || !strings.Contains(wrong["#/rows/1/full_name"], "Agent 2") {
		t.Errorf("who is there otherwise: %v", wrong)
	}
	for _, bad := range []string{`{"rows":[]}`, body(append(rows, `{"name":"more"}`), "")} {
		c.refused("POST", "/v1/agents/import", bad, http.StatusUnprocessableEntity, broker.Invalid)
	}
}

// TestImportAgentsWithAppPasswords: who has a good one gets no other, and a dry
// run shows none.
func TestImportAgentsWithAppPasswords(t *testing.T) {
	c := start(t)
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"meera"}`)
	ok[httpapi.AppPasswordCreated](c, "POST", "/v1/app-passwords", `{"agent":"meera"}`)
	const rows = `"rows":[{"name":"asha","app_password":{"groups":["night"]}},{"name":"ravi"},{"name":"meera","app_password":{}}]}`
	if out := ok[httpapi.Imported](c, "POST", "/v1/agents/import", `{"dry_run":true,`+rows); out.Created != 2 || out.Rows[0].AppPassword != "" {
		t.Errorf("dry run %+v", out)
	}
	out := ok[httpapi.Imported](c, "POST", "/v1/agents/import", `{`+rows)
	if out.Created != 2 || out.Rows[0].AppPassword == "" || out.Rows[1].AppPassword != "" || out.Rows[2].AppPassword != "" {
		t.Fatalf("imported %+v", out)
	}
	all := ok[httpapi.List[*httpapi.AppPassword]](c, "GET", "/v1/app-passwords?agent=asha", "")
	if len(all.Items) != 1 || len(all.Items[0].Groups) != 1 || all.Items[0].Groups[0] != "night" {
		t.Errorf("app passwords %+v", all.Items)
	}
	if again := ok[httpapi.Imported](c, "POST", "/v1/agents/import", `{`+rows); again.Unchanged != 3 || again.Rows[0].AppPassword != "" {
		t.Errorf("again %+v", again)
	}
	ok[httpapi.Ended](c, "POST", "/v1/app-passwords/"+string(all.Items[0].ID)+"/revoke", "")
	if anew := ok[httpapi.Imported](c, "POST", "/v1/agents/import", `{`+rows); anew.Created != 1 || anew.Rows[0].AppPassword == out.Rows[0].AppPassword || anew.Rows[0].AppPassword == "" {
		t.Errorf("after a revoke %+v", anew)
	}
	wrong := c.wrongRows("", "agents", `{"rows":[{"name":"new","app_password":{"groups":[""]}},{"name":"late","app_password":{"expires_at":"2020-01-01T00:00:00Z"}}]}`, http.StatusUnprocessableEntity)
	if len(wrong) != 2 || wrong["#/rows/1/app_password/expires_at"] == "" {
		t.Errorf("wrong %v", wrong)
	}
}

// TestImportAgentsOfTheDirectory: what lets an agent in is stored, and compared
// when he is there; he gets no app password.
func TestImportAgentsOfTheDirectory(t *testing.T) {
	c := start(t)
	const rows = `{"rows":[{"name":"asha","authentication":"ldap","directory_account":"arao"},{"name":"ravi","authentication":"app-password"}]}`
	if out := ok[httpapi.Imported](c, "POST", "/v1/agents/import", rows); out.Created != 2 {
		t.Fatalf("imported %+v", out)
	}
	if g := ok[broker.Agent](c, "GET", "/v1/agents/asha", ""); g.Authentication != broker.AuthLDAP || g.DirectoryAccount != "arao" {
		t.Errorf("stored %+v", g)
	}
	if again := ok[httpapi.Imported](c, "POST", "/v1/agents/import", rows); again.Unchanged != 2 {
		t.Errorf("again %+v", again)
	}
	wrong := c.wrongRows("", "agents", `{"rows":[{"name":"asha","directory_account":"other"},{"name":"ravi","authentication":"ldap"},{"name":"meera","authentication":"ldap","app_password":{}}]}`, http.StatusConflict)
	if wrong["#/rows/0/directory_account"] == "" || wrong["#/rows/1/authentication"] == "" || len(wrong) != 3 {
		t.Errorf("wrong %v", wrong)
	}
}

// TestImportWorkstations: those without keys get codes, which a second run
// leaves good.
func TestImportWorkstations(t *testing.T) {
	c := start(t)
	ok[broker.Site](c, "POST", "/v1/sites", `{"name":"Pune","networks":["192.0.2.0/24"]}`)
	const tpm = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const rows = `"rows":[{"name":"pune-01","class":"software","site":"pune","groups":["day","night"]},{"name":"pune-02","class":"hardware","tpm":"` + tpm + `"},
		{"name":"pune-03","class":"software","key_pins":["%s"]}]}`
	body := fmt.Sprintf(rows, pin('c'))
	if out := ok[httpapi.Imported](c, "POST", "/v1/workstations/import", `{"dry_run":true,`+body); out.Created != 3 || out.Rows[0].Code != "" {
		t.Errorf("dry run %+v", out)
	}
	out := ok[httpapi.Imported](c, "POST", "/v1/workstations/import", `{`+body)
	if out.Created != 3 || out.Rows[0].Code == "" || out.Rows[1].Code == "" || out.Rows[2].Code != "" || out.Rows[2].ID == "" || out.Rows[0].ExpiresAt == nil {
		t.Fatalf("imported %+v", out)
	}
	again := ok[httpapi.Imported](c, "POST", "/v1/workstations/import", `{`+body)
	if again.Unchanged != 3 || again.Rows[0].Code != "" {
		t.Errorf("again %+v", again)
	}
	enrolment := httpapi.Enrolment{Code: out.Rows[0].Code, CSR: requestOf(t, newKey(t)), Class: broker.ClassSoftware}
	if status, _, answer := c.anonymous("POST", "/v1/enrolments", "", jsonOf(t, enrolment)); status != http.StatusOK {
		t.Errorf("the first run's code: %d %s", status, answer)
	}
	// Redeemed, it is there as its row says, and a second code for the other
	// takes the first one's place.
	anew := ok[httpapi.Imported](c, "POST", "/v1/workstations/import", `{"replace_codes":true,`+body)
	if anew.Created != 1 || anew.Rows[1].Code == "" || anew.Rows[1].Code == out.Rows[1].Code || anew.Rows[0].ID == "" {
		t.Errorf("new codes %+v", anew)
	}
	if got := c.logged("enrolment-code.created"); got != 3 {
		t.Errorf("%d codes were made", got)
	}
	wrong := c.wrongRows("", "workstations", `{"rows":[{"name":"pune-01","class":"hardware"},{"name":"pune-02","class":"hardware","groups":["day"]},
		{"name":"pune-04","class":"software","site":"Goa"},{"name":"pune-03","class":"software","key_pins":["`+pin('d')+`"]},
		{"name":"pune-05","class":"software","tpm":"`+tpm+`"},{"name":"pune-06","class":"hardware","tpm":"`+tpm+`","key_pins":["`+pin('e')+`"]},{"name":"pune-07","class":"hardware"}]}`, http.StatusUnprocessableEntity)
	for _, where := range []string{"#/rows/0/class", "#/rows/1/groups", "#/rows/2/site", "#/rows/3/key_pins", "#/rows/4/tpm", "#/rows/5/tpm", "#/rows/6/tpm"} {
		if wrong[where] == "" {
			t.Errorf("nothing is wrong with %s: %v", where, wrong)
		}
	}
}

// TestNever5ImportIsTheFirms: a claimed firm's mailboxes are imported by its own
// admins, and its admins learn no more of others' than one by one.
func TestNever5ImportIsTheFirms(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	row := func(address, firm string) string {
		return `{` + firm + `"address":"` + address + `","imap":{"host":"imap.acme.example"},"submission":{"host":"smtp.acme.example"}}`
	}
	rows := `{"rows":[` + row("a@acme.example", "") + `,` + row("b@acme.example", "") + `]}`
	for _, bearer := range []string{"", firms.tokens["admin"]} {
		wrong := c.wrongRows(bearer, "mailboxes", `{"rows":[`+row("a@acme.example", `"firm":"Acme Pumps",`)+`]}`, http.StatusForbidden)
		if !strings.Contains(wrong["#/rows/0"], "was claimed") {
			t.Errorf("by the BPO: %v", wrong)
		}
	}
	firm := firms.tokens["firm-admin"]
	if out := okAs[httpapi.Imported](c, firm, "POST", "/v1/mailboxes/import", rows); out.Created != 2 {
		t.Errorf("by the firm: %+v", out)
	}
	if out := okAs[httpapi.Imported](c, firm, "POST", "/v1/mailboxes/import", rows); out.Unchanged != 2 {
		t.Errorf("again: %+v", out)
	}
	hidden := strings.ReplaceAll(rows, `"address"`, `"recovery_senders":["accounts.acme.example"],"address"`)
	if wrong := c.wrongRows(firm, "mailboxes", hidden, http.StatusConflict); len(wrong) != 2 || wrong["#/rows/0/recovery_senders"] == "" {
		t.Errorf("with other senders: %v", wrong)
	}
	other := strings.ReplaceAll(rows, "smtp.acme.example", "smtp2.acme.example")
	if wrong := c.wrongRows(firm, "mailboxes", other, http.StatusConflict); len(wrong) != 2 || wrong["#/rows/0/submission/host"] == "" {
		t.Errorf("with another host: %v", wrong)
	}
	theirs := c.wrongRows(firm, "mailboxes", `{"dry_run":true,"rows":[`+row(firms.theirs["mailbox-name"], "")+`]}`, http.StatusForbidden)
	nobodys := c.wrongRows(firm, "mailboxes", `{"dry_run":true,"rows":[`+row("nobody@zebra.example", "")+`]}`, http.StatusForbidden)
	if strip := strings.NewReplacer(firms.theirs["mailbox-name"], "X", "nobody@zebra.example", "X"); strip.Replace(fmt.Sprint(theirs)) != strip.Replace(fmt.Sprint(nobodys)) {
		t.Errorf("another firm's: %v; nobody's: %v", theirs, nobodys)
	}
}

// TestImportAssignments: within each delegation's terms, and idempotent though
// the delegation has changed since.
func TestImportAssignments(t *testing.T) {
	c := start(t)
	d, _, _ := c.fill()
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"ravi"}`)
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"meera"}`)
	rows := `{"rows":[{"agent":"asha","mailbox":"sales@acme.example"},{"agent":"ravi","mailbox":"sales@acme.example","terms":{"actions":["list","headers"]}},
		{"agent":"meera","delegation":"` + string(d.ID) + `","terms":{"folders":{"allow":["INBOX"]}}}]}`
	out := ok[httpapi.Imported](c, "POST", "/v1/assignments/import", rows)
	if out.Created != 2 || out.Unchanged != 1 || out.Rows[1].Name != "ravi on sales@acme.example" {
		t.Fatalf("imported %+v", out)
	}
	if s := ok[httpapi.Assignment](c, "GET", "/v1/assignments/"+string(out.Rows[1].ID), ""); s.Agent != "ravi" || s.Terms.Actions.String() != "list,headers" {
		t.Errorf("assignment %+v", s)
	}
	ok[httpapi.DelegationUpdated](c, "PATCH", "/v1/delegations/"+string(d.ID), `{"terms":{"actions":["list","headers","read"]}}`)
	if again := ok[httpapi.Imported](c, "POST", "/v1/assignments/import", rows); again.Unchanged != 3 || !reflect.DeepEqual(again.Rows[1].ID, out.Rows[1].ID) {
		t.Errorf("again %+v", again)
	}
	wrong := c.wrongRows("", "assignments", `{"rows":[{"agent":"asha","mailbox":"sales@acme.example","terms":{"actions":["list"]}},
		{"agent":"nobody","mailbox":"sales@acme.example"},{"agent":"ravi","mailbox":"none@acme.example"},{"agent":"ravi"},
		{"agent":"meera","mailbox":"sales@acme.example","terms":{"slice":"SINCE yesterday"}}]}`, http.StatusUnprocessableEntity)
	for where, why := range map[string]string{
		"#/rows/0/agent": "other terms", "#/rows/1/agent": "no agent", "#/rows/2/mailbox": "no mailbox", "#/rows/3/delegation": "give one", "#/rows/4/agent": "other terms",
	} {
		if !strings.Contains(wrong[where], why) {
			t.Errorf("%s: %q in %v", where, wrong[where], wrong)
		}
	}
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"new"}`)
	wrong = c.wrongRows("", "assignments", `{"rows":[{"agent":"new","mailbox":"sales@acme.example","terms":{"actions":["send"]}}]}`, http.StatusUnprocessableEntity)
	if !strings.Contains(wrong["#/rows/0/terms/actions"], "wider") {
		t.Errorf("wider terms: %v", wrong)
	}
}
