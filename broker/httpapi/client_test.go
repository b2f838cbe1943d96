// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client speaks to a server over its socket.
type client struct {
	t     *testing.T
	world *httpapitest.World
	http  *http.Client
}

func start(t *testing.T) *client {
	t.Helper()
	w, err := httpapitest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.Socket)
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return &client{t: t, world: w, http: &http.Client{Transport: transport}}
}

// do makes a request and returns what came back.
func (c *client) do(method, path, body string) (status int, header http.Header, answer []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://postern"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// ok makes a request that must succeed.
func ok[T any](c *client, method, path, body string) T {
	c.t.Helper()
	status, _, answer := c.do(method, path, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	var out T
	if err := json.Unmarshal(answer, &out); err != nil {
		c.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
	return out
}

// refused makes a request that must fail with a problem.
func (c *client) refused(method, path, body string, status int, code broker.Code) httpapi.Problem {
	c.t.Helper()
	got, header, answer := c.do(method, path, body)
	var p httpapi.Problem
	if err := json.Unmarshal(answer, &p); err != nil {
		c.t.Fatalf("%s %s: %d %q: %v", method, path, got, answer, err)
	}
	if got != status || p.Status != status || p.Code != code || p.Title == "" || p.Detail == "" {
		c.t.Fatalf("%s %s: want %d %s, got %d %s", method, path, status, code, got, answer)
	}
	if ct := header.Get("Content-Type"); ct != "application/problem+json" {
		c.t.Fatalf("%s %s: Content-Type %q", method, path, ct)
	}
	return p
}

const acme = `{"firm":"Acme Pumps","address":"sales@acme.example","imap":{"host":"imap.acme.example"},"submission":{"host":"smtp.acme.example","tls":"starttls"}}`

// fill makes one thing of each kind.
func (c *client) fill() (delegation httpapi.Delegation, assignment httpapi.Assignment, password httpapi.AppPasswordCreated) {
	c.t.Helper()
	ok[broker.Firm](c, "POST", "/v1/firms", `{"name":"Acme Pumps"}`)
	ok[httpapi.Mailbox](c, "POST", "/v1/mailboxes", acme)
	ok[broker.Agent](c, "POST", "/v1/agents", `{"name":"asha"}`)
	ok[broker.Site](c, "POST", "/v1/sites", `{"name":"Pune","networks":["192.0.2.0/24"]}`)
	ok[httpapi.WorkstationCreated](c, "POST", "/v1/workstations", `{"name":"pune-07","class":"software","site":"Pune","key_pins":["`+pin('a')+`"]}`)
	delegation = ok[httpapi.Delegation](c, "POST", "/v1/delegations", `{"mailbox":"sales@acme.example"}`)
	assignment = ok[httpapi.Assignment](c, "POST", "/v1/assignments", `{"agent":"asha","mailbox":"sales@acme.example"}`)
	password = ok[httpapi.AppPasswordCreated](c, "POST", "/v1/app-passwords", `{"agent":"asha"}`)
	return delegation, assignment, password
}

func pin(digit byte) string { return string(bytes.Repeat([]byte{digit}, 64)) }

// open opens a session on what fill made.
func (c *client) open(a *httpapi.Assignment, p *httpapi.AppPasswordCreated) *broker.Session {
	c.t.Helper()
	w := ok[httpapi.Workstation](c, "GET", "/v1/workstations/pune-07", "")
	s := &broker.Session{
		ID: broker.NewID(), Protocol: broker.ProtocolIMAP, FirmID: a.FirmID, MailboxID: a.MailboxID, AgentID: a.AgentID,
		WorkstationID: w.ID, SiteID: w.SiteID, DelegationID: a.DelegationID, AssignmentID: a.ID, AppPasswordID: p.AppPassword.ID,
		RemoteAddr: "192.0.2.7:50000", Node: "test", OpenedAt: a.CreatedAt,
	}
	if err := c.world.Sessions.Open(c.t.Context(), s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// as makes a request with a bearer token; without one it is root's.
func (c *client) as(token, method, path, body string) (status int, header http.Header, answer []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://postern"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// okAs is ok with a bearer token.
func okAs[T any](c *client, token, method, path, body string) T {
	c.t.Helper()
	status, _, answer := c.as(token, method, path, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	var out T
	if err := json.Unmarshal(answer, &out); err != nil {
		c.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
	return out
}

// anonymous makes a request as somebody who is known by his token alone, if he
// has one.
func (c *client) anonymous(method, path, token string, body ...string) (status int, header http.Header, answer []byte) {
	c.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(strings.Join(body, "")))
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	recorder := httptest.NewRecorder()
	c.world.Handler.ServeHTTP(recorder, req)
	return recorder.Code, recorder.Header(), recorder.Body.Bytes()
}
