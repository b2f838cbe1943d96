// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/vault"
)

// What a real Vault never says, and what stands in its place may: odd answers
// from a server of the test's own.

// patience is for what a busy machine takes long to do; what never ends takes it
// whole.
const patience = 6 * time.Second

const hidden = "marked-5ecret"

// odd starts a client of a server that gives it a token, and whatever answer
// says otherwise. Only what is slow on purpose may run into timeout.
func odd(t *testing.T, answer http.HandlerFunc, timeout time.Duration) *vault.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/auth/approle/login":
			io.WriteString(w, `{"auth":{"client_token":"hvs.test","lease_duration":3600,"renewable":true}}`)
		case "/v1/auth/token/revoke-self":
			w.WriteHeader(http.StatusNoContent)
		default:
			answer(w, r)
		}
	}))
	t.Cleanup(server.Close)
	client, _ := start(t, vault.Config{Address: server.URL, Timeout: timeout, Auth: vault.AuthConfig{
		AppRole: &vault.AppRole{RoleID: "r", SecretIDFile: writeFile(t, "secret-id", "s")},
	}})
	return client
}

func say(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// TestNever1OddAnswers: whatever comes in the place of Vault's answer, the
// outcome has a code of the contract, and no word of the body shows.
func TestNever1OddAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		get    broker.Code
		reason string
	}{
		"a page":              {say(200, "<html>"+hidden), broker.Unavailable, vault.ReasonAnswer},
		"nothing":             {say(200, ""), broker.Unavailable, vault.ReasonAnswer},
		"no content":          {say(204, ""), broker.Unavailable, vault.ReasonAnswer},
		"another object":      {say(200, `{"secret":"`+hidden+`"}`), broker.Unavailable, vault.ReasonAnswer},
		"KV version 1":        {say(200, `{"data":{"kind":"password","secret":"`+hidden+`"}}`), broker.NotFound, ""},
		"data is null":        {say(200, `{"data":{"data":null,"metadata":{"version":1}}}`), broker.NotFound, ""},
		"data is text":        {say(200, `{"data":{"data":"`+hidden+`"}}`), broker.Invalid, ""},
		"data is cut short":   {say(200, `{"data":{"data":{"secret":"`+hidden), broker.Unavailable, vault.ReasonAnswer},
		"an error page":       {say(500, "<html>"+hidden), broker.Unavailable, vault.ReasonAnswer},
		"an error of Vault's": {say(500, `{"errors":["`+hidden+`"]}`), broker.Unavailable, vault.ReasonAnswer},
		"sealed":              {say(503, `{"errors":["Vault is sealed"]}`), broker.Unavailable, vault.ReasonSealed},
		"a balancer's 503":    {say(503, hidden), broker.Unavailable, vault.ReasonAnswer},
		"a page for 404":      {say(404, "<html>"+hidden), broker.Unavailable, vault.ReasonMount},
		"no such route":       {say(404, `{"errors":["no handler for route"]}`), broker.Unavailable, vault.ReasonMount},
		"not found":           {say(404, `{"errors":[]}`), broker.NotFound, ""},
		"bad request":         {say(400, `{"errors":["`+hidden+`"]}`), broker.Internal, ""},
		"permission denied":   {say(403, `{"errors":["permission denied","`+hidden+`"]}`), broker.Unavailable, vault.ReasonPermission},
		"too many requests":   {say(429, `{"errors":["rate limit quota exceeded"]}`), broker.Unavailable, vault.ReasonLimit},
		"being upgraded":      {say(400, `{"errors":["Upgrading from non-versioned to versioned data."]}`), broker.Unavailable, vault.ReasonMount},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/"+hidden, http.StatusTemporaryRedirect)
		}, broker.Unavailable, vault.ReasonAnswer},
		"a redirect for good": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusMovedPermanently)
		}, broker.Unavailable, vault.ReasonAnswer},
		"an endless answer":     {endless, broker.Unavailable, vault.ReasonAnswer},
		"a huge announcement":   {huge, broker.Unavailable, vault.ReasonAnswer},
		"a broken answer":       {broken, broker.Unavailable, vault.ReasonUnreachable},
		"a slow answer":         {slow, broker.Unavailable, vault.ReasonTimeout},
		"a compressed pretence": {compressed, broker.Unavailable, vault.ReasonAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := patience
			if test.reason == vault.ReasonTimeout {
				timeout = time.Second
			}
			client := odd(t, test.answer, timeout)
			firm, mailbox := broker.NewID(), broker.NewID()
			begun := time.Now()
			_, err := client.Credential(t.Context(), firm, mailbox)
			if took := time.Since(begun); took > timeout+slack {
				t.Errorf("it took %v", took)
			}
			e, ok := err.(*broker.Error)
			if !ok || e.Code != test.get || e.Reason != test.reason {
				t.Errorf("get: %v (%+v), want code %s, reason %q", err, e, test.get, test.reason)
			}
			credentialstest.NoSecret(t, err, hidden)
			_, err = client.SetCredential(t.Context(), firm, mailbox, credentialstest.Password(hidden, 0))
			if err == nil {
				t.Error("set: no error")
			}
			credentialstest.NoSecret(t, err, hidden)
			_, err = client.CredentialVersion(t.Context(), firm, mailbox)
			credentialstest.NoSecret(t, err, hidden)
			credentialstest.NoSecret(t, client.DeleteCredential(t.Context(), firm, mailbox), hidden)
			credentialstest.NoSecret(t, client.Ready(t.Context()), hidden)
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	chunk := strings.Repeat(" ", 64<<10)
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
	}
}

func huge(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "9000000000")
	io.WriteString(w, "{")
}

func broken(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	io.WriteString(w, `{"data":{"data":{"secret":"`+hidden)
}

func slow(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // else the server does not see the client go
	<-r.Context().Done()
}

func compressed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	io.WriteString(w, "\x1f\x8b"+hidden)
}

// TestTriesAreCounted: an outage is tried twice, a refusal once, and a dead
// token gets one new login.
func TestTriesAreCounted(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		tries  int32
	}{
		"an outage":         {502, "", 2},
		"sealed":            {503, `{"errors":["Vault is sealed"]}`, 1},
		"no permission":     {403, `{"errors":["permission denied"]}`, 1},
		"a dead token":      {403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token"]}`, 2},
		"nothing there":     {404, `{"errors":[]}`, 1},
		"a rate limit":      {429, `{"errors":["rate limit quota exceeded"]}`, 1},
		"not to be decoded": {200, `{"data":{"data":{"secret":5}}}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var tries atomic.Int32
			client := odd(t, func(w http.ResponseWriter, r *http.Request) {
				tries.Add(1)
				say(test.status, test.body)(w, r)
			}, patience)
			if _, err := client.Credential(t.Context(), broker.NewID(), broker.NewID()); err == nil {
				t.Error("no error")
			}
			if tries.Load() != test.tries {
				t.Errorf("%d tries, want %d", tries.Load(), test.tries)
			}
		})
	}
}

// TestConflictAfterALostAnswer: when the first try's answer is lost and the
// second is a conflict, whose write it was decides.
func TestConflictAfterALostAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		ours bool
		code broker.Code
	}{
		"our own":         {true, ""},
		"somebody else's": {false, broker.Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			var puts atomic.Int32
			var marker atomic.Value
			client := odd(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPut && puts.Add(1) == 1:
					body, _ := io.ReadAll(r.Body)
					_, after, _ := strings.Cut(string(body), `"write":{"`)
					marker.Store(strings.SplitN(after, `"`, 2)[0])
					w.WriteHeader(http.StatusBadGateway)
				case r.Method == http.MethodPut:
					say(400, `{"errors":["check-and-set parameter did not match the current version"]}`)(w, r)
				case strings.HasPrefix(r.URL.Path, "/v1/postern/subkeys/") && r.URL.Query().Get("version") == "4":
					id := string(broker.NewID())
					if test.ours {
						id = marker.Load().(string)
					}
					fmt.Fprintf(w, `{"data":{"subkeys":{"kind":null,"write":{%q:null}}}}`, id)
				default:
					t.Errorf("asked for %s %s", r.Method, r.URL)
					w.WriteHeader(http.StatusBadRequest)
				}
			}, patience)
			version, err := client.SetCredential(t.Context(), broker.NewID(), broker.NewID(), credentialstest.Password("x", 3))
			if broker.CodeOf(err) != test.code || err == nil && version != 4 {
				t.Errorf("version %d, %v; want code %q", version, err, test.code)
			}
		})
	}
}
