// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

// TestNever4UpdatesEndWhatTheyMakeNarrower: each change says which sessions it
// ended, and leaves those that it does not narrow.
func TestNever4UpdatesEndWhatTheyMakeNarrower(t *testing.T) {
	c := start(t)
	d, a, p := c.fill()
	ok[broker.Site](c, "POST", "/v1/sites", `{"name":"Goa","networks":["198.51.100.0/24"]}`)
	delegation, assignment, workstation := "/v1/delegations/"+string(d.ID), "/v1/assignments/"+string(a.ID), "/v1/workstations/pune-07"
	for _, step := range []struct {
		name, path, body string
		ends             bool
	}{
		{"nothing", delegation, `{"terms":{}}`, false},
		{"the same", delegation, `{"terms":{"actions":["all"],"not_after":null,"sites":[]}}`, false},
		{"fewer actions", delegation, `{"terms":{"actions":["list","read"]}}`, true},
		{"more actions", delegation, `{"terms":{"actions":["all"]}}`, false},
		{"an end", delegation, `{"terms":{"not_after":"2199-01-01T00:00:00Z"}}`, true},
		{"a later end", delegation, `{"terms":{"not_after":"2199-01-02T00:00:00Z"}}`, false},
		{"no end", delegation, `{"terms":{"not_after":null}}`, false},
		{"a site", delegation, `{"terms":{"sites":["Pune"]}}`, true},
		{"any site", delegation, `{"terms":{"sites":[]}}`, false},
		{"an assignment's fewer actions", assignment, `{"terms":{"actions":["list"]}}`, true},
		{"an assignment's more actions", assignment, `{"terms":{"actions":["list","headers"]}}`, false},
		{"another name and a group", workstation, `{"name":"Pune-07","groups":["night"]}`, false},
		{"another site", workstation, `{"site":"Goa"}`, true},
		{"no site", workstation, `{"site":""}`, false},
	} {
		s := c.open(&a, &p)
		ended := ok[httpapi.Ended](c, "PATCH", step.path, step.body)
		if len(ended.OpenSessions) > 0 || step.ends != slices.Equal(ended.EndedSessions, []broker.ID{s.ID}) || !step.ends && len(ended.EndedSessions) > 0 {
			t.Errorf("%s: %+v, want %s ended: %v", step.name, ended, s.ID, step.ends)
		}
		live := c.world.Sessions.Live()
		if (len(live) == 0) != step.ends {
			t.Errorf("%s: %d live sessions", step.name, len(live))
		}
		if !step.ends {
			ok[httpapi.Ended](c, "POST", "/v1/sessions/"+string(s.ID)+"/end", "")
		}
	}
}

func TestUpdatedSessionsThatOutliveTheChangeAreTold(t *testing.T) {
	c := start(t)
	d, a, p := c.fill()
	s := c.open(&a, &p)
	c.world.Sessions.IgnoreChanges()
	ended := ok[httpapi.Ended](c, "PATCH", "/v1/delegations/"+string(d.ID), `{"terms":{"actions":["list"]}}`)
	if !slices.Equal(ended.OpenSessions, []broker.ID{s.ID}) || len(ended.EndedSessions) > 0 {
		t.Errorf("ended %+v", ended)
	}
}

// TestUpdateKeepsWhatItDoesNotName, and null takes away what it names.
func TestUpdateKeepsWhatItDoesNotName(t *testing.T) {
	c := start(t)
	d, _, _ := c.fill()
	path := "/v1/delegations/" + string(d.ID)
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	begin := end.Add(-2 * time.Hour)
	site := ok[broker.Site](c, "GET", "/v1/sites/pune", "")
	full := policy.Terms{Actions: policy.List | policy.Read, NotBefore: begin, NotAfter: end, Sites: []string{string(site.ID)}, HardwareKey: true}
	update := func(body string) policy.Terms {
		t.Helper()
		return ok[httpapi.DelegationUpdated](c, "PATCH", path, body).Delegation.Terms
	}
	same := func(got policy.Terms) {
		t.Helper()
		a, b := full, got
		if a.Actions != b.Actions || !a.NotBefore.Equal(b.NotBefore) || !a.NotAfter.Equal(b.NotAfter) || !slices.Equal(a.Sites, b.Sites) || a.HardwareKey != b.HardwareKey {
			t.Errorf("terms %+v, want %+v", got, full)
		}
	}
	same(update(`{"terms":{"actions":["list","read"],"not_before":"` + begin.Format(time.RFC3339) + `","not_after":"` + end.Format(time.RFC3339) +
		`","sites":["Pune"],"hardware_key":true}}`))
	same(update(`{"terms":{}}`))
	full.Actions = policy.List
	same(update(`{"terms":{"actions":["list"]}}`))
	full.NotBefore = time.Time{}
	same(update(`{"terms":{"not_before":null}}`))
	full.NotAfter = time.Time{}
	same(update(`{"terms":{"not_after":null}}`))
	full.Sites = nil
	same(update(`{"terms":{"sites":[]}}`))
	full.HardwareKey = false
	same(update(`{"terms":{"hardware_key":false}}`))

	for where, body := range map[string]string{
		"#/terms":           `{}`,
		"#/terms/actions":   `{"terms":{"actions":[]}}`,
		"#/terms/actions/0": `{"terms":{"actions":["fly"]}}`,
		"#/terms/not_after": `{"terms":{"not_after":"2001-01-01T00:00:00Z"}}`,
		"#/terms/colour":    `{"terms":{"colour":"red"}}`,
	} {
		if p := c.refused("PATCH", path, body, 422, broker.Invalid); len(p.Errors) != 1 || p.Errors[0].Pointer != where {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if p := c.refused("PATCH", path, `{"terms":{"sites":["Goa"]}}`, 404, broker.NotFound); p.Errors[0].Pointer != "#/terms/sites/0" {
		t.Errorf("%+v", p)
	}
}

// TestDelegationByItsMailbox: wherever a delegation is named, its mailbox names
// it too, as long as there is no doubt.
func TestDelegationByItsMailbox(t *testing.T) {
	c := start(t)
	d, _, _ := c.fill()
	const path = "/v1/delegations/sales@acme.example"
	if got := ok[httpapi.Delegation](c, "GET", path, ""); got.ID != d.ID {
		t.Errorf("by address: %+v", got)
	}
	if got := ok[httpapi.Delegation](c, "GET", "/v1/delegations/"+string(d.MailboxID), ""); got.ID != d.ID {
		t.Errorf("by the mailbox's id: %+v", got)
	}
	second := ok[httpapi.Delegation](c, "POST", "/v1/delegations", `{"mailbox":"sales@acme.example"}`)
	c.refused("POST", path+"/revoke", "", 422, broker.Invalid)
	c.refused("PATCH", path, `{"terms":{}}`, 422, broker.Invalid)
	ok[httpapi.Ended](c, "POST", "/v1/delegations/"+string(second.ID)+"/revoke", "")
	if got := ok[httpapi.DelegationUpdated](c, "PATCH", path, `{"terms":{"actions":["read"]}}`); got.Delegation.ID != d.ID {
		t.Errorf("updated %+v", got)
	}
	ok[httpapi.Ended](c, "POST", path+"/revoke", "")
	c.refused("PATCH", path, `{"terms":{}}`, 404, broker.NotFound)
	c.refused("PATCH", "/v1/delegations/"+string(d.ID), `{"terms":{"actions":["list"]}}`, 409, broker.Conflict)
	c.refused("PATCH", "/v1/delegations/nobody@acme.example", `{"terms":{}}`, 404, broker.NotFound)
}

// TestAnExpiredDelegationIsProlongedByItsMailbox: that is when it is wanted.
func TestAnExpiredDelegationIsProlongedByItsMailbox(t *testing.T) {
	c := start(t)
	d, _, _ := c.fill()
	past := &broker.Delegation{ID: d.ID, Terms: policy.Terms{Actions: policy.All, NotAfter: time.Now().Add(-time.Hour)}}
	if err := c.world.Store.UpdateDelegation(t.Context(), broker.Actor{Kind: "admin"}, past); err != nil {
		t.Fatal(err)
	}
	// Changing something else neither complains of the end nor moves it.
	if got := ok[httpapi.DelegationUpdated](c, "PATCH", "/v1/delegations/sales@acme.example", `{"terms":{"actions":["list"]}}`); got.Delegation.State != httpapi.GrantExpired {
		t.Errorf("%+v", got.Delegation)
	}
	if got := ok[httpapi.DelegationUpdated](c, "PATCH", "/v1/delegations/sales@acme.example", `{"terms":{"not_after":null}}`); got.Delegation.State != httpapi.GrantActive {
		t.Errorf("%+v", got.Delegation)
	}
}

// TestNever5AssignmentsStayWithinTheirDelegation, whatever is changed in which
// order.
func TestNever5AssignmentsStayWithinTheirDelegation(t *testing.T) {
	c := start(t)
	d, a, _ := c.fill()
	delegation, assignment := "/v1/delegations/"+string(d.ID), "/v1/assignments/"+string(a.ID)
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	ok[httpapi.DelegationUpdated](c, "PATCH", delegation, `{"terms":{"actions":["list","headers","read"],"not_after":"`+end.Format(time.RFC3339)+`","hardware_key":true}}`)
	if p := c.refused("PATCH", assignment, `{"terms":{"actions":["send"]}}`, 422, broker.Invalid); p.Errors[0].Pointer != "#/terms/actions" {
		t.Errorf("%+v", p)
	}
	c.refused("PATCH", assignment, `{"terms":{"not_after":"2199-01-01T00:00:00Z"}}`, 422, broker.Invalid)
	// What it names is changed; what was wider than the delegation is cut.
	got := ok[httpapi.AssignmentUpdated](c, "PATCH", assignment, `{"terms":{"actions":["list","read"],"hardware_key":false,"not_before":null}}`).Assignment.Terms
	if got.Actions != policy.List|policy.Read || !got.NotAfter.Equal(end) || !got.HardwareKey {
		t.Errorf("terms %+v", got)
	}
	// null stands for the delegation's end.
	sooner := end.Add(-time.Minute).Format(time.RFC3339)
	ok[httpapi.AssignmentUpdated](c, "PATCH", assignment, `{"terms":{"not_after":"`+sooner+`"}}`)
	if got := ok[httpapi.AssignmentUpdated](c, "PATCH", assignment, `{"terms":{"not_after":null}}`).Assignment.Terms; !got.NotAfter.Equal(end) {
		t.Errorf("terms %+v", got)
	}
	ok[httpapi.Ended](c, "POST", assignment+"/revoke", "")
	c.refused("PATCH", assignment, `{"terms":{"actions":["list"]}}`, 409, broker.Conflict)
}

func TestAgentKeepsItsName(t *testing.T) {
	c := start(t)
	c.fill()
	if g := ok[broker.Agent](c, "PATCH", "/v1/agents/ASHA", `{"full_name":"Asha Rao"}`); g.Name != "asha" || g.FullName != "Asha Rao" {
		t.Errorf("%+v", g)
	}
	if g := ok[broker.Agent](c, "PATCH", "/v1/agents/asha", `{}`); g.FullName != "Asha Rao" {
		t.Errorf("%+v", g)
	}
	c.refused("PATCH", "/v1/agents/asha", `{"name":"ravi"}`, 422, broker.Invalid)
	c.refused("PATCH", "/v1/agents/ravi", `{}`, 404, broker.NotFound)
}

// request makes a CSR for a key, as a JSON string.
func request(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestRenewalOfWorkstations(t *testing.T) {
	c := start(t)
	_, a, p := c.fill()
	const path = "/v1/workstations/pune-07/renew"
	first, second := request(t, newKey(t)), request(t, newKey(t))

	// A new key takes the place of the old one, whose sessions end.
	s := c.open(&a, &p)
	renewed := ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+first+`}`)
	pins := renewed.Workstation.KeyPins
	if len(pins) != 1 || pins[0] == pin('a') || !slices.Equal(renewed.EndedSessions, []broker.ID{s.ID}) || renewed.Certificate == "" || renewed.CA == "" {
		t.Fatalf("renewed with a new key: %+v", renewed)
	}
	// The same key gets a certificate, and nothing else changes.
	s = c.open(&a, &p)
	again := ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+first+`}`)
	if !slices.Equal(again.Workstation.KeyPins, pins) || len(again.EndedSessions) > 0 || again.Certificate == "" || again.Certificate == renewed.Certificate {
		t.Errorf("renewed with the same key: %+v", again)
	}
	// A second key can stand beside the first for a while.
	both := ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+second+`,"replace":false}`)
	if len(both.Workstation.KeyPins) != 2 || both.Workstation.KeyPins[0] != pins[0] || len(both.EndedSessions) > 0 {
		t.Errorf("a second key: %+v", both)
	}
	if again = ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+second+`}`); len(again.Workstation.KeyPins) != 2 {
		t.Errorf("renewing one of two keys removed the other: %+v", again)
	}
	// Until the first is removed in so many words.
	text, err := json.Marshal(both.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	last := ok[httpapi.WorkstationRenewed](c, "POST", path, `{"certificate":`+string(text)+`,"replace":true}`)
	if len(last.Workstation.KeyPins) != 1 || last.Workstation.KeyPins[0] == pins[0] || !slices.Equal(last.EndedSessions, []broker.ID{s.ID}) || last.Certificate != "" {
		t.Errorf("the second key alone: %+v", last)
	}

	c.refused("POST", path, `{}`, 422, broker.Invalid)
	c.refused("POST", path, `{"csr":"x","certificate":"y"}`, 422, broker.Invalid)
	c.refused("POST", path, `{"key_pins":["`+pin('b')+`"]}`, 422, broker.Invalid)
	c.refused("POST", "/v1/workstations/pune-99/renew", `{"csr":`+first+`}`, 404, broker.NotFound)
	// Another workstation's key would make two of one.
	ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"pune-08","class":"software","csr":`+first+`}`)
	c.refused("POST", path, `{"csr":`+first+`}`, 409, broker.Conflict)
}

// TestRenewalKeepsTheClass: a key in a file must not pass for one in hardware
// because the workstation had one.
func TestRenewalKeepsTheClass(t *testing.T) {
	c := start(t)
	hardware, next := request(t, newKey(t)), request(t, newKey(t))
	ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"tpm","class":"hardware","csr":`+hardware+`}`)
	const path = "/v1/workstations/tpm/renew"
	ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+hardware+`}`)
	for _, class := range []string{``, `,"class":"software"`, `,"class":"software","replace":true`, `,"replace":false`} {
		if p := c.refused("POST", path, `{"csr":`+next+class+`}`, 422, broker.Invalid); p.Errors[0].Pointer != "#/class" {
			t.Errorf("%s: %+v", class, p)
		}
	}
	c.refused("POST", path, `{"csr":`+hardware+`,"class":"software"}`, 422, broker.Invalid)
	if w := ok[httpapi.WorkstationRenewed](c, "POST", path, `{"csr":`+next+`,"class":"hardware"}`).Workstation; w.Class != broker.ClassHardware || len(w.KeyPins) != 1 {
		t.Errorf("%+v", w)
	}
}
