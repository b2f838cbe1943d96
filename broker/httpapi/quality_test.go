// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// with makes a request with one more header.
func (c *client) with(name, value, method, path, body string) (int, http.Header, []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://postern"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set(name, value)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// TestLostRaces: who changes what has changed since he read it is told what it
// is now, and changes nothing.
func TestLostRaces(t *testing.T) {
	c := start(t)
	d, a, _ := c.fill()
	for path, change := range map[string][2]string{
		"/v1/firms/Acme%20Pumps":           {`{"contact":"one"}`, `{"contact":"two"}`},
		"/v1/mailboxes/sales@acme.example": {`{"aliases":["a@acme.example"]}`, `{"aliases":["b@acme.example"]}`},
		"/v1/agents/asha":                  {`{"full_name":"One"}`, `{"full_name":"Two"}`},
		"/v1/sites/Pune":                   {`{"network_only":true}`, `{"network_only":false}`},
		"/v1/workstations/pune-07":         {`{"groups":["one"]}`, `{"groups":["two"]}`},
		"/v1/delegations/" + string(d.ID):  {`{"terms":{"max_agents":7}}`, `{"terms":{"max_agents":8}}`},
		"/v1/assignments/" + string(a.ID):  {`{"terms":{"actions":["list","read"]}}`, `{"terms":{"actions":["list"]}}`},
	} {
		_, header, _ := c.do("GET", path, "")
		old := header.Get("ETag")
		if len(old) != 34 || old[0] != '"' {
			t.Errorf("GET %s: ETag %q", path, old)
			continue
		}
		status, header, answer := c.with("If-Match", old, "PATCH", path, change[0])
		if status != http.StatusOK || header.Get("ETag") == old {
			t.Errorf("PATCH %s of what was read: %d %s", path, status, answer)
		}
		_, header, now := c.do("GET", path, "")
		status, _, answer = c.with("If-Match", `"x", `+old, "PATCH", path, change[1])
		var p struct{ Current json.RawMessage }
		if err := json.Unmarshal(answer, &p); err != nil || status != http.StatusPreconditionFailed || !strings.Contains(string(answer), `"code":"conflict"`) {
			t.Errorf("PATCH %s of what has changed: %d %s", path, status, answer)
		}
		if !bytes.Equal(bytes.TrimSpace(p.Current), bytes.TrimSpace(now)) {
			t.Errorf("current of %s: %s\na GET: %s", path, p.Current, now)
		}
		if _, again, _ := c.do("GET", path, ""); again.Get("ETag") != header.Get("ETag") {
			t.Errorf("%s was changed all the same", path)
		}
		if status, _, answer := c.with("If-Match", "W/"+header.Get("ETag"), "PATCH", path, change[1]); status != http.StatusPreconditionFailed {
			t.Errorf("a weak tag: %d %s", status, answer)
		}
		if status, _, answer := c.with("If-Match", "*", "PATCH", path, change[1]); status != http.StatusOK {
			t.Errorf("any state: %d %s", status, answer)
		}
	}
}

// TestLostRacesAgainstAnEnd: what takes something away can be bound to the
// state that was read as well, and what cannot says so.
func TestLostRacesAgainstAnEnd(t *testing.T) {
	c := start(t)
	d, a, p := c.fill()
	ok[httpapi.Mailbox](c, "POST", "/v1/mailboxes", strings.Replace(acme, "sales@", "spare@", 1))
	ok[broker.Site](c, "POST", "/v1/sites", `{"name":"Goa","networks":["198.51.100.0/24"]}`)
	ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"goa-01","class":"software","key_pins":["`+pin('b')+`"]}`)
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"ravi"}`)
	ends := []struct{ thing, method, path string }{
		{"/v1/mailboxes/spare@acme.example", "DELETE", "/v1/mailboxes/spare@acme.example"},
		{"/v1/sites/Goa", "DELETE", "/v1/sites/Goa"},
		{"/v1/workstations/goa-01", "DELETE", "/v1/workstations/goa-01"},
		{"/v1/agents/ravi", "DELETE", "/v1/agents/ravi"},
		{"/v1/app-passwords/" + string(p.AppPassword.ID), "POST", "/v1/app-passwords/" + string(p.AppPassword.ID) + "/revoke"},
		{"/v1/assignments/" + string(a.ID), "POST", "/v1/assignments/" + string(a.ID) + "/approve"},
		{"/v1/assignments/" + string(a.ID), "POST", "/v1/assignments/" + string(a.ID) + "/revoke"},
		{"/v1/delegations/" + string(d.ID), "POST", "/v1/delegations/" + string(d.ID) + "/revoke"},
		{"/v1/workstations/pune-07", "POST", "/v1/workstations/pune-07/off-board"},
		{"/v1/agents/asha", "POST", "/v1/agents/asha/off-board"},
	}
	for _, end := range ends {
		_, header, now := c.do("GET", end.thing, "")
		body := ""
		if strings.HasSuffix(end.path, "off-board") {
			body = "{}"
		}
		status, _, answer := c.with("If-Match", `"00000000000000000000000000000000"`, end.method, end.path, body)
		var problem struct{ Current json.RawMessage }
		if err := json.Unmarshal(answer, &problem); err != nil || status != http.StatusPreconditionFailed ||
			!bytes.Equal(bytes.TrimSpace(problem.Current), bytes.TrimSpace(now)) {
			t.Errorf("%s %s of another state: %d %s\na GET: %s", end.method, end.path, status, answer, now)
		}
		if _, again, _ := c.do("GET", end.thing, ""); again.Get("ETag") != header.Get("ETag") || header.Get("ETag") == "" {
			t.Errorf("%s %s was done all the same", end.method, end.path)
		}
		if status, _, answer := c.with("If-Match", header.Get("ETag"), end.method, end.path, body); status != http.StatusOK {
			t.Errorf("%s %s of what was read: %d %s", end.method, end.path, status, answer)
		}
	}
	lock := ok[httpapi.LockAdded](c, "POST", "/v1/locks", `{"target":"mailbox","name":"sales@acme.example"}`)
	path := "/v1/locks/" + string(lock.Lock.ID)
	if status, _, answer := c.with("If-Match", `"x"`, "DELETE", path, ""); status != http.StatusUnprocessableEntity {
		t.Errorf("If-Match where nothing is compared: %d %s", status, answer)
	}
	ok[httpapi.Lock](c, "DELETE", path, "")
}

// TestStoreHoldsExpectedState: the state is compared in the transaction of the
// change, where nobody comes between.
func TestStoreHoldsExpectedState(t *testing.T) {
	c := start(t)
	c.fill()
	g, err := c.world.Store.AgentByName(t.Context(), "asha")
	if err != nil {
		t.Fatal(err)
	}
	old := broker.WithExpected(t.Context(), broker.Expected{ID: g.ID, Tag: broker.TagOf(g)})
	by := broker.Actor{Kind: "admin"}
	g.FullName = "One"
	if err := c.world.Store.UpdateAgent(old, by, g); err != nil {
		t.Fatal(err)
	}
	g.FullName = "Two"
	if err := c.world.Store.UpdateAgent(old, by, g); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("a change that lost the race: %v", err)
	}
	if now, err := c.world.Store.Agent(t.Context(), g.ID); err != nil || now.FullName != "One" {
		t.Errorf("agent %+v: %v", now, err)
	}
}

// TestRepeatedRequests: a key has its request done once.
func TestRepeatedRequests(t *testing.T) {
	c := start(t)
	const key = "Idempotency-Key"
	status, _, first := c.with(key, "k1", "POST", "/v1/agents", `{"name":"asha"}`)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, first)
	}
	status, header, again := c.with(key, "k1", "POST", "/v1/agents", `{"name":"asha"}`)
	if status != http.StatusOK || !bytes.Equal(first, again) || header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("repeated: %d %s", status, again)
	}
	if agents := ok[httpapi.List[broker.Agent]](c, "GET", "/v1/agents", ""); len(agents.Items) != 1 {
		t.Errorf("%d agents", len(agents.Items))
	}
	if status, _, answer := c.with(key, "k1", "POST", "/v1/agents", `{"name":"ravi"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("the key for another request: %d %s", status, answer)
	}
	if status, _, answer := c.with(key, "k1", "POST", "/v1/sites", `{"name":"asha"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("the key at another path: %d %s", status, answer)
	}
	// What was refused for its input was not done: it can be sent again.
	if status, _, answer := c.with(key, "k2", "POST", "/v1/app-passwords", `{"agent":"ravi"}`); status != http.StatusNotFound {
		t.Fatalf("%d %s", status, answer)
	}
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"ravi"}`)
	status, _, secret := c.with(key, "k2", "POST", "/v1/app-passwords", `{"agent":"ravi"}`)
	if status != http.StatusOK || !strings.Contains(string(secret), `"token"`) {
		t.Fatalf("%d %s", status, secret)
	}
	// A secret is shown once, and not kept for a repetition.
	status, _, answer := c.with(key, "k2", "POST", "/v1/app-passwords", `{"agent":"ravi"}`)
	if status != http.StatusConflict || strings.Contains(string(answer), `"token"`) {
		t.Errorf("a secret repeated: %d %s", status, answer)
	}
	if status, _, answer := c.with(key, strings.Repeat("k", 300), "POST", "/v1/agents", `{"name":"x"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a key too long: %d %s", status, answer)
	}
	// Another's key of the same name is another.
	admin := ok[httpapi.PersonCreated](c, "POST", "/v1/people", `{"name":"boss","role":"admin","token":{}}`).Token.Token
	c.http.Transport = withBearer{c.http.Transport, admin}
	if status, header, answer := c.with(key, "k1", "POST", "/v1/agents", `{"name":"asha"}`); status != http.StatusConflict || header.Get("Idempotent-Replayed") != "" {
		t.Errorf("another's key: %d %s", status, answer)
	}
}

type withBearer struct {
	http.RoundTripper
	token string
}

func (w withBearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+w.token)
	return w.RoundTripper.RoundTrip(r)
}
