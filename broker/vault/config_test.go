// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

func TestConfig(t *testing.T) {
	token := vault.AuthConfig{TokenFile: "/nowhere/token"}
	approle := func(r vault.AppRole) vault.AuthConfig { return vault.AuthConfig{AppRole: &r} }
	state := approle(vault.AppRole{RoleID: "r", SecretIDFile: "/a", Wrapped: true, SecretIDState: "/b"})
	for name, test := range map[string]struct {
		cfg   vault.Config
		field string // "": the configuration is good
	}{
		"https":                  {vault.Config{Address: "https://vault.example:8200", Auth: token}, ""},
		"with a path":            {vault.Config{Address: "https://vault.example/vault", Auth: token}, ""},
		"http on loopback":       {vault.Config{Address: "http://127.0.0.1:8200", Auth: token}, ""},
		"http on IPv6 loopback":  {vault.Config{Address: "http://[::1]:8200", Auth: token}, ""},
		"http elsewhere":         {vault.Config{Address: "http://vault.example:8200", Auth: token}, "address"},
		"http by name":           {vault.Config{Address: "http://localhost:8200", Auth: token}, "address"},
		"http, looks like it":    {vault.Config{Address: "http://127.0.0.1.example:8200", Auth: token}, "address"},
		"no address":             {vault.Config{Auth: token}, "address"},
		"a socket":               {vault.Config{Address: "unix:///run/vault.sock", Auth: token}, "address"},
		"no scheme":              {vault.Config{Address: "vault.example:8200", Auth: token}, "address"},
		"a password in it":       {vault.Config{Address: "https://u:p@vault.example", Auth: token}, "address"},
		"a query in it":          {vault.Config{Address: "https://vault.example/?a=b", Auth: token}, "address"},
		"too short a time":       {vault.Config{Address: "https://v.example", Timeout: time.Millisecond, Auth: token}, "timeout"},
		"too long a time":        {vault.Config{Address: "https://v.example", Timeout: time.Hour, Auth: token}, "timeout"},
		"mount":                  {vault.Config{Address: "https://v.example", Mount: "team/kv-2", Auth: token}, ""},
		"mount with dots":        {vault.Config{Address: "https://v.example", Mount: "a/../sys", Auth: token}, "mount"},
		"mount with a slash":     {vault.Config{Address: "https://v.example", Mount: "postern/", Auth: token}, "mount"},
		"no CA file":             {vault.Config{Address: "https://v.example", CACert: "/nowhere/ca.pem", Auth: token}, "ca_cert"},
		"no auth":                {vault.Config{Address: "https://v.example"}, "auth"},
		"two ways":               {vault.Config{Address: "https://v.example", Auth: vault.AuthConfig{TokenFile: "/t", Kubernetes: &vault.Kubernetes{Role: "r"}}}, "auth"},
		"writer without a way":   {vault.Config{Address: "https://v.example", Auth: token, Writer: &vault.AuthConfig{}}, "writer"},
		"no role-id":             {vault.Config{Address: "https://v.example", Auth: approle(vault.AppRole{SecretIDFile: "/s"})}, "auth.approle.role_id"},
		"no secret-id":           {vault.Config{Address: "https://v.example", Auth: approle(vault.AppRole{RoleID: "r"})}, "auth.approle.secret_id_file"},
		"state, nothing wrapped": {vault.Config{Address: "https://v.example", Auth: approle(vault.AppRole{RoleID: "r", SecretIDFile: "/s", SecretIDState: "/t"})}, "auth.approle.secret_id_state"},
		"state is the token":     {vault.Config{Address: "https://v.example", Auth: approle(vault.AppRole{RoleID: "r", SecretIDFile: "/s", Wrapped: true, SecretIDState: "/s"})}, "auth.approle.secret_id_state"},
		"one state for two":      {vault.Config{Address: "https://v.example", Auth: state, Writer: &state}, "writer.approle.secret_id_state"},
		"auth mount with dots":   {vault.Config{Address: "https://v.example", Auth: approle(vault.AppRole{RoleID: "r", SecretIDFile: "/s", Mount: ".."})}, "auth.approle.mount"},
		"kubernetes, no role":    {vault.Config{Address: "https://v.example", Auth: vault.AuthConfig{Kubernetes: &vault.Kubernetes{}}}, "auth.kubernetes.role"},
		"certificate, no key":    {vault.Config{Address: "https://v.example", Auth: vault.AuthConfig{Certificate: &vault.Certificate{CertFile: "/c"}}}, "auth.certificate"},
		"certificate, no file":   {vault.Config{Address: "https://v.example", Auth: vault.AuthConfig{Certificate: &vault.Certificate{CertFile: "/nowhere/c", KeyFile: "/nowhere/k"}}}, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := vault.New(test.cfg)
			var e *broker.Error
			errors.As(err, &e)
			switch {
			case test.field == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.field != "" && (e == nil || e.Code != broker.Invalid || e.Field != test.field):
				t.Errorf("error %v, want Invalid about %q", err, test.field)
			}
		})
	}
}

// TestSkipVerifyRefusesToStart: VAULT_SKIP_VERIFY would be read by the library
// without a word.
func TestSkipVerifyRefusesToStart(t *testing.T) {
	cfg := vault.Config{Address: "https://vault.example", Auth: vault.AuthConfig{TokenFile: "/t"}}
	for value, refused := range map[string]bool{"1": true, "true": true, "TRUE": true, "yes": true, "": false, "0": false, "false": false} {
		t.Setenv("VAULT_SKIP_VERIFY", value)
		_, err := vault.New(cfg)
		if got := broker.CodeOf(err) == broker.Invalid && strings.Contains(err.Error(), "VAULT_SKIP_VERIFY"); got != refused {
			t.Errorf("VAULT_SKIP_VERIFY=%q: %v, want refused: %v", value, err, refused)
		}
	}
}

// TestEnvironmentHasNoSay: what the library reads from the environment by
// itself changes nothing.
func TestEnvironmentHasNoSay(t *testing.T) {
	v := newVault(t)
	cfg := standard(t, v)
	for name, value := range map[string]string{
		"VAULT_ADDR": "https://127.0.0.1:1", "VAULT_AGENT_ADDR": "https://127.0.0.1:1",
		"VAULT_TOKEN": "hvs.bogus", "VAULT_NAMESPACE": "nowhere", "VAULT_WRAP_TTL": "60s",
		"VAULT_HEADERS": `{"X-Forwarded-For":"203.0.113.1","Content-Type":"text/plain"}`, "VAULT_MFA": "a:b",
		"VAULT_CACERT": servers.NewCA(t).File, "VAULT_TLS_SERVER_NAME": "elsewhere.example",
		"VAULT_CLIENT_TIMEOUT": "1ms", "VAULT_MAX_RETRIES": "99", "VAULT_RATE_LIMIT": "0.0001:1",
		"VAULT_SRV_LOOKUP": "true", "VAULT_PROXY_ADDR": "http://127.0.0.1:1", "VAULT_HTTP_PROXY": "http://127.0.0.1:1",
		"HTTPS_PROXY": "http://127.0.0.1:1", "VAULT_DISABLE_REDIRECTS": "false", "VAULT_SKIP_VERIFY": "false",
	} {
		t.Setenv(name, value)
	}
	client, _ := start(t, cfg)
	firm, mailbox := put(t, client, "kept")
	wantSecret(t, client, firm, mailbox, "kept")

	t.Setenv("VAULT_CACERT", "/nowhere/ca.pem")
	if _, err := vault.New(cfg); broker.CodeOf(err) != broker.Invalid || !strings.Contains(err.Error(), "VAULT_") {
		t.Errorf("an environment that the library cannot read: %v", err)
	}
}

func TestWrongCertificates(t *testing.T) {
	v := newVault(t)
	wrongCA, wrongName, systemCAs := standard(t, v), standard(t, v), standard(t, v)
	wrongCA.CACert = servers.NewCA(t).File
	wrongName.ServerName = "elsewhere.example"
	systemCAs.CACert = ""
	for name, cfg := range map[string]vault.Config{"wrong CA": wrongCA, "wrong name": wrongName, "the system's CAs": systemCAs} {
		t.Run(name, func(t *testing.T) {
			client, _ := start(t, cfg)
			_, err := client.Credential(t.Context(), broker.NewID(), broker.NewID())
			wantReason(t, err, vault.ReasonLogin)
			if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("error %v", err)
			}
		})
	}
	rightName := standard(t, v)
	rightName.ServerName = "localhost"
	client, _ := start(t, rightName)
	if err := client.Ready(t.Context()); err != nil {
		t.Errorf("a server name that is in the certificate: %v", err)
	}
}
