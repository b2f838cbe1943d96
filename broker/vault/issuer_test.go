// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/test/servers"
)

// newPKI starts a Vault with the PKI engine as deployed.
func newPKI(t *testing.T) (*servers.Vault, vault.IssuerConfig) {
	t.Helper()
	v := servers.StartVault(t)
	v.Setup("pki")
	v.Setup("policies")
	v.Setup("approle")
	return v, vault.IssuerConfig{
		Vault: vault.Config{
			Address: v.Addr, CACert: v.CAFile, Timeout: 25 * time.Second, Logger: zaptest.NewLogger(t),
			Auth: vault.AuthConfig{AppRole: &vault.AppRole{
				RoleID: v.Setup("role-id", "postern-pki"), SecretIDFile: writeFile(t, "secret-id", v.Setup("secret-id", "postern-pki")), Wrapped: true,
			}},
		},
		AuthorityFile: writeFile(t, "authority.pem", v.Setup("pki-ca")),
		Validity:      48 * time.Hour,
	}
}

// runIssuer runs an issuer until the test is over.
func runIssuer(t *testing.T, cfg vault.IssuerConfig) *vault.Issuer {
	t.Helper()
	i, err := vault.NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return i
}

func newRequest(t testing.TB, template *x509.CertificateRequest) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key
}

func parseCertificate(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatalf("no PEM: %s", certPEM)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestIssuer has the real engine sign, with the identity and the role of
// deployments/vault.
func TestIssuer(t *testing.T) {
	t.Parallel()
	v, cfg := newPKI(t)
	i := runIssuer(t, cfg)
	w := &broker.Workstation{ID: broker.NewID(), Name: "Pune 07, Zoë's"}
	// A request that asks for more, under another's name.
	csr, key := newRequest(t, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "desk-1", Organization: []string{"someone else"}}, DNSNames: []string{"imap.postern.example"},
	})
	certPEM, err := i.Issue(t.Context(), csr, w)
	if err != nil {
		t.Fatal(err)
	}
	c := parseCertificate(t, certPEM)
	if c.Subject.CommonName != w.Name || len(c.Subject.Names) != 1 || len(c.DNSNames) > 0 ||
		len(c.URIs) != 1 || c.URIs[0].String() != "urn:uuid:"+string(w.ID) {
		t.Errorf("subject %s, names %v %v", c.Subject, c.DNSNames, c.URIs)
	}
	if !key.PublicKey.Equal(c.PublicKey) || c.IsCA || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("the certificate is another's, or for something else")
	}
	if left := time.Until(c.NotAfter); left > 48*time.Hour || left < 47*time.Hour {
		t.Errorf("valid for %s", left)
	}
	if err := i.Verify(c); err != nil {
		t.Error(err)
	}
	if roots := x509.NewCertPool(); !roots.AppendCertsFromPEM(i.CertificatePEM()) {
		t.Error("the authority's certificate is not PEM")
	}
	if _, err := i.Issue(t.Context(), []byte("hello"), w); broker.CodeOf(err) != broker.Invalid {
		t.Errorf("a request that is none: %v", err)
	}

	record := &broker.WorkstationCertified{Serial: broker.SerialNumber(c), Issuer: c.Issuer.String()}
	for range 2 { // revoking again is no error
		if err := i.Revoke(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	list, err := v.Client().Logical().Read("postern-pki/cert/" + strings.ReplaceAll(record.Serial, ":", "-"))
	if err != nil || fmt.Sprint(list.Data["revocation_time"]) == "0" {
		t.Errorf("Vault does not have it as revoked: %v, %v", list, err)
	}
	unknown := &broker.WorkstationCertified{Serial: "01:02:03", Issuer: c.Issuer.String()}
	if err := i.Revoke(t.Context(), unknown); err != nil {
		t.Errorf("a certificate that Vault does not know: %v", err)
	}
	unknown.Issuer = "CN=elsewhere"
	if err := i.Revoke(t.Context(), unknown); err != nil {
		t.Errorf("another's certificate: %v", err)
	}

	// A role that gives more, or something else, than was asked for is not
	// believed; one that refuses is quoted in the log alone.
	role, err := v.Client().Logical().Read("postern-pki/roles/workstation")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]map[string]any{
		"it is for something else than a TLS client": {"server_flag": true},
		"its subject is":        {"organization": []string{"Elsewhere"}},
		"its key may not sign":  {"key_usage": []string{"KeyAgreement"}},
		"vault refuses to sign": {"allowed_uri_sans": []string{"https://*"}},
	} {
		changed := map[string]any{}
		for k, value := range role.Data {
			changed[k] = value
		}
		for k, value := range change {
			changed[k] = value
		}
		v.Write("postern-pki/roles/workstation", changed)
		_, err := i.Issue(t.Context(), csr, w)
		if broker.CodeOf(err) != broker.Unavailable || !strings.Contains(err.Error(), name) || strings.Contains(broker.PublicText(err), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.Write("postern-pki/roles/workstation", role.Data)
	if _, err := i.Issue(t.Context(), csr, w); err != nil {
		t.Errorf("after all: %v", err)
	}
}

// TestIssuerOfAnotherAuthority: what Vault signs counts only if a CA that was
// named beforehand did it.
func TestIssuerOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	v, cfg := newPKI(t)
	i := runIssuer(t, cfg)
	csr, _ := newRequest(t, &x509.CertificateRequest{})
	w := &broker.Workstation{ID: broker.NewID(), Name: "pune-07"}
	if _, err := i.Issue(t.Context(), csr, w); err != nil {
		t.Fatal(err)
	}
	// Somebody makes another CA the engine's own.
	made := v.Write("postern-pki/root/generate/internal", map[string]any{"common_name": "Postern workstation CA", "key_type": "ec", "ttl": "8760h"})
	v.Write("postern-pki/config/issuers", map[string]any{"default": made["issuer_id"]})
	if _, err := i.Issue(t.Context(), csr, w); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("what another CA signed: %v", err)
	} else if e := (*broker.Error)(nil); !errors.As(err, &e) || e.Reason != vault.ReasonAnswer {
		t.Errorf("what another CA signed: %v", err)
	}
}

// TestIssuerOutages: down, sealed, closed to Postern.
func TestIssuerOutages(t *testing.T) {
	t.Parallel()
	v, cfg := newPKI(t)
	i := runIssuer(t, cfg)
	csr, _ := newRequest(t, &x509.CertificateRequest{})
	w := &broker.Workstation{ID: broker.NewID(), Name: "pune-07"}
	eventually(t, "a certificate is issued", func() error {
		_, err := i.Issue(t.Context(), csr, w)
		return err
	})
	v.Seal()
	_, err := i.Issue(t.Context(), csr, w)
	wantReason(t, err, vault.ReasonSealed)
	if !strings.Contains(broker.PublicText(err), "nothing was issued") {
		t.Errorf("a person is told %q", broker.PublicText(err))
	}
	v.Unseal()
	eventually(t, "a certificate is issued after the unsealing", func() error {
		_, err := i.Issue(t.Context(), csr, w)
		return err
	})
	v.Write("sys/policies/acl/postern-pki", map[string]any{"policy": `path "nothing" { capabilities = ["read"] }`})
	_, err = i.Issue(t.Context(), csr, w)
	wantReason(t, err, vault.ReasonPermission)
	v.Kill()
	_, err = i.Issue(t.Context(), csr, w)
	wantReason(t, err, vault.ReasonUnreachable, vault.ReasonBreaker)
}

// TestIssuerBelievesNoLie: a Vault that answers with anything but the
// certificate that was asked for.
func TestIssuerBelievesNoLie(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := workstationca.Create(dir, workstationca.Config{Validity: 96 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	w := &broker.Workstation{ID: broker.NewID(), Name: "pune-07"}
	other := &broker.Workstation{ID: broker.NewID(), Name: "pune-07"}
	renamed := &broker.Workstation{ID: w.ID, Name: "PUNE-07"}
	csr, _ := newRequest(t, &x509.CertificateRequest{})
	foreign, _ := newRequest(t, &x509.CertificateRequest{})
	issue := func(csr []byte, w *broker.Workstation) string {
		b, err := ca.Issue(t.Context(), csr, w)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	serverPEM, _, err := ca.IssueServer([]string{"pune-07"})
	if err != nil {
		t.Fatal(err)
	}
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/postern-pki/sign/workstation" {
			fmt.Fprint(out, `{"data":{"ttl":3600,"renewable":false}}`)
			return
		}
		fmt.Fprint(out, answer)
	}))
	t.Cleanup(server.Close)
	i := runIssuer(t, vault.IssuerConfig{
		Vault: vault.Config{
			Address: server.URL, Timeout: 10 * time.Second, Logger: zaptest.NewLogger(t),
			Auth: vault.AuthConfig{TokenFile: writeFile(t, "token", "t")},
		},
		AuthorityFile: filepath.Join(dir, workstationca.CertificateFile), Validity: 24 * time.Hour,
	})
	good := func(certPEM string) string { return fmt.Sprintf(`{"data":{"certificate":%q}}`, certPEM) }
	for _, c := range []struct{ name, answer, want string }{
		{"another key", good(issue(foreign, w)), "its key is another"},
		{"another name", good(issue(csr, renamed)), `its subject is "CN=PUNE-07"`},
		{"another id", good(issue(csr, other)), "its alternative names are"},
		{"a server's", good(string(serverPEM)), "not one certificate"},
		{"too long a time", good(issue(csr, w)), "it is valid until"},
		{"two certificates", good(issue(csr, w) + issue(csr, w)), "not one certificate"},
		{"the CA's own", good(string(ca.CertificatePEM())), "its key is another"},
		{"no certificate", good("hello"), "not one certificate"},
		{"nothing", `{}`, "not one certificate"},
		{"no JSON", `<html>`, "not a PKI engine's"},
	} {
		answer = c.answer
		got, err := i.Issue(t.Context(), csr, w)
		if broker.CodeOf(err) != broker.Unavailable || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
}
