// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

// stored writes a credential with the root token.
func stored(t *testing.T, v *servers.Vault, secret string) (firm, mailbox broker.ID) {
	t.Helper()
	firm, mailbox = broker.NewID(), broker.NewID()
	v.Write("postern/data/firms/"+string(firm)+"/mailboxes/"+string(mailbox),
		map[string]any{"data": map[string]any{"secret": secret}})
	return firm, mailbox
}

// reading is a configuration with one identity, under the proxy's policy.
func reading(t *testing.T, v *servers.Vault, auth vault.AuthConfig) vault.Config {
	t.Helper()
	log, _ := observer.New(zapcore.InfoLevel)
	return vault.Config{Address: v.Addr, CACert: v.CAFile, Auth: auth, Logger: zap.New(log)}
}

func wrapped(t *testing.T, v *servers.Vault, stateFile string) *vault.AppRole {
	t.Helper()
	return &vault.AppRole{
		RoleID:        v.AppRole("postern-proxy", "postern-proxy", time.Hour, time.Hour),
		SecretIDFile:  writeFile(t, "wrapped", v.WrappedSecretID("postern-proxy")+"\n"),
		Wrapped:       true,
		SecretIDState: stateFile,
	}
}

// TestWrappedSecretID: a wrapping token works once; the secret-id in it lasts
// as long as the process, and longer with a state file.
func TestWrappedSecretID(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")

	t.Run("in memory", func(t *testing.T) {
		auth := wrapped(t, v, "")
		client, stop := start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		wantSecret(t, client, firm, mailbox, "kept")
		v.RevokeTokens("approle") // log in again: the wrapping token is spent
		wantSecret(t, client, firm, mailbox, "kept")
		stop()

		restarted, _ := start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		_, err := restarted.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonLogin)
		if !strings.Contains(err.Error(), "intercepted") {
			t.Errorf("the error does not tell what a spent token means: %v", err)
		}
		replaceFile(t, auth.SecretIDFile, v.WrappedSecretID("postern-proxy"))
		eventually(t, "a new wrapping token is used", func() error { return restarted.Ready(t.Context()) })
	})

	t.Run("with a state file", func(t *testing.T) {
		state := filepath.Join(t.TempDir(), "state")
		auth := wrapped(t, v, state)
		client, stop := start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		wantSecret(t, client, firm, mailbox, "kept")
		stop()
		if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the state file: %v, %v; want mode 0600", info, err)
		}
		client, stop = start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		wantSecret(t, client, firm, mailbox, "kept")
		stop()
		if err := os.Remove(auth.SecretIDFile); err != nil {
			t.Fatal(err)
		}
		client, stop = start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		wantSecret(t, client, firm, mailbox, "kept")
		stop()

		if err := os.Chmod(state, 0o640); err != nil {
			t.Fatal(err)
		}
		client, stop = start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		_, err := client.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonLogin)
		stop()
		if err := os.Chmod(state, 0o600); err != nil {
			t.Fatal(err)
		}

		// A new wrapping token has the better claim.
		replaceFile(t, state, `{"wrapping_sha256":"of another","secret_id":"dead"}`)
		replaceFile(t, auth.SecretIDFile, v.WrappedSecretID("postern-proxy"))
		client, _ = start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
		wantSecret(t, client, firm, mailbox, "kept")
		if b, err := os.ReadFile(state); err != nil || strings.Contains(string(b), "dead") {
			t.Errorf("the state file was not replaced: %v", err)
		}
	})

	t.Run("damaged state file", func(t *testing.T) {
		state := writeFile(t, "state", `{"secret_id":`)
		client, _ := start(t, reading(t, v, vault.AuthConfig{AppRole: wrapped(t, v, state)}))
		_, err := client.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonLogin)
	})
}

// TestForeignWrappingToken: a token that wraps a secret-id of the sender's
// choice is not even opened.
func TestForeignWrappingToken(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	auth := wrapped(t, v, "")
	client := v.Client()
	secret, err := client.Logical().Write("sys/wrapping/wrap", map[string]any{"secret_id": v.SecretID("postern-proxy")})
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, auth.SecretIDFile, secret.WrapInfo.Token)
	postern, _ := start(t, reading(t, v, vault.AuthConfig{AppRole: auth}))
	_, err = postern.Credential(t.Context(), broker.NewID(), broker.NewID())
	wantReason(t, err, vault.ReasonLogin)
	if !strings.Contains(err.Error(), "was not made at") {
		t.Errorf("error %v", err)
	}
	if _, err := client.Logical().Unwrap(secret.WrapInfo.Token); err != nil {
		t.Errorf("Postern has opened it: %v", err)
	}
}

// TestTokensThatEnd: reads go on without a failure while tokens are renewed,
// reach their maximum and are replaced.
func TestTokensThatEnd(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")
	client, _ := start(t, reading(t, v, appRole(t, v, "short", "postern-proxy", 2*time.Second, 3*time.Second)))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); <-tick.C {
		wantSecret(t, client, firm, mailbox, "kept")
		if t.Failed() {
			return
		}
	}
}

// TestRevokedToken: within the call that finds out, Postern logs in anew.
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")
	client, _ := start(t, reading(t, v, appRole(t, v, "postern-proxy", "postern-proxy", time.Hour, time.Hour)))
	for range 3 {
		wantSecret(t, client, firm, mailbox, "kept")
		v.RevokeTokens("approle")
	}
	wantSecret(t, client, firm, mailbox, "kept")

	// The firm's switch: without the role there is no way in, and that is no
	// "no such credential".
	if _, err := v.Client().Logical().Delete("auth/approle/role/postern-proxy"); err != nil {
		t.Fatal(err)
	}
	v.RevokeTokens("approle")
	_, err := client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonLogin)
	wantReason(t, client.Ready(t.Context()), vault.ReasonLogin)
}

// TestStopRevokesTheToken: a Postern that has stopped leaves no token behind,
// and answers at once that it has.
func TestStopRevokesTheToken(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	tokens := func() int {
		s, err := v.Client().Logical().List("auth/token/accessors")
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Data["keys"].([]any))
	}
	cfg := standard(t, v)
	before := tokens()
	client, stop := start(t, cfg)
	firm, mailbox := put(t, client, "kept")
	wantSecret(t, client, firm, mailbox, "kept")
	if got := tokens(); got != before+2 {
		t.Errorf("%d tokens for two identities", got-before)
	}
	stop()
	if got := tokens(); got != before {
		t.Errorf("%d tokens are left", got-before)
	}
	_, err := client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonLogin)
	if err := client.Run(t.Context()); broker.CodeOf(err) != broker.Internal {
		t.Errorf("a second Run: %v", err)
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")
	old := v.Token("postern-proxy", time.Hour)
	path := writeFile(t, "token", old+"\n")
	registry := prometheus.NewRegistry()
	cfg := reading(t, v, vault.AuthConfig{TokenFile: path})
	cfg.Registerer = registry
	client, stop := start(t, cfg)
	wantSecret(t, client, firm, mailbox, "kept")

	t.Run("replaced while the old token lives", func(t *testing.T) {
		replaceFile(t, path, v.Token("postern-proxy", 2*time.Hour))
		servers.WaitFor(t, 10*time.Second, func() bool {
			return metric(t, registry, "postern_vault_token_ttl_seconds", "identity", "proxy") > 3700
		}, "the new token to be used")
		wantSecret(t, client, firm, mailbox, "kept")
	})
	t.Run("revoked, then replaced", func(t *testing.T) {
		token, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Client().Auth().Token().RevokeTree(string(token)); err != nil {
			t.Fatal(err)
		}
		_, err = client.Credential(t.Context(), firm, mailbox)
		wantReason(t, err, vault.ReasonLogin)
		replaceFile(t, path, old)
		eventually(t, "the token in the file is used", func() error { return client.Ready(t.Context()) })
		wantSecret(t, client, firm, mailbox, "kept")
	})
	t.Run("not Postern's to revoke", func(t *testing.T) {
		stop()
		if _, err := v.ClientFor(old).Auth().Token().LookupSelf(); err != nil {
			t.Errorf("Postern revoked the token of the file: %v", err)
		}
	})
}

// TestCertificate: the token is renewed too, for which Vault wants to see the
// certificate again; and a renewed certificate is taken up.
func TestCertificate(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")
	clients := servers.NewCA(t)
	v.EnableAuth("cert")
	v.Write("auth/cert/certs/postern", map[string]any{
		"certificate": string(clients.PEM), "allowed_common_names": "postern.test",
		"token_policies": "postern-proxy", "token_no_default_policy": true, "token_ttl": "2s", "token_max_ttl": "3s",
	})
	good := clients.IssueClient("postern.test")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	install := func(c *servers.Certificate) {
		for from, to := range map[string]string{c.CertFile: certFile, c.KeyFile: keyFile} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			replaceFile(t, to, string(b))
		}
	}
	install(good)
	client, stop := start(t, reading(t, v, vault.AuthConfig{Certificate: &vault.Certificate{CertFile: certFile, KeyFile: keyFile, Name: "postern"}}))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	begun, renewed := time.Now(), false
	for ; time.Since(begun) < 6*time.Second && !t.Failed(); <-tick.C {
		wantSecret(t, client, firm, mailbox, "kept")
		if !renewed && time.Since(begun) > 2*time.Second {
			install(clients.IssueClient("postern.test"))
			renewed = true
		}
	}
	stop()

	for name, c := range map[string]*servers.Certificate{
		"of another CA":     servers.NewCA(t).IssueClient("postern.test"),
		"with another name": clients.IssueClient("other.test"),
		"that has expired":  clients.IssueExpiredClient("postern.test"),
	} {
		t.Run(name, func(t *testing.T) {
			stranger, _ := start(t, reading(t, v, vault.AuthConfig{Certificate: &vault.Certificate{CertFile: c.CertFile, KeyFile: c.KeyFile}}))
			_, err := stranger.Credential(t.Context(), firm, mailbox)
			wantReason(t, err, vault.ReasonLogin)
		})
	}
}

// TestKubernetes runs Vault's own Kubernetes backend against a TokenReview
// endpoint (Kubernetes API, authentication.k8s.io/v1).
func TestKubernetes(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	firm, mailbox := stored(t, v, "kept")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := serviceAccountToken(t, key, "postern")
	cluster := httptest.NewTLSServer(tokenReview(t, map[string]string{good: "postern"}))
	defer cluster.Close()
	v.EnableAuth("kubernetes")
	v.Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host": cluster.URL, "kubernetes_ca_cert": pemOf(cluster), "disable_local_ca_jwt": true,
		"token_reviewer_jwt": serviceAccountToken(t, key, "vault"),
	})
	v.Write("auth/kubernetes/role/postern", map[string]any{
		"bound_service_account_names": "postern", "bound_service_account_namespaces": "mail", "audience": "vault",
		"token_policies": "postern-proxy", "token_no_default_policy": true, "token_ttl": "1h",
	})
	path := writeFile(t, "token", serviceAccountToken(t, key, "stranger"))
	client, _ := start(t, reading(t, v, vault.AuthConfig{Kubernetes: &vault.Kubernetes{Role: "postern", TokenFile: path}}))
	_, err = client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonLogin)
	replaceFile(t, path, good+"\n") // the kubelet renews it in place
	eventually(t, "the service account's new token is used", func() error { return client.Ready(t.Context()) })
	wantSecret(t, client, firm, mailbox, "kept")
	v.RevokeTokens("kubernetes")
	wantSecret(t, client, firm, mailbox, "kept")
}

// tokenReview answers for the tokens it knows.
func tokenReview(t *testing.T, known map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review map[string]any
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
			t.Errorf("asked for %s: %v", r.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		token, _ := review["spec"].(map[string]any)["token"].(string)
		status := map[string]any{"authenticated": false}
		if name, ok := known[token]; ok {
			status = map[string]any{
				"authenticated": true, "audiences": []string{"vault"},
				"user": map[string]any{
					"username": "system:serviceaccount:mail:" + name, "uid": "uid-" + name,
					"groups": []string{"system:serviceaccounts"},
				},
			}
		}
		review["status"] = status
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	})
}

// serviceAccountToken makes a JWT (RFC 7519) as Kubernetes projects them.
func serviceAccountToken(t *testing.T, key *ecdsa.PrivateKey, name string) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	now := time.Now()
	signed := part(map[string]any{"alg": "ES256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://kubernetes.test", "aud": []string{"vault"}, "sub": "system:serviceaccount:mail:" + name,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "mail", "serviceaccount": map[string]any{"name": name, "uid": "uid-" + name},
		},
	})
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	fill := func(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) } // RFC 7518 §3.4
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(fill(r), fill(s)...))
}

// TestNoSecretInTheLog: neither a credential nor what Postern logs in with is
// ever logged.
func TestNoSecretInTheLog(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	core, logs := observer.New(zapcore.DebugLevel)
	auth := wrapped(t, v, filepath.Join(t.TempDir(), "state"))
	token, err := os.ReadFile(auth.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	cfg := reading(t, v, vault.AuthConfig{AppRole: auth})
	cfg.Logger = zap.New(core)
	client, stop := start(t, cfg)
	firm, mailbox := stored(t, v, "marked-5ecret")
	wantSecret(t, client, firm, mailbox, "marked-5ecret")
	v.RevokeTokens("approle")
	v.Write("auth/approle/role/postern-proxy/secret-id/destroy", map[string]any{"secret_id": secretIDIn(t, auth.SecretIDState)})
	_, err = client.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonLogin)
	stop()
	if logs.FilterMessage("cannot log in to Vault").Len() == 0 {
		t.Error("the failed login is not logged")
	}
	for _, entry := range logs.All() {
		for _, hidden := range []string{"marked-5ecret", strings.TrimSpace(string(token)), secretIDIn(t, auth.SecretIDState)} {
			credentialstest.NoSecret(t, entry.Message, hidden)
			credentialstest.NoSecret(t, entry.ContextMap(), hidden)
		}
	}
}

func secretIDIn(t *testing.T, state string) string {
	t.Helper()
	b, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		SecretID string `json:"secret_id"`
	}
	if err := json.Unmarshal(b, &s); err != nil || s.SecretID == "" {
		t.Fatalf("the state file: %v", err)
	}
	return s.SecretID
}

func pemOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}
