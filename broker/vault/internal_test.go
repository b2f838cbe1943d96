// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

// TestAmbiguousRefusal: a 403 that does not say whether the token is dead or
// the policy wrong is worth a new login when the last one is old; a wrong
// policy does not become a storm of logins.
//
// The requests also show that the namespace is the configuration's, and no
// header the environment's.
func TestAmbiguousRefusal(t *testing.T) {
	t.Setenv("VAULT_NAMESPACE", "nowhere")
	t.Setenv("VAULT_HEADERS", `{"X-From-Environment":"yes"}`)
	for name, test := range map[string]struct {
		age    time.Duration
		logins int32
	}{
		"of an old login": {time.Minute, 2},
		"of a young one":  {time.Second, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var logins atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/auth/approle/login" {
					logins.Add(1)
					io.WriteString(w, `{"auth":{"client_token":"hvs.test","lease_duration":3600}}`)
					return
				}
				if got := r.Header.Get(api.NamespaceHeaderName); got != "firms/one" {
					t.Errorf("%s is asked in namespace %q", r.URL.Path, got)
				}
				if r.Header.Get("X-From-Environment") != "" || r.Header.Get(api.AuthHeaderName) != "hvs.test" {
					t.Errorf("%s is asked with headers %v", r.URL.Path, r.Header)
				}
				w.WriteHeader(http.StatusForbidden)
				io.WriteString(w, `{"errors":["permission denied"]}`)
			}))
			defer server.Close()
			secretID := filepath.Join(t.TempDir(), "secret-id")
			if err := os.WriteFile(secretID, []byte("s"), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := New(Config{Address: server.URL, Namespace: "firms/one", Auth: AuthConfig{AppRole: &AppRole{RoleID: "r", SecretIDFile: secretID}}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- c.Run(ctx) }()
			defer func() {
				stop()
				<-done
			}()
			held, err := c.reader.get(ctx)
			if err != nil {
				t.Fatal(err)
			}
			old := *held
			old.since = time.Now().Add(-test.age)
			c.reader.set(&old, nil)
			for range 10 {
				if _, err := c.Credential(ctx, broker.NewID(), broker.NewID()); err.(*broker.Error).Reason != ReasonPermission {
					t.Error(err)
				}
			}
			if logins.Load() != test.logins {
				t.Errorf("%d logins, want %d", logins.Load(), test.logins)
			}
		})
	}
}
