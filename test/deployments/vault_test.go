// SPDX-License-Identifier: Apache-2.0

package deployments

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/test/servers"
)

// newVault starts one that setup.sh made ready.
func newVault(t *testing.T) *servers.Vault {
	t.Helper()
	v := servers.StartVault(t)
	for _, step := range []string{"engine", "pki", "transit", "policies", "approle"} {
		v.Setup(step)
	}
	return v
}

// login logs in as a role in the way that Postern does.
func login(t *testing.T, v *servers.Vault, role string) *api.Secret {
	t.Helper()
	wrapped := v.Setup("secret-id", role)
	unwrapped, err := v.ClientFor(wrapped).Logical().Unwrap("")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := v.ClientFor("").Logical().Write("auth/approle/login", map[string]any{
		"role_id": v.Setup("role-id", role), "secret_id": unwrapped.Data["secret_id"],
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestVaultRoles: what each identity may do, and above all what it may not.
func TestVaultRoles(t *testing.T) {
	v := newVault(t)
	proxy, writer := login(t, v, "postern-proxy"), login(t, v, "postern-writer")
	pki, transit := login(t, v, "postern-pki"), login(t, v, "postern-transit")
	rotator := login(t, v, "postern-rotator")
	delivery := v.Token("postern-delivery", time.Hour)
	const credential = "firms/f1/mailboxes/m1"
	secret := map[string]any{"data": map[string]any{"secret": "x"}, "options": map[string]any{"cas": 0}}
	const pending, account = "firms/f1/pending/m1/p1", "firms/f1/providers/v1"
	for _, path := range []string{credential, pending, account} {
		if _, err := v.Client().Logical().Write("postern/data/"+path, secret); err != nil {
			t.Fatal(err)
		}
	}
	for name, s := range map[string]*api.Secret{"proxy": proxy, "writer": writer, "pki": pki, "transit": transit, "rotator": rotator} {
		if a := s.Auth; a.LeaseDuration != 3600 || !a.Renewable || len(a.TokenPolicies) != 1 || a.TokenPolicies[0] != "postern-"+name {
			t.Errorf("%s's token: %d s, renewable %v, policies %q", name, a.LeaseDuration, a.Renewable, a.TokenPolicies)
		}
	}
	yes, no := true, false
	for _, test := range []struct {
		who, token, method, path string
		may                      bool
	}{
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/data/" + credential, yes},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "postern/data/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodDelete, "postern/data/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPatch, "postern/data/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/data/other", no},
		{"proxy", proxy.Auth.ClientToken, "LIST", "postern/metadata/firms", no},
		{"proxy", proxy.Auth.ClientToken, "LIST", "postern/metadata/firms/f1/mailboxes", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/metadata/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodDelete, "postern/metadata/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "postern/destroy/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/config", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "sys/policies/acl/postern-proxy", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "auth/approle/role/postern-proxy/secret-id", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "auth/token/create", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "auth/token/renew-self", yes},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/data/" + credential, no},
		{"writer", writer.Auth.ClientToken, "LIST", "postern/metadata/firms/f1/mailboxes", no},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/metadata/" + credential, yes},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/subkeys/" + credential, yes},
		{"writer", writer.Auth.ClientToken, http.MethodPut, "postern/undelete/" + credential, no},
		{"writer", writer.Auth.ClientToken, http.MethodPut, "postern/config", no},
		{"writer", writer.Auth.ClientToken, http.MethodPut, "postern/data/other", no},
		{"writer", writer.Auth.ClientToken, http.MethodPut, "postern/data/firms/f1/mailboxes/m2", yes},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "postern-pki/sign/workstation", no},
		{"writer", writer.Auth.ClientToken, http.MethodPut, "postern-pki/sign/workstation", no},
		{"transit", transit.Auth.ClientToken, http.MethodGet, "postern-transit/keys/postern-log", yes},
		{"transit", transit.Auth.ClientToken, http.MethodPut, "postern-transit/keys/postern-log/rotate", no},
		{"transit", transit.Auth.ClientToken, http.MethodPut, "postern-transit/keys/postern-log/config", no},
		{"transit", transit.Auth.ClientToken, http.MethodDelete, "postern-transit/keys/postern-log", no},
		{"transit", transit.Auth.ClientToken, http.MethodGet, "postern-transit/export/signing-key/postern-log", no},
		{"transit", transit.Auth.ClientToken, http.MethodGet, "postern-transit/backup/postern-log", no},
		{"transit", transit.Auth.ClientToken, http.MethodPut, "postern-transit/keys/other", no},
		{"transit", transit.Auth.ClientToken, http.MethodPut, "postern-transit/sign/other", no},
		{"transit", transit.Auth.ClientToken, http.MethodGet, "postern/data/" + credential, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "postern-transit/sign/postern-log", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern-transit/keys/postern-log", no},
		{"pki", pki.Auth.ClientToken, http.MethodGet, "postern/data/" + credential, no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/sign/workstation", no}, // with other parameters
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/sign/other", no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/sign-verbatim/workstation", no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/issue/workstation", no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/root/sign-intermediate", no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/roles/workstation", no},
		{"pki", pki.Auth.ClientToken, http.MethodGet, "postern-pki/roles/workstation", no},
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/revoke", no}, // with other parameters
		{"pki", pki.Auth.ClientToken, http.MethodPut, "postern-pki/config/issuers", no},
		{"pki", pki.Auth.ClientToken, "LIST", "postern-pki/certs", no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/data/" + pending, yes},
		{"proxy", proxy.Auth.ClientToken, http.MethodPut, "postern/data/" + pending, no},
		{"proxy", proxy.Auth.ClientToken, http.MethodGet, "postern/data/" + account, no},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/data/" + pending, no},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/data/" + account, no},
		{"writer", writer.Auth.ClientToken, http.MethodGet, "postern/metadata/" + account, yes},
		{"rotator", rotator.Auth.ClientToken, http.MethodGet, "postern/data/" + credential, yes},
		{"rotator", rotator.Auth.ClientToken, http.MethodGet, "postern/data/" + pending, yes},
		{"rotator", rotator.Auth.ClientToken, http.MethodGet, "postern/data/" + account, yes},
		{"rotator", rotator.Auth.ClientToken, http.MethodPut, "postern/data/" + account, no},
		{"rotator", rotator.Auth.ClientToken, http.MethodGet, "postern/data/other", no},
		{"rotator", rotator.Auth.ClientToken, "LIST", "postern/metadata/firms/f1/mailboxes", no},
		{"rotator", rotator.Auth.ClientToken, http.MethodDelete, "postern/metadata/" + credential, no},
		{"rotator", rotator.Auth.ClientToken, http.MethodPut, "postern/undelete/" + credential, no},
		{"rotator", rotator.Auth.ClientToken, http.MethodPut, "postern/config", no},
		{"delivery", delivery, http.MethodGet, "postern/data/" + credential, no},
		{"delivery", delivery, http.MethodPut, "auth/approle/role/postern-proxy/secret-id", no}, // not wrapped
		{"delivery", delivery, http.MethodPut, "auth/approle/role/postern-proxy", no},
	} {
		var body map[string]any
		if test.method == http.MethodPut || test.method == http.MethodPatch {
			body = secret
		}
		if got := answers(t, v, test.token, test.method, test.path, body); got != test.may {
			t.Errorf("%s: %s %s: %v, want %v", test.who, test.method, test.path, got, test.may)
		}
	}
}

// answers reports whether a request is allowed: every other error is fatal.
func answers(t *testing.T, v *servers.Vault, token, method, path string, body map[string]any) bool {
	t.Helper()
	client := v.ClientFor(token)
	request := client.NewRequest(method, "/v1/"+path)
	if method == http.MethodPatch {
		request.Headers = http.Header{"Content-Type": {"application/merge-patch+json"}}
	}
	if body != nil {
		if err := request.SetJSONBody(body); err != nil {
			t.Fatal(err)
		}
	}
	//lint:ignore SA1019 no other call takes any method
	response, err := client.RawRequestWithContext(t.Context(), request)
	if response != nil {
		defer response.Body.Close()
		switch response.StatusCode {
		case http.StatusForbidden:
			return false
		case http.StatusOK, http.StatusNoContent:
			return true
		}
	}
	t.Errorf("%s %s: %v", method, path, err)
	return false
}

// TestVaultSetup: every step can be repeated, and what it makes is bounded.
func TestVaultSetup(t *testing.T) {
	v := newVault(t)
	audit := filepath.Join(t.TempDir(), "audit.log")
	authority := v.Setup("pki-ca")
	for range 2 {
		for _, step := range []string{"engine", "pki", "transit", "policies", "approle"} {
			v.Setup(step)
		}
		v.Setup("audit", audit)
		if out, err := v.TrySetup(v.RootToken, []string{"KUBERNETES_CA=" + v.CAFile}, "kubernetes", "https://192.0.2.1:6443", "mail", "postern"); err != nil {
			t.Fatalf("kubernetes: %v\n%s", err, out)
		}
	}
	if again := v.Setup("pki-ca"); again != authority || !strings.Contains(again, "BEGIN CERTIFICATE") {
		t.Errorf("repeated, the PKI engine's CA is another: %s", again)
	}
	role, err := v.Client().Logical().Read("auth/approle/role/postern-proxy")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"secret_id_ttl": "7776000", "token_ttl": "3600", "token_max_ttl": "86400", "token_no_default_policy": "true",
	} {
		if got := strings.Trim(jsonText(role.Data[field]), `"`); got != want {
			t.Errorf("approle: %s is %s, want %s", field, got, want)
		}
	}
	if role, err = v.Client().Logical().Read("auth/kubernetes/role/postern-writer"); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"bound_service_account_names": `["postern"]`, "bound_service_account_namespaces": `["mail"]`, "audience": `"vault"`,
		"token_policies": `["postern-writer"]`, "token_max_ttl": "86400",
	} {
		if got := jsonText(role.Data[field]); got != want {
			t.Errorf("kubernetes: %s is %s, want %s", field, got, want)
		}
	}

	// Whoever delivers secret-ids needs no more than its policy.
	delivery := v.Token("postern-delivery", time.Hour)
	out, err := v.TrySetup(delivery, nil, "secret-id", "postern-proxy")
	if err != nil {
		t.Fatalf("delivery: %v\n%s", err, out)
	}
	unwrapped, err := v.ClientFor(strings.TrimSpace(out)).Logical().Unwrap("")
	if err != nil || unwrapped.Data["secret_id"] == nil {
		t.Errorf("the wrapped secret-id: %v", err)
	}
	if out, err := v.TrySetup(delivery, nil, "policies"); err == nil {
		t.Errorf("delivery writes policies:\n%s", out)
	}
	if out, err := v.TrySetup(v.RootToken, nil, "secret-id", "../postern-proxy"); err == nil {
		t.Errorf("a role that is none: %s", out)
	}

	// Elsewhere mounted, from known networks alone.
	elsewhere := []string{"POSTERN_MOUNT=bpo/mail", "POSTERN_PKI_MOUNT=bpo/pki", "POSTERN_NETWORKS=192.0.2.0/24,198.51.100.7/32"}
	for _, step := range []string{"engine", "pki", "transit", "policies", "approle"} {
		if out, err := v.TrySetup(v.RootToken, elsewhere, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	policy, err := v.Client().Sys().GetPolicy("postern-proxy")
	if err != nil || !strings.Contains(policy, `path "bpo/mail/data/firms/+/mailboxes/+"`) || strings.Contains(policy, `path "postern/`) {
		t.Errorf("the policy for another mount: %v\n%s", err, policy)
	}
	if policy, err = v.Client().Sys().GetPolicy("postern-pki"); err != nil || !strings.Contains(policy, `path "bpo/pki/sign/workstation"`) || strings.Contains(policy, `path "postern-pki/`) {
		t.Errorf("the policy for another PKI engine: %v\n%s", err, policy)
	}
	if _, err := v.ClientFor("").Logical().Write("auth/approle/login", map[string]any{
		"role_id": v.Setup("role-id", "postern-proxy"), "secret_id": v.SecretID("postern-proxy"),
	}); err == nil {
		t.Error("a login from another network was taken")
	}

	// The audit device keeps who asked for what, and hashes what is secret.
	b, err := os.ReadFile(audit)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(b); !strings.Contains(text, `"path":"auth/approle/role/postern-proxy/secret-id"`) || strings.Contains(text, v.RootToken) {
		t.Errorf("the audit log:\n%.2000s", text)
	}
}
