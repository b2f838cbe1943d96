// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/test/servers"
)

// newTransit starts a Vault with the Transit engine as deployed.
func newTransit(t *testing.T) (*servers.Vault, vault.SignerConfig) {
	t.Helper()
	v := servers.StartVault(t)
	v.Setup("transit")
	v.Setup("policies")
	v.Setup("approle")
	return v, vault.SignerConfig{
		Vault: vault.Config{
			Address: v.Addr, CACert: v.CAFile, Timeout: 25 * time.Second, Logger: zaptest.NewLogger(t),
			Auth: vault.AuthConfig{AppRole: &vault.AppRole{
				RoleID: v.Setup("role-id", "postern-transit"), SecretIDFile: writeFile(t, "secret-id", v.Setup("secret-id", "postern-transit")), Wrapped: true,
			}},
		},
	}
}

// runSigner runs a signer until the test is over.
func runSigner(t *testing.T, cfg vault.SignerConfig) *vault.Signer {
	t.Helper()
	s, err := vault.NewSigner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

// TestSigner has the real engine sign, with the identity of deployments/vault: with
// the version that was configured, also when the key was rotated.
func TestSigner(t *testing.T) {
	t.Parallel()
	v, cfg := newTransit(t)
	s := runSigner(t, cfg)
	message := []byte("acme.example/log\n7\n")
	sign := func(s *vault.Signer) (signature []byte) {
		t.Helper()
		eventually(t, "it is signed", func() (err error) {
			signature, err = s.Sign(t.Context(), message)
			return err
		})
		return signature
	}
	first := sign(s)
	public, err := s.PublicKey(t.Context())
	if err != nil || !ed25519.Verify(public, message, first) {
		t.Fatalf("%x does not verify by %x: %v", first, public, err)
	}

	v.Write("postern-transit/keys/postern-log/rotate", nil)
	if again := sign(s); string(again) != string(first) {
		t.Error("a rotated key signs")
	}
	// A secret-id can be unwrapped once.
	next := cfg
	next.Version = 2
	next.Vault.Auth.AppRole = &vault.AppRole{RoleID: cfg.Vault.Auth.AppRole.RoleID, SecretIDFile: writeFile(t, "secret-id-2", v.Setup("secret-id", "postern-transit")), Wrapped: true}
	second := runSigner(t, next)
	signature := sign(second)
	newer, err := second.PublicKey(t.Context())
	if err != nil || newer.Equal(public) || !ed25519.Verify(newer, message, signature) {
		t.Errorf("version 2 signs as %x: %v", newer, err)
	}
	v.Setup("transit") // it leaves what is there
	if again := sign(s); string(again) != string(first) {
		t.Error("a repeated set-up changed the key")
	}

	v.Seal()
	_, err = s.Sign(t.Context(), message)
	wantReason(t, err, vault.ReasonSealed)
	v.Unseal()
	sign(s)
	v.Write("sys/policies/acl/postern-transit", map[string]any{"policy": `path "nothing" { capabilities = ["read"] }`})
	_, err = s.Sign(t.Context(), message)
	wantReason(t, err, vault.ReasonPermission)
	v.Kill()
	_, err = s.Sign(t.Context(), message)
	wantReason(t, err, vault.ReasonUnreachable, vault.ReasonBreaker)
}

// TestSignerBelievesNoLie: a Vault that answers with anything but the signature.
func TestSignerBelievesNoLie(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString
	message := []byte("a checkpoint")
	key := func(typ, version string, public []byte) string {
		return fmt.Sprintf(`{"data":{"type":%q,"keys":{%q:{"public_key":%q}}}}`, typ, version, encoded(public))
	}
	signed := func(b []byte) string { return `{"data":{"signature":"vault:v1:` + encoded(b) + `"}}` }
	good := key("ed25519", "1", public)
	for _, c := range []struct{ name, key, answer, want string }{
		{"a key of another type", key("ecdsa-p256", "1", public), "", `of type "ecdsa-p256"`},
		{"another version", key("ed25519", "2", public), "", "no version 1"},
		{"a key that is none", key("ed25519", "1", public[1:]), "", "no version 1"},
		{"no key", `<html>`, "", "not a Transit engine's"},
		{"a signature of something else", good, signed(ed25519.Sign(private, []byte("another"))), "something else than the signature"},
		{"half a signature", good, signed(ed25519.Sign(private, message)[:32]), "something else than the signature"},
		{"no base64", good, `{"data":{"signature":"vault:v1:%"}}`, "something else than the signature"},
		{"nothing", good, `{}`, "something else than the signature"},
		{"no JSON", good, `<html>`, "something else than the signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/v1/postern-transit/keys/postern-log":
					fmt.Fprint(out, c.key)
				case "/v1/postern-transit/sign/postern-log":
					fmt.Fprint(out, c.answer)
				default:
					fmt.Fprint(out, `{"data":{"ttl":3600,"renewable":false}}`)
				}
			}))
			t.Cleanup(server.Close)
			s := runSigner(t, vault.SignerConfig{Vault: vault.Config{
				Address: server.URL, Timeout: 10 * time.Second, Logger: zaptest.NewLogger(t),
				Auth: vault.AuthConfig{TokenFile: writeFile(t, "token", "t")},
			}})
			got, err := s.Sign(t.Context(), message)
			if broker.CodeOf(err) != broker.Unavailable || got != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
	for field, cfg := range map[string]vault.SignerConfig{"key": {Key: "a/b"}, "version": {Version: -1}} {
		cfg.Vault = vault.Config{Address: "http://127.0.0.1:1", Auth: vault.AuthConfig{TokenFile: "t"}}
		var e *broker.Error
		if _, err := vault.NewSigner(cfg); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", field, err)
		} else if e, _ = err.(*broker.Error); e == nil || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
