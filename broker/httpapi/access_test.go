// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// The roles that the walk is made with.
var allRoles = []string{"admin", "auditor", "firm-admin", "firm-auditor"}

// mayCall says who may call each operation. It is written down a second time,
// and not taken from the server, so that a slip in the one shows in the other.
var mayCall = map[string]string{
	"whoami":     "admin auditor firm-admin firm-auditor",
	"list-firms": "admin auditor firm-admin firm-auditor", "get-firm": "admin auditor firm-admin firm-auditor",
	"create-firm": "admin", "create-claim": "admin", "redeem-claim": "anyone",
	"list-people": "admin auditor firm-admin firm-auditor", "create-person": "admin firm-admin", "delete-person": "admin firm-admin",
	"list-tokens": "admin auditor firm-admin firm-auditor", "create-token": "admin auditor firm-admin firm-auditor",
	"revoke-token":   "admin auditor firm-admin firm-auditor",
	"list-mailboxes": "admin auditor firm-admin firm-auditor", "get-mailbox": "admin auditor firm-admin firm-auditor",
	"create-mailbox": "admin firm-admin", "update-mailbox": "admin firm-admin", "delete-mailbox": "admin firm-admin",
	"set-credential":   "admin firm-admin",
	"list-delegations": "admin auditor firm-admin firm-auditor", "get-delegation": "admin auditor firm-admin firm-auditor",
	"create-delegation": "admin firm-admin", "update-delegation": "admin firm-admin", "revoke-delegation": "admin firm-admin",
	"revoke-delegations": "admin firm-admin",
	"list-assignments":   "admin auditor firm-admin firm-auditor", "get-assignment": "admin auditor firm-admin firm-auditor",
	"create-assignment": "admin", "update-assignment": "admin", "revoke-assignment": "admin firm-admin",
	"approve-assignment": "admin firm-admin", "update-firm": "admin firm-admin",
	"list-agents": "admin auditor firm-admin firm-auditor", "get-agent": "admin auditor firm-admin firm-auditor",
	"create-agent": "admin", "update-agent": "admin", "delete-agent": "admin",
	"import-agents": "admin", "import-workstations": "admin", "import-mailboxes": "admin firm-admin", "import-assignments": "admin",
	"off-board-agent": "admin", "off-board-workstation": "admin", "list-downloads": "admin auditor",
	"list-app-passwords": "admin auditor", "get-app-password": "admin auditor",
	"create-app-password": "admin", "revoke-app-password": "admin",
	"list-workstations": "admin auditor", "get-workstation": "admin auditor",
	"create-workstation": "admin", "update-workstation": "admin", "renew-workstation": "admin", "delete-workstation": "admin",
	"create-enrolment-code": "admin", "enrol": "anyone", "challenge-tpm": "anyone", "renew-certificate": "anyone",
	"list-sites": "admin auditor firm-admin firm-auditor", "get-site": "admin auditor firm-admin firm-auditor",
	"create-site": "admin", "update-site": "admin", "delete-site": "admin",
	"list-sessions": "admin auditor firm-admin firm-auditor", "end-session": "admin firm-admin",
	"list-locks": "admin auditor", "create-lock": "admin", "remove-lock": "admin",
	"list-events": "admin auditor firm-admin firm-auditor",
	"ask-message": "admin auditor firm-admin firm-auditor", "ask-agent": "admin auditor firm-admin firm-auditor",
	"ask-workstation": "admin auditor firm-admin firm-auditor", "ask-alert": "admin auditor firm-admin firm-auditor",
	"ask-mailbox":        "admin auditor firm-admin firm-auditor",
	"get-log-checkpoint": "admin auditor firm-admin firm-auditor", "get-log-tile": "admin auditor firm-admin firm-auditor",
	"list-log-entries": "admin auditor firm-admin firm-auditor", "get-log-keys": "admin auditor firm-admin firm-auditor",
	"list-witnesses": "admin auditor firm-admin firm-auditor", "create-witness": "admin firm-admin", "remove-witness": "admin firm-admin",
	"confirm-restore": "admin firm-admin", "submit-cosignature": "admin auditor firm-admin firm-auditor",
	"get-retention": "admin auditor firm-admin firm-auditor", "set-retention": "admin firm-admin", "set-retention-rules": "admin",
	"list-holds": "admin auditor firm-admin firm-auditor", "create-hold": "admin firm-admin", "release-hold": "admin firm-admin",
	"list-providers": "admin auditor firm-admin firm-auditor", "get-provider": "admin auditor firm-admin firm-auditor",
	"record-evidence": "admin auditor firm-admin firm-auditor",
	"create-provider": "admin firm-admin", "update-provider": "admin firm-admin", "delete-provider": "admin firm-admin",
	"set-provider-account": "admin firm-admin", "set-rotation": "admin firm-admin", "remove-rotation": "admin firm-admin",
	"enter-password": "admin firm-admin", "rotate": "admin firm-admin",
	"list-rotations": "admin auditor firm-admin firm-auditor", "get-rotation": "admin auditor firm-admin firm-auditor",
	"list-alerts": "admin auditor firm-admin firm-auditor", "get-alert": "admin auditor firm-admin firm-auditor",
	"count-alerts":      "admin auditor firm-admin firm-auditor",
	"acknowledge-alert": "admin firm-admin", "resolve-alert": "admin firm-admin",
	"list-watches": "admin auditor firm-admin firm-auditor", "get-watch": "admin auditor firm-admin firm-auditor",
	"list-canaries": "firm-admin firm-auditor", "create-canary": "firm-admin", "remove-canary": "firm-admin",
	"set-watch": "admin firm-admin", "probe-mailbox": "admin firm-admin",
	"list-sinks": "admin auditor", "test-sink": "admin",
}

// operation is one of the OpenAPI document.
type operation struct{ id, method, path string }

// operations reads the document as it is served.
func (c *client) operations() []operation {
	c.t.Helper()
	_, _, served := c.do(http.MethodGet, "/v1/openapi.json", "")
	var document struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(served, &document); err != nil {
		c.t.Fatal(err)
	}
	var all []operation
	for path, methods := range document.Paths {
		for method, o := range methods {
			all = append(all, operation{o.OperationID, strings.ToUpper(method), path})
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	if len(all) < 50 {
		c.t.Fatalf("only %d operations", len(all))
	}
	return all
}

var parameter = regexp.MustCompile(`\{([a-z_]+)\}`)

// at fills in the path's parameters.
func (o *operation) at(refs map[string]string) string {
	return parameter.ReplaceAllStringFunc(o.path, func(p string) string { return refs[strings.Trim(p, "{}")] })
}

// TestNever5EachOperationAsksWhoCalls walks every operation with every role,
// without a token, and with one that is not good. Nothing of the request is
// there that would keep it from reaching its handler, but its body.
func TestNever5EachOperationAsksWhoCalls(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	operations := c.operations()
	for id := range mayCall {
		if !slices.ContainsFunc(operations, func(o operation) bool { return o.id == id }) {
			t.Errorf("there is no operation %s", id)
		}
	}
	for _, o := range operations {
		may, known := mayCall[o.id]
		if !known {
			t.Errorf("%s: nobody has said who may call it", o.id)
			continue
		}
		path := o.at(firms.unknown)
		for _, bearer := range []string{"", "postern_api_" + strings.Repeat("0", 52), "x"} {
			status, header, answer := c.anonymous(o.method, path, bearer)
			if may == "anyone" && bearer == "" {
				continue
			}
			if status != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s with the token %q: %d %s", o.id, bearer, status, answer)
			}
		}
		for _, role := range allRoles {
			// No body at all: an operation that takes one refuses that, and says
			// so only to whom it would have listened.
			status, _, answer := c.as(firms.tokens[role], o.method, path, "")
			refused := status == http.StatusForbidden
			if allowed := may == "anyone" || slices.Contains(strings.Fields(may), role); allowed == refused {
				t.Errorf("%s by %s: %d %s", o.id, role, status, answer)
			}
			if status == http.StatusUnauthorized && may != "anyone" || status >= 500 {
				t.Errorf("%s by %s: %d %s", o.id, role, status, answer)
			}
		}
	}
}

// TestNever5BPOCannotSpeakForAClaimedFirm: what a firm's admins do, the BPO's
// may not, with whatever body.
func TestNever5BPOCannotSpeakForAClaimedFirm(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	own := firms.own
	affairs := []struct{ method, path, body string }{
		{"POST", "/v1/mailboxes", strings.Replace(acme, "sales@", "new@", 1)},
		{"PATCH", "/v1/mailboxes/" + own["mailbox"], `{"aliases":["x@acme.example"]}`},
		{"PATCH", "/v1/mailboxes/" + own["mailbox"], `{"imap":{"host":"evil.example"},"remove_credential":true}`},
		{"DELETE", "/v1/mailboxes/" + own["mailbox"], ""},
		{"PUT", "/v1/mailboxes/" + own["mailbox"] + "/credential", `{"kind":"password","secret":"s3cret"}`},
		{"POST", "/v1/delegations", `{"mailbox":"sales@acme.example"}`},
		{"PATCH", "/v1/delegations/" + own["delegation"], `{"terms":{"actions":["all"]}}`},
		{"PATCH", "/v1/delegations/" + own["delegation"], `{"terms":{"actions":["list"]}}`},
		{"POST", "/v1/delegations/" + own["delegation"] + "/revoke", ""},
		{"POST", "/v1/firms/" + own["firm"] + "/revoke-delegations", ""},
		{"PATCH", "/v1/firms/" + own["firm"], `{"contact":"mallory@evil.example"}`},
		{"PUT", "/v1/providers/" + own["provider"] + "/account", `{"kind":"password","secret":"s3cret"}`},
		{"PATCH", "/v1/providers/" + own["provider"], `{"settings":{"host":"evil.example"},"remove_account":true}`},
		{"POST", "/v1/assignments/" + own["assignment"] + "/approve", ""},
		{"POST", "/v1/alerts/" + own["alert"] + "/acknowledge", ""},
		{"POST", "/v1/alerts/" + own["alert"] + "/resolve", `{"note":"never mind"}`},
	}
	c.world.Upstream.Accept("s3cret")
	log := func() int {
		return len(ok[httpapi.LogPage](c, "GET", "/v1/events?firm="+own["firm"], "").Items)
	}
	before := log()
	for _, bearer := range []string{"", firms.tokens["admin"]} {
		for _, affair := range affairs {
			if status, _, answer := c.as(bearer, affair.method, affair.path, affair.body); status != http.StatusForbidden {
				t.Errorf("%s %s: %d %s", affair.method, affair.path, status, answer)
			}
		}
		if status, _, answer := c.as(bearer, "POST", "/v1/firms/"+own["firm"]+"/claim", ""); status != http.StatusConflict {
			t.Errorf("a second claim: %d %s", status, answer)
		}
		for _, path := range []string{"/v1/people/" + own["person"], "/v1/tokens/" + own["token"] + "/revoke"} {
			method := "POST"
			if strings.HasPrefix(path, "/v1/people") {
				method = "DELETE"
			}
			if status, _, answer := c.as(bearer, method, path, ""); status != http.StatusNotFound {
				t.Errorf("%s %s: %d %s", method, path, status, answer)
			}
		}
		for _, body := range []string{`{"name":"mallory","role":"firm-admin"}`, `{"name":"mallory","role":"firm-auditor","token":{}}`} {
			if status, _, answer := c.as(bearer, "POST", "/v1/people", body); status != http.StatusUnprocessableEntity {
				t.Errorf("a firm's person by the BPO: %d %s", status, answer)
			}
		}
		if status, _, answer := c.as(bearer, "POST", "/v1/tokens", `{"person":"`+own["person"]+`"}`); status != http.StatusNotFound {
			t.Errorf("a token for a firm's person by the BPO: %d %s", status, answer)
		}
	}
	if after := log(); after != before {
		t.Errorf("the firm's log grew by %d events", after-before)
	}
	if len(c.world.Upstream.Probed()) > 0 {
		t.Error("a credential was tried")
	}
	// The same, by the firm's own admin.
	for _, affair := range slices.Concat(affairs[:2], affairs[4:len(affairs)-3], affairs[len(affairs)-2:]) {
		body := affair.body
		if affair.path == "/v1/mailboxes" {
			body = strings.Replace(body, `"firm":"Acme Pumps",`, "", 1)
		}
		if status, _, answer := c.as(firms.tokens["firm-admin"], affair.method, affair.path, body); status != http.StatusOK {
			t.Errorf("%s %s by the firm: %d %s", affair.method, affair.path, status, answer)
		}
	}
}

// TestNever5AnotherFirmIsNotThere: to a firm's people, what is another firm's
// and what does not exist get the same answer, octet by octet.
func TestNever5AnotherFirmIsNotThere(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	type reference struct {
		method, path, body string // %s is the reference
	}
	var references []reference
	kinds := map[reference][]string{}
	add := func(r reference, kind ...string) {
		references = append(references, r)
		kinds[r] = kind
	}
	for _, o := range c.operations() {
		if !strings.Contains(mayCall[o.id], "firm-") {
			continue
		}
		names := parameter.FindAllStringSubmatch(o.path, -1)
		if len(names) == 0 {
			continue
		}
		if len(names) > 1 {
			t.Fatalf("%s has several parameters", o.id)
		}
		body := map[string]string{
			"update-provider": `{}`, "set-provider-account": `{"kind":"password","secret":"x"}`,
			"enter-password": `{"kind":"password","secret":"x"}`, "set-rotation": `{"provider":"nobody"}`, "set-watch": `{}`, "create-canary": `{"message_id":"<x@acme.example>"}`,
			"update-mailbox": `{}`, "update-firm": `{}`, "set-credential": `{"kind":"password","secret":"x"}`, "update-delegation": `{"terms":{}}`,
		}[o.id]
		add(reference{o.method, parameter.ReplaceAllString(o.path, "%s"), body}, names[0][1], names[0][1]+"-name")
	}
	if len(references) < 12 {
		t.Fatalf("only %d operations name something", len(references))
	}
	add(reference{"GET", "/v1/mailboxes?firm=%s", ""}, "firm", "firm-name")
	add(reference{"GET", "/v1/events?firm=%s", ""}, "firm", "firm-name")
	add(reference{"GET", "/v1/events?session=%s", ""}, "session")
	add(reference{"POST", "/v1/delegations", `{"mailbox":"%s"}`}, "mailbox", "mailbox-name")
	add(reference{"POST", "/v1/mailboxes", strings.Replace(strings.Replace(acme, "sales@", "more@", 1), "Acme Pumps", "%s", 1)}, "firm", "firm-name")
	add(reference{"GET", "/v1/rotations?firm=%s", ""}, "firm", "firm-name")
	add(reference{"GET", "/v1/watches?firm=%s", ""}, "firm", "firm-name")
	add(reference{"GET", "/v1/alerts?firm=%s", ""}, "firm", "firm-name")
	add(reference{"GET", "/v1/alerts?mailbox=%s", ""}, "mailbox", "mailbox-name")
	add(reference{"GET", "/v1/alerts?agent=%s", ""}, "agent", "agent-name")
	add(reference{"GET", "/v1/rotations?mailbox=%s", ""}, "mailbox", "mailbox-name")
	add(reference{"GET", "/v1/providers?firm=%s", ""}, "firm", "firm-name")
	add(reference{"POST", "/v1/rotations", `{"mailboxes":["%s"]}`}, "mailbox", "mailbox-name")
	add(reference{"POST", "/v1/rotations", `{"agent":"%s"}`}, "agent", "agent-name")
	add(reference{"POST", "/v1/tokens", `{"person":"%s"}`}, "person", "person-name")
	for _, r := range references {
		for _, kind := range kinds[r] {
			theirs, nobodys := firms.theirs[kind], firms.unknown[kind]
			if theirs == "" {
				continue // it has no names, or is the BPO's
			}
			for _, role := range []string{"firm-admin", "firm-auditor"} {
				ask := func(ref string) (int, []byte) {
					status, _, answer := c.as(firms.tokens[role], r.method, strings.Replace(r.path, "%s", ref, 1), strings.Replace(r.body, "%s", ref, 1))
					return status, bytes.ReplaceAll(answer, []byte(ref), []byte("REF"))
				}
				status, answer := ask(theirs)
				noStatus, no := ask(nobodys)
				if status != noStatus || !bytes.Equal(answer, no) {
					t.Errorf("%s %s (%s) by %s: %d %s\nthat does not exist: %d %s", r.method, r.path, kind, role, status, answer, noStatus, no)
				}
				if status != 404 && status != 403 && !strings.Contains(r.path, "session=") {
					t.Errorf("%s %s (%s) by %s: %d %s", r.method, r.path, kind, role, status, answer)
				}
			}
		}
	}
}

// TestNever5NoListTellsOfAnotherFirm reads whatever a firm's people can read,
// and looks for anything of the other firm.
func TestNever5NoListTellsOfAnotherFirm(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	for _, o := range c.operations() {
		if o.method != "GET" || !strings.Contains(mayCall[o.id], "firm-") {
			continue
		}
		if o.id == "ask-message" {
			o.path += "?message_id=" + url.QueryEscape("<1@acme.example>")
		}
		paths := []string{o.at(firms.own)}
		if o.path == o.at(firms.own) {
			paths = append(paths, o.path+"?all=true")
		}
		for _, path := range paths {
			status, _, answer := c.as(firms.tokens["firm-admin"], "GET", path, "")
			if status != http.StatusOK {
				if !strings.HasSuffix(path, "all=true") {
					t.Errorf("%s: %d %s", path, status, answer)
				}
				continue
			}
			for kind, ref := range firms.theirs {
				if bytes.Contains(bytes.ToLower(answer), []byte(strings.ToLower(ref))) {
					t.Errorf("GET %s tells of another firm's %s: %s", path, kind, answer)
				}
			}
		}
	}
}

// twoFirms are two claimed firms, each with all that a firm can have.
type twoFirms struct {
	// tokens are by role: the BPO's, and the first firm's.
	tokens map[string]string
	// own and theirs are references by kind ("mailbox", "mailbox-name", …) to
	// what the first and the second firm have; unknown to what nobody has.
	own, theirs, unknown map[string]string
}

func (c *client) twoFirms() *twoFirms {
	c.t.Helper()
	f := &twoFirms{tokens: map[string]string{}, own: map[string]string{}, theirs: map[string]string{}, unknown: map[string]string{}}
	ok[broker.Site](c, "POST", "/v1/sites", `{"name":"Pune","networks":["192.0.2.0/24"]}`)
	ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"pune-07","class":"software","site":"Pune","key_pins":["`+pin('a')+`"]}`)
	for _, role := range []string{"admin", "auditor"} {
		made := ok[httpapi.PersonCreated](c, "POST", "/v1/people", `{"name":"bpo-`+role+`","role":"`+role+`","token":{}}`)
		f.tokens[role] = made.Token.Token
	}
	c.furnish(f.own, f.tokens, "Acme Pumps", "acme.example", "asha", "priya")
	c.furnish(f.theirs, map[string]string{}, "Zebra", "zebra.example", "zoe", "zita")
	for kind := range f.own {
		if strings.HasSuffix(kind, "-name") {
			f.unknown[kind] = "nobody@nowhere.example"
		} else {
			f.unknown[kind] = string(broker.NewID())
		}
	}
	for kind, ref := range map[string]string{
		"site": "Pune", "workstation": "pune-07", "witness": string(broker.NewID()), "sink": "siem", "hold": string(broker.NewID()), "lock": string(broker.NewID()), "app_password": string(broker.NewID()),
	} {
		f.own[kind], f.unknown[kind] = ref, string(broker.NewID())
	}
	// A firm's people know the workstations that its log does.
	w, err := c.world.Store.Workstations(c.t.Context())
	if err == nil {
		err = c.world.Store.AppendEvents(c.t.Context(), []*broker.Event{{
			Type: broker.EventSessionRefused, FirmID: broker.ID(f.own["firm"]), Actor: broker.Actor{Kind: "stranger"},
			WorkstationID: w[0].ID, Data: broker.SessionRefused{Reason: "hours"},
		}})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// endRotation does a rotator's work: it cancels.
func (c *client) endRotation(r *httpapi.Rotation) *broker.Rotation {
	c.t.Helper()
	if r == nil {
		c.t.Fatal("no rotation was begun")
	}
	claim := broker.RotationClaim{Node: "node", Holder: broker.NewID(), Lasts: time.Minute}
	claimed, err := c.world.Store.ClaimRotation(c.t.Context(), claim)
	if err != nil || claimed == nil || claimed.ID != r.ID {
		c.t.Fatalf("claimed %+v, %v", claimed, err)
	}
	claimed.State, claimed.Outcome = broker.RotationEnded, broker.RotationCancelled
	if err := c.world.Store.AdvanceRotation(c.t.Context(), claim, claimed); err != nil {
		c.t.Fatal(err)
	}
	return claimed
}

// furnish makes a firm with all that it can have.
func (c *client) furnish(refs, tokens map[string]string, name, domain, agent, person string) {
	c.t.Helper()
	firm := ok[httpapi.FirmCreated](c, "POST", "/v1/firms", `{"name":"`+name+`","domains":["`+domain+`"]}`)
	status, _, answer := c.anonymous("POST", "/v1/claims/redeem", "", `{"claim":"`+firm.Claim.Claim+`","name":"`+person+`"}`)
	var redeemed httpapi.ClaimRedeemed
	if err := json.Unmarshal(answer, &redeemed); err != nil || status != http.StatusOK {
		c.t.Fatalf("redeeming a claim: %d %s", status, answer)
	}
	tokens["firm-admin"] = redeemed.Token.Token
	auditor := okAs[httpapi.PersonCreated](c, tokens["firm-admin"], "POST", "/v1/people", `{"name":"`+person+`-auditor","role":"firm-auditor","token":{}}`)
	tokens["firm-auditor"] = auditor.Token.Token
	body := strings.ReplaceAll(strings.Replace(acme, "Acme Pumps", name, 1), "acme.example", domain)
	m := okAs[httpapi.Mailbox](c, tokens["firm-admin"], "POST", "/v1/mailboxes", body)
	provider := okAs[httpapi.Provider](c, tokens["firm-admin"], "POST", "/v1/providers", `{"name":"panel of `+domain+`","driver":"test"}`)
	okAs[httpapi.Mailbox](c, tokens["firm-admin"], "PUT", "/v1/mailboxes/"+string(m.ID)+"/rotation", `{"provider":"`+string(provider.ID)+`"}`)
	begun := okAs[httpapi.List[httpapi.Rotating]](c, tokens["firm-admin"], "POST", "/v1/rotations", `{"mailboxes":["`+m.Address+`"]}`)
	rotation := c.endRotation(begun.Items[0].Rotation)
	alerts := okAs[httpapi.List[httpapi.Alert]](c, tokens["firm-admin"], "GET", "/v1/alerts", "") // of the rotation's end
	canary := okAs[broker.Canary](c, tokens["firm-admin"], "POST", "/v1/mailboxes/"+m.Address+"/canaries", `{"message_id":"<secret@`+domain+`>"}`)
	d := okAs[httpapi.Delegation](c, tokens["firm-admin"], "POST", "/v1/delegations", `{"mailbox":"`+m.Address+`"}`)
	g := ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"`+agent+`"}`)
	a := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"`+agent+`","mailbox":"`+m.Address+`"}`)
	p := ok[httpapi.AppPasswordCreated](c, "POST", "/v1/app-passwords", `{"agent":"`+agent+`"}`)
	s := c.open(&a, &p)
	for kind, ref := range map[string]string{
		"firm": string(firm.ID), "firm-name": strings.ReplaceAll(name, " ", "%20"), "mailbox": string(m.ID), "mailbox-name": m.Address,
		"delegation": string(d.ID), "delegation-name": m.Address, "assignment": string(a.ID), "agent": string(g.ID), "agent-name": g.Name,
		"person": string(redeemed.Person.ID), "person-name": person, "token": string(redeemed.Token.APIToken.ID), "session": string(s.ID),
		"provider": string(provider.ID), "rotation": string(rotation.ID), "alert": string(alerts.Items[0].ID), "canary": string(canary.ID),
	} {
		refs[kind] = ref
	}
}

// TestFirmApprovesEachAgent: where the firm demands it, an agent opens nothing
// before its admin has approved him, and the BPO cannot do it in his place.
func TestFirmApprovesEachAgent(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	firm := firms.tokens["firm-admin"]
	d := okAs[httpapi.DelegationUpdated](c, firm, "PATCH", "/v1/delegations/"+firms.own["delegation"], `{"approve_agents":true}`)
	if !d.Delegation.ApproveAgents {
		t.Fatalf("delegation %+v", d.Delegation)
	}
	if a := ok[httpapi.Assignment](c, "GET", "/v1/assignments/"+firms.own["assignment"], ""); a.State != httpapi.GrantActive {
		t.Errorf("who was assigned before is %s", a.State)
	}
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"new"}`)
	a := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"new","mailbox":"sales@acme.example"}`)
	if a.State != httpapi.GrantPending || !a.Pending {
		t.Fatalf("assignment %+v", a)
	}
	approve := "/v1/assignments/" + string(a.ID) + "/approve"
	for _, bearer := range []string{"", firms.tokens["admin"], firms.tokens["firm-auditor"]} {
		if status, _, answer := c.as(bearer, "POST", approve, ""); status != http.StatusForbidden {
			t.Errorf("approved by another: %d %s", status, answer)
		}
	}
	if got := okAs[httpapi.Assignment](c, firm, "POST", approve, ""); got.State != httpapi.GrantActive {
		t.Errorf("approved, it is %s", got.State)
	}
	ok[httpapi.Ended](c, "POST", "/v1/assignments/"+string(a.ID)+"/revoke", "")
	if status, _, answer := c.as(firm, "POST", approve, ""); status != http.StatusConflict {
		t.Errorf("approving what was revoked: %d %s", status, answer)
	}
}

// TestNever5AddressesTellNothing: a firm's admin who tries addresses learns
// nothing of whose they are, and stays within the firm's domains.
func TestNever5AddressesTellNothing(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	firm := firms.tokens["firm-admin"]
	try := func(local string) (int, string) {
		body := strings.Replace(strings.Replace(acme, "sales@acme.example", local+"@zebra.example", 1), `"firm":"Acme Pumps",`, "", 1)
		status, _, answer := c.as(firm, "POST", "/v1/mailboxes", body)
		return status, strings.ReplaceAll(string(answer), local, "LOCAL")
	}
	status, taken := try("sales")
	if noStatus, free := try("nobody"); status != http.StatusForbidden || status != noStatus || taken != free {
		t.Errorf("another firm's: %d %s\nnobody's: %d %s", status, taken, noStatus, free)
	}
	alias := func(address string) int {
		status, _, _ := c.as(firm, "PATCH", "/v1/mailboxes/sales@acme.example", `{"aliases":["`+address+`"]}`)
		return status
	}
	if status := alias("sales@zebra.example"); status != http.StatusForbidden {
		t.Errorf("an alias in another's domain: %d", status)
	}
	if status := alias("info@ACME.example"); status != http.StatusOK {
		t.Errorf("an alias in its own domain: %d", status)
	}
	if status, _, answer := c.as(firm, "PATCH", "/v1/firms/Acme%20Pumps", `{"domains":["zebra.example"]}`); status != http.StatusForbidden {
		t.Errorf("a firm notes its own domains: %d %s", status, answer)
	}
	if status, _, answer := c.as(firm, "PATCH", "/v1/mailboxes/sales@acme.example", `{"imap":{"host":"127.0.0.1","tls":"none"}}`); status != http.StatusUnprocessableEntity {
		t.Errorf("plain text to the BPO's machine: %d %s", status, answer)
	}
	ok[broker.Firm](c, "PATCH", "/v1/firms/Acme%20Pumps", `{"domains":["acme.example","one@zebra.example"]}`)
	if status := alias("one@zebra.example"); status != http.StatusOK {
		t.Errorf("an address that the BPO noted: %d", status)
	}
}
