// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/policy"
)

func TestThingsAreMadeListedAndNamed(t *testing.T) {
	c := start(t)
	d, a, p := c.fill()

	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/SALES@acme.example", "")
	if m.IMAP.Port != 993 || m.IMAP.TLS != broker.TLSImplicit || m.Submission.Port != 587 || m.Firm != "Acme Pumps" || m.Credential.State != "none" {
		t.Errorf("mailbox %+v", m)
	}
	if byID := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/"+string(m.ID), ""); byID.Address != m.Address {
		t.Errorf("by id: %+v", byID)
	}
	if f := ok[broker.Firm](c, "GET", "/v1/firms/acme%20pumps", ""); f.ID != m.FirmID {
		t.Errorf("firm %+v", f)
	}
	if d.Terms.Actions != policy.All || d.State != httpapi.GrantActive || d.Mailbox != m.Address {
		t.Errorf("delegation %+v", d)
	}
	if a.DelegationID != d.ID || a.Agent != "asha" || a.Terms.Actions != policy.All {
		t.Errorf("assignment %+v", a)
	}
	if p.Token == "" || p.AppPassword.Agent != "asha" {
		t.Errorf("app password %+v", p)
	}
	for path, want := range map[string]string{
		"/v1/firms": "Acme Pumps", "/v1/mailboxes": "sales@acme.example", "/v1/mailboxes?firm=Acme+Pumps": "sales@acme.example",
		"/v1/agents": "asha", "/v1/sites": "192.0.2.0/24", "/v1/workstations": "pune-07", "/v1/delegations": string(d.ID),
		"/v1/assignments": string(a.ID), "/v1/app-passwords?agent=asha": string(p.AppPassword.ID),
	} {
		if status, _, answer := c.do("GET", path, ""); status != 200 || strings.Count(string(answer), want) == 0 {
			t.Errorf("GET %s: %d %s", path, status, answer)
		}
	}
	for _, path := range []string{
		"/v1/agents/asha", "/v1/sites/pune", "/v1/delegations/" + string(d.ID),
		"/v1/assignments/" + string(a.ID), "/v1/app-passwords/" + string(p.AppPassword.ID),
	} {
		ok[json.RawMessage](c, "GET", path, "")
	}
	if _, _, answer := c.do("GET", "/v1/locks", ""); string(answer) != `{"items":[]}`+"\n" {
		t.Errorf("an empty list is %s", answer)
	}
}

func TestNamesThatNeedEscapes(t *testing.T) {
	c := start(t)
	for _, name := range []string{"Acme/Pumps & Söhne", "a%2Fb", "100%", "what?", "..", "."} {
		body, err := json.Marshal(httpapi.FirmInput{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		made := ok[broker.Firm](c, "POST", "/v1/firms", string(body))
		if name == "." || name == ".." {
			continue // net/http cleans such paths; the id names these firms
		}
		if got := ok[broker.Firm](c, "GET", "/v1/firms/"+url.PathEscape(name), ""); got.ID != made.ID {
			t.Errorf("%q: %+v", name, got)
		}
	}
}

func TestProblems(t *testing.T) {
	c := start(t)
	c.fill()
	id := string(broker.NewID())
	tests := []struct {
		name, method, path, body string
		status                   int
		code                     broker.Code
		where                    string
	}{
		{"unknown path", "GET", "/v1/nothing", "", 404, broker.NotFound, ""},
		{"unknown method", "PUT", "/v1/firms", "", 405, broker.Invalid, ""},
		{"unknown query", "GET", "/v1/firms?x=1", "", 422, broker.Invalid, "x"},
		{"no body", "POST", "/v1/firms", "", 400, broker.Invalid, ""},
		{"no JSON", "POST", "/v1/firms", "hello", 400, broker.Invalid, "#"},
		{"not an object", "POST", "/v1/firms", `[1]`, 422, broker.Invalid, "#"},
		{"missing member", "POST", "/v1/firms", `{}`, 422, broker.Invalid, "#/name"},
		{"unknown member", "POST", "/v1/firms", `{"name":"x","colour":"red"}`, 422, broker.Invalid, "#/colour"},
		{"wrong type", "POST", "/v1/firms", `{"name":7}`, 422, broker.Invalid, "#/name"},
		{"taken", "POST", "/v1/firms", `{"name":"ACME pumps"}`, 409, broker.Conflict, ""},
		{"unknown firm", "POST", "/v1/mailboxes", strings.Replace(acme, "Acme Pumps", "Nobody", 1), 404, broker.NotFound, "#/firm"},
		{"bad host", "POST", "/v1/mailboxes", strings.Replace(acme, "imap.acme.example", "a b", 1), 422, broker.Invalid, "#/imap/host"},
		{"no host", "POST", "/v1/mailboxes", strings.Replace(acme, `"host":"imap.acme.example"`, "", 1), 422, broker.Invalid, "#/imap/host"},
		{"bad port", "POST", "/v1/mailboxes", strings.Replace(acme, `"host":"imap.acme.example"`, `"host":"x.example","port":70000`, 1), 422, broker.Invalid, "#/imap/port"},
		{"bad CA", "POST", "/v1/mailboxes", strings.Replace(acme, `"host":"imap.acme.example"`, `"host":"x.example","ca":"nonsense"`, 1), 422, broker.Invalid, "#/imap/ca"},
		{"no such mailbox", "GET", "/v1/mailboxes/nobody@acme.example", "", 404, broker.NotFound, ""},
		{"no such id", "GET", "/v1/agents/" + id, "", 404, broker.NotFound, ""},
		{"no id", "GET", "/v1/delegations/x", "", 404, broker.NotFound, ""},
		{"needed", "DELETE", "/v1/mailboxes/sales@acme.example", "", 409, broker.Conflict, ""},
		{"bad network", "POST", "/v1/sites", `{"name":"s","networks":["192.0.2.0/24","192.0.2.7/24"]}`, 422, broker.Invalid, "#/networks/1"},
		{"bad action", "POST", "/v1/delegations", `{"mailbox":"sales@acme.example","terms":{"actions":["read","fly"]}}`, 422, broker.Invalid, "#/terms/actions/1"},
		{"past end", "POST", "/v1/delegations", `{"mailbox":"sales@acme.example","terms":{"not_after":"2001-01-01T00:00:00Z"}}`, 422, broker.Invalid, "#/terms/not_after"},
		{"unknown site", "POST", "/v1/delegations", `{"mailbox":"sales@acme.example","terms":{"sites":["Pune","Goa"]}}`, 404, broker.NotFound, "#/terms/sites/1"},
		{"no key", "POST", "/v1/workstations", `{"name":"w","class":"software"}`, 422, broker.Invalid, "#/csr"},
		{"two keys", "POST", "/v1/workstations", `{"name":"w","class":"software","csr":"x","certificate":"y"}`, 422, broker.Invalid, "#/csr"},
		{"no CSR", "POST", "/v1/workstations", `{"name":"w","class":"software","csr":"x"}`, 422, broker.Invalid, "#/csr"},
		{"no certificate", "POST", "/v1/workstations", `{"name":"w","class":"software","certificate":"x"}`, 422, broker.Invalid, "#/certificate"},
		{"bad pin", "POST", "/v1/workstations", `{"name":"w","class":"software","key_pins":["x"]}`, 422, broker.Invalid, "#/key_pins"},
		{"bad class", "POST", "/v1/workstations", `{"name":"w","class":"paper","key_pins":["` + pin('b') + `"]}`, 422, broker.Invalid, "#/class"},
		{"both names", "POST", "/v1/assignments", `{"agent":"asha"}`, 422, broker.Invalid, "#/delegation"},
		{"lock what", "POST", "/v1/locks", `{"target":"moon","name":"x"}`, 422, broker.Invalid, "#/target"},
		{"lock whom", "POST", "/v1/locks", `{"target":"agent","name":"x"}`, 404, broker.NotFound, "#/name"},
		{"no such lock", "DELETE", "/v1/locks/" + id, "", 404, broker.NotFound, ""},
		{"no such session", "POST", "/v1/sessions/" + id + "/end", "", 404, broker.NotFound, ""},
		{"no such event type", "GET", "/v1/events?type=x.y", "", 422, broker.Invalid, "type"},
		{"limit", "GET", "/v1/events?limit=100000", "", 422, broker.Invalid, "limit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &client{t: t, world: c.world, http: c.http}
			p := c.refused(test.method, test.path, test.body, test.status, test.code)
			where := ""
			if len(p.Errors) > 0 {
				where = p.Errors[0].Pointer + p.Errors[0].Parameter
			}
			if where != test.where {
				t.Errorf("fault at %q, want %q: %+v", where, test.where, p)
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	c := start(t)
	body := `{"name":"` + strings.Repeat("x", httpapi.MaxBodyBytes) + `"}`
	c.refused("POST", "/v1/firms", body, http.StatusRequestEntityTooLarge, broker.Invalid)
	c.refused("PUT", "/v1/mailboxes/x/credential", body, http.StatusRequestEntityTooLarge, broker.Invalid)
}

func TestInternalErrorsTellNothing(t *testing.T) {
	c := start(t)
	c.fill()
	c.world.Credentials.Fail(broker.Errorf(broker.Unavailable, "the credential storage is sealed").WithCause(errMarked))
	p := c.refused("PUT", "/v1/mailboxes/sales@acme.example/credential", `{"kind":"password","secret":"x"}`, 503, broker.Unavailable)
	if p.Detail != "the credential storage is sealed" {
		t.Errorf("detail %q", p.Detail)
	}
	c.world.Credentials.Fail(errMarked)
	p = c.refused("PUT", "/v1/mailboxes/sales@acme.example/credential", `{"kind":"password","secret":"x"}`, 500, broker.Internal)
	if p.Detail != "internal error" || len(p.Errors) > 0 {
		t.Errorf("problem %+v", p)
	}
	if !strings.Contains(c.world.Log.String(), errMarked.Error()) {
		t.Error("the cause is not in the log")
	}
	if m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", ""); m.Credential.State != "unavailable" {
		t.Errorf("credential %+v", m.Credential)
	}
}

func TestAssignmentTakesWhatItLeavesOutFromTheDelegation(t *testing.T) {
	c := start(t)
	c.fill()
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	d := ok[httpapi.Delegation](c, "POST", "/v1/delegations", `{"mailbox":"sales@acme.example","terms":{"actions":["list","headers"],"not_after":"`+
		end.Format(time.RFC3339)+`","sites":["Pune"],"hardware_key":true}}`)
	c.refused("POST", "/v1/assignments", `{"agent":"asha","mailbox":"sales@acme.example"}`, 422, broker.Invalid) // two delegations
	c.refused("POST", "/v1/assignments", `{"agent":"asha","delegation":"`+string(d.ID)+`","terms":{"actions":["read"]}}`, 422, broker.Invalid)
	a := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"asha","delegation":"`+string(d.ID)+`","terms":{"actions":["list"]}}`)
	if a.Terms.Actions != policy.List || !a.Terms.NotAfter.Equal(end) || !slices.Equal(a.Terms.Sites, d.Terms.Sites) || !a.Terms.HardwareKey {
		t.Errorf("terms %+v", a.Terms)
	}
}

func TestWorkstationKeys(t *testing.T) {
	c := start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	made := ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"w1","class":"hardware","csr":`+string(csr)+`}`)
	block, _ := pem.Decode([]byte(made.Certificate))
	if block == nil {
		t.Fatalf("certificate %q", made.Certificate)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(made.CA)) {
		t.Fatalf("CA %q", made.CA)
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if want := broker.KeyPin(certificate); !slices.Equal(made.Workstation.KeyPins, []string{want}) {
		t.Errorf("pins %v, want %s", made.Workstation.KeyPins, want)
	}
	// The same key on a second workstation would make two of one.
	text, err := json.Marshal(made.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	c.refused("POST", "/v1/workstations", `{"name":"w2","class":"software","certificate":`+string(text)+`}`, 409, broker.Conflict)
	ok[httpapi.Ended](c, "DELETE", "/v1/workstations/w1", "")
	again := ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"w2","class":"software","certificate":`+string(text)+`}`)
	if !slices.Equal(again.Workstation.KeyPins, made.Workstation.KeyPins) || again.Certificate != "" {
		t.Errorf("from a certificate: %+v", again)
	}
}

func TestWhatEndsSessionsSaysSo(t *testing.T) {
	tests := map[string]func(d, a, p, session broker.ID) (method, path, body string){
		"delegation": func(d, _, _, _ broker.ID) (string, string, string) {
			return "POST", "/v1/delegations/" + string(d) + "/revoke", ""
		},
		"assignment": func(_, a, _, _ broker.ID) (string, string, string) {
			return "POST", "/v1/assignments/" + string(a) + "/revoke", ""
		},
		"app password": func(_, _, p, _ broker.ID) (string, string, string) {
			return "POST", "/v1/app-passwords/" + string(p) + "/revoke", ""
		},
		"session": func(_, _, _, s broker.ID) (string, string, string) {
			return "POST", "/v1/sessions/" + string(s) + "/end", ""
		},
		"agent":       func(_, _, _, _ broker.ID) (string, string, string) { return "DELETE", "/v1/agents/asha", "" },
		"workstation": func(_, _, _, _ broker.ID) (string, string, string) { return "DELETE", "/v1/workstations/pune-07", "" },
	}
	for target, name := range map[string]string{
		"agent": "asha", "workstation": "pune-07", "mailbox": "sales@acme.example", "firm": "Acme Pumps", "site": "Pune",
	} {
		tests["lock on "+target] = func(_, _, _, _ broker.ID) (string, string, string) {
			return "POST", "/v1/locks", `{"target":"` + target + `","name":"` + name + `","message":"call 1234"}`
		}
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			c := start(t)
			d, a, p := c.fill()
			s := c.open(&a, &p)
			ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"other"}`)
			other := ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"other","mailbox":"sales@acme.example"}`)
			live := ok[httpapi.List[httpapi.Session]](c, "GET", "/v1/sessions", "")
			if len(live.Items) != 1 || live.Items[0].ID != s.ID || live.Items[0].Agent != "asha" || live.Items[0].Workstation != "pune-07" {
				t.Fatalf("live sessions %+v", live)
			}
			method, path, body := request(d.ID, a.ID, p.AppPassword.ID, s.ID)
			ended := ok[httpapi.Ended](c, method, path, body)
			if !slices.Equal(ended.EndedSessions, []broker.ID{s.ID}) || len(ended.OpenSessions) > 0 {
				t.Errorf("ended %+v, want %s", ended, s.ID)
			}
			if name == "assignment" {
				if got := ok[httpapi.Assignment](c, "GET", "/v1/assignments/"+string(other.ID), ""); got.State != httpapi.GrantActive {
					t.Errorf("another assignment is %s", got.State)
				}
			}
		})
	}
}

func TestSessionsThatOutliveARevokeAreTold(t *testing.T) {
	c := start(t)
	_, a, p := c.fill()
	s := c.open(&a, &p)
	c.world.Sessions.IgnoreChanges()
	ended := ok[httpapi.Ended](c, "POST", "/v1/assignments/"+string(a.ID)+"/revoke", "")
	if !slices.Equal(ended.OpenSessions, []broker.ID{s.ID}) || len(ended.EndedSessions) > 0 {
		t.Errorf("ended %+v", ended)
	}
}

func TestRevokedGrantsAreListedOnlyWhenAskedFor(t *testing.T) {
	c := start(t)
	d, _, p := c.fill()
	ok[httpapi.Ended](c, "POST", "/v1/delegations/"+string(d.ID)+"/revoke", "")
	ok[httpapi.Ended](c, "POST", "/v1/delegations/"+string(d.ID)+"/revoke", "")
	ok[httpapi.Ended](c, "POST", "/v1/app-passwords/"+string(p.AppPassword.ID)+"/revoke", "")
	for _, kind := range []string{"delegations", "assignments", "app-passwords"} {
		type grant struct {
			State httpapi.GrantState `json:"state"`
		}
		if now := ok[httpapi.List[grant]](c, "GET", "/v1/"+kind, ""); len(now.Items) != 0 {
			t.Errorf("%s: %+v", kind, now)
		}
		if all := ok[httpapi.List[grant]](c, "GET", "/v1/"+kind+"?all=true", ""); len(all.Items) != 1 || all.Items[0].State != httpapi.GrantRevoked {
			t.Errorf("all %s: %+v", kind, all)
		}
	}
}

func TestLocksAreListedAndRemoved(t *testing.T) {
	c := start(t)
	c.fill()
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	added := ok[httpapi.LockAdded](c, "POST", "/v1/locks", `{"target":"agent","name":"ASHA","message":"call 1234","until":"`+until.Format(time.RFC3339)+`"}`)
	locks := ok[httpapi.List[httpapi.Lock]](c, "GET", "/v1/locks", "")
	if len(locks.Items) != 1 || locks.Items[0].ID != added.Lock.ID || locks.Items[0].Name != "asha" || !locks.Items[0].Until.Equal(until) || locks.Items[0].Over {
		t.Errorf("locks %+v", locks)
	}
	c.refused("POST", "/v1/locks", `{"target":"agent","name":"asha","until":"2001-01-01T00:00:00Z"}`, 422, broker.Invalid)
	ok[httpapi.Lock](c, "DELETE", "/v1/locks/"+string(added.Lock.ID), "")
	c.refused("DELETE", "/v1/locks/"+string(added.Lock.ID), "", 404, broker.NotFound)
}

func TestSiteUpdate(t *testing.T) {
	c := start(t)
	c.fill()
	s := ok[broker.Site](c, "PATCH", "/v1/sites/Pune", `{"networks":["192.0.2.0/25","2001:db8::1"],"network_only":true}`)
	if len(s.Networks) != 2 || s.Networks[1].String() != "2001:db8::1/128" || !s.NetworkOnly || s.Name != "Pune" {
		t.Errorf("site %+v", s)
	}
	c.refused("DELETE", "/v1/sites/Pune", "", 409, broker.Conflict)
}

func TestEventsAreReadByLog(t *testing.T) {
	c := start(t)
	c.fill()
	page := ok[httpapi.LogPage](c, "GET", "/v1/events?firm=Acme+Pumps&limit=2", "")
	if len(page.Items) != 2 || page.Items[0].Seq != 0 || page.Next != 1 {
		t.Fatalf("page %+v", page)
	}
	var first broker.Event
	if err := json.Unmarshal(page.Items[0].Record, &first); err != nil {
		t.Fatal(err)
	}
	if first.Type != "firm.created" || first.Actor.Kind != "admin" || !strings.HasPrefix(first.Actor.Name, "unix:uid=") {
		t.Errorf("first event %+v", first)
	}
	rest := ok[httpapi.LogPage](c, "GET", "/v1/events?firm=Acme+Pumps&after=1", "")
	if len(rest.Items) == 0 || rest.Items[0].Seq != 2 {
		t.Errorf("rest %+v", rest)
	}
	own := ok[httpapi.LogPage](c, "GET", "/v1/events?type=agent.created", "")
	if len(own.Items) != 1 {
		t.Errorf("the BPO's own log: %+v", own)
	}
}

// TestRecordsAreExact: the octets of a record in an answer are those that its
// leaf hash covers.
func TestRecordsAreExact(t *testing.T) {
	c := start(t)
	ok[broker.Firm](c, "POST", "/v1/firms", `{"name":"Acme <Pumps> & Söhne"}`)
	f := ok[broker.Firm](c, "GET", "/v1/firms/Acme%20%3CPumps%3E%20&%20S%C3%B6hne", "")
	page := ok[httpapi.LogPage](c, "GET", "/v1/events?firm="+string(f.ID), "")
	stored, err := c.world.Store.Events(t.Context(), broker.EventQuery{FirmID: f.ID, After: -1})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Items) == 0 || string(page.Items[0].Record) != string(stored[0].Record) {
		t.Errorf("served %s\nstored %s", page.Items[0].Record, stored[0].Record)
	}
}

func TestNobodyWithoutAToken(t *testing.T) {
	c := start(t)
	for _, path := range []string{"/v1/firms", "/v1/openapi.json", "/nothing"} {
		answer := httptest.NewRecorder()
		c.world.Handler.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		if answer.Code != http.StatusUnauthorized || !strings.Contains(answer.Body.String(), `"code":"denied"`) {
			t.Errorf("GET %s without a token: %d %s", path, answer.Code, answer.Body)
		}
	}
}
