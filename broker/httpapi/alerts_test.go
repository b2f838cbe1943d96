// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// append writes events as the server's parts do.
func (c *client) append(events ...*broker.Event) {
	c.t.Helper()
	if err := c.world.Store.AppendEvents(c.t.Context(), events); err != nil {
		c.t.Fatal(err)
	}
}

func drift(firm, mailbox, agent string) *broker.Event {
	return &broker.Event{
		Type: broker.EventDrift, FirmID: broker.ID(firm), MailboxID: broker.ID(mailbox), AgentID: broker.ID(agent),
		Actor: broker.Actor{Kind: "system", Name: "node"}, Data: broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "NO no"},
	}
}

// TestAlerts: who sees which, narrowed in each way, and what stands in them.
func TestAlerts(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	own, theirs := firms.own, firms.theirs
	since := time.Now().Add(time.Hour) // of what is written with a later time
	late := drift(own["firm"], own["mailbox"], own["agent"])
	late.Time = since
	c.append(
		late, drift(theirs["firm"], theirs["mailbox"], theirs["agent"]),
		&broker.Event{Type: broker.EventStateRestored, Actor: broker.Actor{Kind: "admin"}, Data: broker.StateRestored{}},
	)
	list := func(token, query string) []httpapi.Alert {
		t.Helper()
		return okAs[httpapi.List[httpapi.Alert]](c, token, "GET", "/v1/alerts"+query, "").Items
	}
	at := url.QueryEscape(since.Add(-time.Minute).Format(time.RFC3339))
	// Each firm has one of its rotation that was cancelled as well.
	for query, want := range map[string]int{
		"": 5, "?firm=Zebra": 2, "?own=true": 1, "?severity=critical": 3, "?severity=info": 5, "?kind=drift": 2, "?kind=drift&firm=Zebra": 1,
		"?mailbox=sales@acme.example": 2, "?agent=zoe": 1, "?since=" + at: 1, "?state=open,acknowledged": 5, "?state=resolved": 0,
	} {
		for _, role := range []string{"admin", "auditor"} {
			if got := list(firms.tokens[role], query); len(got) != want {
				t.Errorf("%s sees %d by %q, want %d: %+v", role, len(got), query, want, got)
			}
		}
	}
	for query, want := range map[string]int{"": 2, "?kind=drift": 1, "?firm=" + own["firm"]: 2, "?agent=asha": 1, "?page_size=1": 1} {
		for _, role := range []string{"firm-admin", "firm-auditor"} {
			if got := list(firms.tokens[role], query); len(got) != want {
				t.Errorf("%s sees %d by %q, want %d: %+v", role, len(got), query, want, got)
			}
		}
	}
	for _, query := range []string{"?kind=nonsense", "?severity=grave", "?state=shut", "?own=true&firm=Zebra", "?since=yesterday"} {
		c.refused("GET", "/v1/alerts"+query, "", http.StatusUnprocessableEntity, broker.Invalid)
	}
	if status, _, answer := c.as(firms.tokens["firm-admin"], "GET", "/v1/alerts?own=true", ""); status != http.StatusUnprocessableEntity {
		t.Errorf("a firm asks for the BPO's own: %d %s", status, answer)
	}
	x := list(firms.tokens["firm-admin"], "?kind=drift")[0]
	if x.Mailbox != "sales@acme.example" || x.Agent != "asha" || x.Firm != "Acme Pumps" || x.Detail != "NO no" || x.Meaning == "" || x.Action == "" || x.Ends == "" {
		t.Errorf("the alert: %+v", x)
	}
	counts := okAs[httpapi.List[httpapi.AlertCount]](c, firms.tokens["firm-auditor"], "GET", "/v1/alert-counts", "").Items
	want := []httpapi.AlertCount{{Severity: "critical", Open: 1}, {Severity: "warning", Open: 1}, {Severity: "info"}}
	for i := range want {
		if len(counts) != len(want) || counts[i] != want[i] {
			t.Fatalf("the firm's counts: %+v", counts)
		}
	}
	counts = ok[httpapi.List[httpapi.AlertCount]](c, "GET", "/v1/alert-counts", "").Items
	if counts[0].Open != 3 || counts[1].Open != 2 {
		t.Errorf("counts of all: %+v", counts)
	}
}

// TestAlertAnswers: who answers which, and what was read before it changed.
func TestAlertAnswers(t *testing.T) {
	c := start(t)
	firms := c.twoFirms()
	own := firms.own
	restored := &broker.Event{Type: broker.EventStateRestored, Actor: broker.Actor{Kind: "admin"}, Data: broker.StateRestored{}}
	c.append(restored, drift(own["firm"], own["mailbox"], own["agent"]))
	bpos := ok[httpapi.List[httpapi.Alert]](c, "GET", "/v1/alerts?own=true", "").Items[0]
	for role, status := range map[string]int{"auditor": 403, "firm-auditor": 403, "firm-admin": 404} {
		if got, _, answer := c.as(firms.tokens[role], "POST", "/v1/alerts/"+string(bpos.ID)+"/acknowledge", ""); got != status {
			t.Errorf("%s answers the BPO's alert: %d %s", role, got, answer)
		}
	}
	answered := okAs[httpapi.Alert](c, firms.tokens["admin"], "POST", "/v1/alerts/"+string(bpos.ID)+"/acknowledge", `{"note":"checked"}`)
	if answered.State != broker.AlertAcknowledged || answered.Acknowledged.By.Name != "bpo-admin" || answered.Acknowledged.Note != "checked" {
		t.Errorf("answered: %+v", answered)
	}

	firm := okAs[httpapi.List[httpapi.Alert]](c, firms.tokens["firm-admin"], "GET", "/v1/alerts?kind=drift", "").Items[0]
	path := "/v1/alerts/" + string(firm.ID)
	with := func(tag, step, body string) (int, httpapi.Problem, string) {
		t.Helper()
		req, err := http.NewRequest("POST", "http://postern"+path+step, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-Match", tag)
		req.Header.Set("Authorization", "Bearer "+firms.tokens["firm-admin"])
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var problem httpapi.Problem
		if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, problem, resp.Header.Get("ETag")
	}
	_, header, _ := c.as(firms.tokens["firm-admin"], "GET", path, "")
	read := header.Get("ETag")
	for range 3 { // which keep nobody from answering
		c.append(drift(own["firm"], own["mailbox"], own["agent"]))
	}
	status, _, tag := with(read, "/acknowledge", `{"note":"mine"}`)
	if status != http.StatusOK || tag == "" || tag == read {
		t.Errorf("acknowledged: %d, %s", status, tag)
	}
	if status, problem, _ := with(read, "/resolve", `{}`); status != http.StatusPreconditionFailed || problem.Code != broker.Conflict {
		t.Errorf("resolved as it was read before: %d %+v", status, problem)
	}
	if status, _, _ := with(tag, "/resolve", `{}`); status != http.StatusOK {
		t.Errorf("resolved as it is: %d", status)
	}
	if status, _, answer := c.as(firms.tokens["firm-admin"], "POST", path+"/acknowledge", ""); status != http.StatusConflict {
		t.Errorf("acknowledged what was resolved: %d %s", status, answer)
	}
	if status, _, answer := c.as(firms.tokens["firm-admin"], "POST", path+"/resolve", `{"note":"`+strings.Repeat("x", broker.MaxAlertNote+1)+`"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a long note: %d %s", status, answer)
	}
}
