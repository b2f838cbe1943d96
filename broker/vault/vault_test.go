// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newVault starts a Vault with the mount and the policies as deployed.
func newVault(t *testing.T) *servers.Vault {
	t.Helper()
	v := servers.StartVault(t)
	v.Setup("engine")
	v.Setup("policies")
	return v
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	replaceFile(t, path, content)
	return path
}

func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// appRole makes a role with a secret-id in a file.
func appRole(t *testing.T, v *servers.Vault, role, policy string, ttl, maxTTL time.Duration) vault.AuthConfig {
	t.Helper()
	return vault.AuthConfig{AppRole: &vault.AppRole{
		RoleID: v.AppRole(role, policy, ttl, maxTTL), SecretIDFile: writeFile(t, "secret-id", v.SecretID(role)),
	}}
}

// standard is a configuration as deployed: two AppRole identities.
func standard(t *testing.T, v *servers.Vault) vault.Config {
	t.Helper()
	writer := appRole(t, v, "postern-writer", "postern-writer", time.Hour, time.Hour)
	return vault.Config{
		Address: v.Addr, CACert: v.CAFile, Timeout: 3 * time.Second,
		Auth:   appRole(t, v, "postern-proxy", "postern-proxy", time.Hour, time.Hour),
		Writer: &writer, Logger: zaptest.NewLogger(t),
	}
}

// start makes a client and runs it until the test is over, or stop is called.
func start(t *testing.T, cfg vault.Config) (client *vault.Client, stop func()) {
	t.Helper()
	client, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return client, stop
}

// put stores a credential, as the writer does.
func put(t *testing.T, c *vault.Client, secret string) (firm, mailbox broker.ID) {
	t.Helper()
	// Both identities log in by themselves; what a test does to Vault next must
	// not come before.
	eventually(t, "the client is ready", func() error { return c.Ready(t.Context()) })
	firm, mailbox = broker.NewID(), broker.NewID()
	if _, err := c.SetCredential(t.Context(), firm, mailbox, credentialstest.Password(secret, 0)); err != nil {
		t.Fatal(err)
	}
	return firm, mailbox
}

// wantSecret reads a credential once.
func wantSecret(t *testing.T, c *vault.Client, firm, mailbox broker.ID, want string) {
	t.Helper()
	got, err := c.Credential(t.Context(), firm, mailbox)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if string(got.Secret.Reveal()) != want {
		t.Errorf("got %q, want %q", got.Secret.Reveal(), want)
	}
}

// wantReason reads a credential that cannot be read now.
func wantReason(t *testing.T, err error, reasons ...string) {
	t.Helper()
	e, ok := err.(*broker.Error)
	if !ok || e.Code != broker.Unavailable {
		t.Errorf("error %v, want Unavailable", err)
		return
	}
	for _, reason := range reasons {
		if e.Reason == reason {
			return
		}
	}
	t.Errorf("error %v: reason %q, want one of %q", err, e.Reason, reasons)
}

// eventually waits until f succeeds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	var last error
	defer func() {
		if last != nil {
			t.Logf("%s: %v", what, last)
		}
	}()
	servers.WaitFor(t, 20*time.Second, func() bool {
		last = f()
		return last == nil
	}, what)
}

func metric(t *testing.T, registry *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	next:
		for _, m := range family.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue next
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

func TestContract(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	credentialstest.Run(t, func(*testing.T) broker.Credentials { return client })
}

// TestOperatorsFields: what people store with Vault's own tools is understood.
func TestOperatorsFields(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	for name, test := range map[string]struct {
		fields map[string]any
		secret string
		code   broker.Code
	}{
		"plain":              {map[string]any{"kind": "password", "secret": "p\"ä\\\n😀\u0001"}, "p\"ä\\\n😀\u0001", ""},
		"no kind":            {map[string]any{"secret": "p"}, "p", ""},
		"base64":             {map[string]any{"kind": "password", "secret_base64": "/w=="}, "\xff", ""},
		"NUL":                {map[string]any{"secret": "marked-5ecret\u0000"}, "", broker.Invalid},
		"token is not ASCII": {map[string]any{"kind": "access-token", "secret_base64": "/w=="}, "", broker.Invalid},
		"with other fields":  {map[string]any{"secret": "p", "note": map[string]any{"a": 1}}, "p", ""},
		"both":               {map[string]any{"secret": "marked-5ecret", "secret_base64": "/w=="}, "", broker.Invalid},
		"neither":            {map[string]any{"password": "marked-5ecret"}, "", broker.Invalid},
		"empty":              {map[string]any{"secret": ""}, "", broker.Invalid},
		"a number":           {map[string]any{"secret": 5550199}, "", broker.Invalid},
		"a number in base64": {map[string]any{"secret_base64": 5550199}, "", broker.Invalid},
		"not base64":         {map[string]any{"secret_base64": "marked-5ecret"}, "", broker.Invalid},
		"unknown kind":       {map[string]any{"kind": "psychic", "secret": "marked-5ecret"}, "", broker.Invalid},
		"kind is a number":   {map[string]any{"kind": 5550199, "secret": "marked-5ecret"}, "", broker.Invalid},
		"line end in login":  {map[string]any{"username": "a\r\nb", "secret": "marked-5ecret"}, "", broker.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			firm, mailbox := broker.NewID(), broker.NewID()
			v.Write("postern/data/firms/"+string(firm)+"/mailboxes/"+string(mailbox), map[string]any{"data": test.fields})
			got, err := client.Credential(t.Context(), firm, mailbox)
			if broker.CodeOf(err) != test.code {
				t.Fatalf("error %v, want code %q", err, test.code)
			}
			if err != nil {
				credentialstest.NoSecret(t, err, "marked-5ecret")
				credentialstest.NoSecret(t, err, "5550199")
				return
			}
			if string(got.Secret.Reveal()) != test.secret {
				t.Errorf("got %q, want %q", got.Secret.Reveal(), test.secret)
			}
		})
	}
}

// TestOperatorsDeletion: a version that was deleted or destroyed in Vault is
// none, and can be replaced as if there were none.
func TestOperatorsDeletion(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	for _, how := range []string{"delete", "destroy"} {
		t.Run(how, func(t *testing.T) {
			firm, mailbox := put(t, client, "old")
			v.Write("postern/"+how+"/firms/"+string(firm)+"/mailboxes/"+string(mailbox), map[string]any{"versions": []int{1}})
			if _, err := client.Credential(t.Context(), firm, mailbox); broker.CodeOf(err) != broker.NotFound {
				t.Errorf("get: %v, want NotFound", err)
			}
			if version, err := client.CredentialVersion(t.Context(), firm, mailbox); version != 0 || err != nil {
				t.Errorf("version: %d, %v, want 0", version, err)
			}
			if version, err := client.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("new", 0)); version != 2 || err != nil {
				t.Errorf("set: version %d, %v, want 2", version, err)
			}
			wantSecret(t, client, firm, mailbox, "new")
		})
	}
}

// TestRolesAreDivided: with the policies as deployed, neither identity can do
// the other's work, and a refusal is not taken for "no such credential".
func TestRolesAreDivided(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	client, _ := start(t, standard(t, v))
	firm, mailbox := put(t, client, "kept")
	path := "/firms/" + string(firm) + "/mailboxes/" + string(mailbox)
	proxy, writer := v.ClientFor(v.Token("postern-proxy", time.Hour)), v.ClientFor(v.Token("postern-writer", time.Hour))
	read := func(c *api.Client, path string) bool {
		s, err := c.Logical().Read(path)
		return err == nil && s != nil
	}
	write := func(c *api.Client, path string) bool {
		_, err := c.Logical().Write(path, map[string]any{"data": map[string]any{"secret": "y"}})
		return err == nil
	}
	for what, test := range map[string]struct{ did, may bool }{
		"the proxy reads a credential":             {read(proxy, "postern/data"+path), true},
		"the proxy writes one":                     {write(proxy, "postern/data"+path), false},
		"the proxy reads metadata":                 {read(proxy, "postern/metadata"+path), false},
		"the proxy reads elsewhere in the mount":   {read(proxy, "postern/data/firms/"+string(firm)), false},
		"the writer reads a credential":            {read(writer, "postern/data"+path), false},
		"the writer reads metadata":                {read(writer, "postern/metadata"+path), true},
		"the writer writes elsewhere in the mount": {write(writer, "postern/data/other"), false},
	} {
		if test.did != test.may {
			t.Errorf("%s: %v, want %v", what, test.did, test.may)
		}
	}
	if _, err := proxy.Logical().List("postern/metadata/firms"); err == nil {
		t.Error("the proxy lists firms")
	}

	cfg := standard(t, v)
	cfg.Auth, *cfg.Writer = *cfg.Writer, cfg.Auth
	swapped, _ := start(t, cfg)
	_, err := swapped.Credential(t.Context(), firm, mailbox)
	wantReason(t, err, vault.ReasonPermission)
	_, err = swapped.SetCredential(t.Context(), firm, mailbox, credentialstest.Password("x", 1))
	wantReason(t, err, vault.ReasonPermission)
	wantReason(t, swapped.DeleteCredential(t.Context(), firm, mailbox), vault.ReasonPermission)
	if _, err = swapped.CredentialVersion(t.Context(), firm, mailbox); err == nil {
		t.Error("the proxy's identity reads versions")
	}
}

func TestNoSuchMount(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	cfg := standard(t, v)
	cfg.Mount = "elsewhere"
	cfg.Auth, cfg.Writer = vault.AuthConfig{TokenFile: writeFile(t, "token", v.RootToken)}, nil
	client, _ := start(t, cfg)
	_, err := client.Credential(t.Context(), broker.NewID(), broker.NewID())
	wantReason(t, err, vault.ReasonMount)
}
