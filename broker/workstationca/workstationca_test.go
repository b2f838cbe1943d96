// SPDX-License-Identifier: Apache-2.0

package workstationca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/workstationca"
)

func workstation() *broker.Workstation {
	return &broker.Workstation{ID: broker.NewID(), Name: "desk-7", Class: broker.ClassSoftware}
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// request makes a certificate request in PEM.
func request(t testing.TB, template *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	if block == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func create(t testing.TB) *workstationca.Authority {
	t.Helper()
	a, err := workstationca.Create(t.TempDir(), workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pool(t *testing.T, a *workstationca.Authority) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CertificatePEM()) {
		t.Fatal("the authority's certificate is not PEM")
	}
	return roots
}

func TestIssueTakesNothingButTheKey(t *testing.T) {
	a, w, key := create(t), workstation(), ecKey(t, elliptic.P256())
	// A request that asks to be a CA and a server under another's name.
	basic, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	csr := request(t, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "desk-1", Organization: []string{"someone else"}},
		DNSNames: []string{"imap.postern.example"},
		ExtraExtensions: []pkix.Extension{
			{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}, // CA:TRUE
			{Id: []int{2, 5, 29, 37}, Value: []byte{0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01}},
		},
	}, key)
	certPEM, err := a.Issue(t.Context(), csr, w)
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, certPEM)
	if c.Subject.CommonName != "desk-7" || len(c.Subject.Names) != 1 {
		t.Errorf("subject is %s, want CN=desk-7 alone", c.Subject)
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != "urn:uuid:"+string(w.ID) {
		t.Errorf("URIs are %v", c.URIs)
	}
	if c.IsCA || len(c.DNSNames) != 0 {
		t.Errorf("what was asked for was granted: CA %v, names %v", c.IsCA, c.DNSNames)
	}
	if len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("extended key usages are %v", c.ExtKeyUsage)
	}
	if string(c.RawSubjectPublicKeyInfo) != string(basic) {
		t.Error("it certifies another key")
	}
	if left := time.Until(c.NotAfter); left > workstationca.DefaultValidity || left < workstationca.DefaultValidity-time.Minute {
		t.Errorf("valid for %s", left)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
}

func TestIssueRefusesBadRequests(t *testing.T) {
	a := create(t)
	good := request(t, &x509.CertificateRequest{}, ecKey(t, elliptic.P256()))
	block, _ := pem.Decode(good)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		csr  []byte
		want string
	}{
		"empty":           {nil, "not a certificate request"},
		"not a request":   {a.CertificatePEM(), "not a certificate request"},
		"not DER":         {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "not a certificate request"},
		"two":             {append(append([]byte(nil), good...), good...), "more than one"},
		"huge":            {[]byte(strings.Repeat("\n", 1<<20)), "larger"},
		"wrong signature": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}), "signature"},
		"P-224":           {request(t, &x509.CertificateRequest{}, ecKey(t, elliptic.P224())), "P-224"},
		"RSA 1024":        {request(t, &x509.CertificateRequest{}, weak), "1024 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Issue(t.Context(), tc.csr, workstation())
			var e *broker.Error
			if !errors.As(err, &e) || e.Code != broker.Invalid || e.Field != "csr" || !strings.Contains(e.Public, tc.want) {
				t.Fatalf("error is %v, want one about the csr that says %q", err, tc.want)
			}
		})
	}
	if _, err := a.Issue(t.Context(), good, &broker.Workstation{ID: "../x", Name: "x"}); broker.CodeOf(err) != broker.Internal {
		t.Errorf("an id that is none: %v", err)
	}
}

func TestIssueAcceptsKeysInUse(t *testing.T) {
	a := create(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-384": ecKey(t, elliptic.P384()), "Ed25519": ed, "RSA 2048": strong} {
		if _, err := a.Issue(t.Context(), request(t, &x509.CertificateRequest{}, key), workstation()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCreateOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	first, err := workstationca.Create(dir, workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := workstationca.Create(dir, workstationca.Config{}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second Create: %v", err)
	}
	again, err := workstationca.Load(dir, workstationca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if string(first.CertificatePEM()) != string(again.CertificatePEM()) {
		t.Error("the authority changed")
	}
	info, err := os.Stat(filepath.Join(dir, workstationca.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %04o", info.Mode().Perm())
	}
}

func TestLoadRefuses(t *testing.T) {
	key := func(dir string) string { return filepath.Join(dir, workstationca.KeyFile) }
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string) error
		want  string
	}{
		"a key that others can read": {func(_ *testing.T, dir string) error { return os.Chmod(key(dir), 0o640) }, "mode 0640"},
		"a key that is none":         {func(_ *testing.T, dir string) error { return os.WriteFile(key(dir), []byte("x"), 0o600) }, "no private key"},
		"another's key": {func(t *testing.T, dir string) error {
			other := t.TempDir()
			if _, err := workstationca.Create(other, workstationca.Config{}); err != nil {
				return err
			}
			b, err := os.ReadFile(key(other))
			if err != nil {
				return err
			}
			return os.WriteFile(key(dir), b, 0o600)
		}, "not the certificate of the key"},
		"no certificate": {func(_ *testing.T, dir string) error {
			return os.Remove(filepath.Join(dir, workstationca.CertificateFile))
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := workstationca.Create(dir, workstationca.Config{}); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(t, dir); err != nil {
				t.Fatal(err)
			}
			if _, err := workstationca.Load(dir, workstationca.Config{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error is %v, want one that says %q", err, tc.want)
			}
		})
	}
}

func TestIssueServer(t *testing.T) {
	a := create(t)
	certPEM, keyPEM, err := a.IssueServer([]string{"imap.postern.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(keyPEM); block == nil || block.Type != "PRIVATE KEY" {
		t.Error("no key in PEM form")
	}
	c := parse(t, certPEM)
	for _, name := range []string{"imap.postern.example", "127.0.0.1"} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool(t, a), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the server's certificate would pass as a workstation's")
	}
}

func TestCertificateEndsWithTheAuthority(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	config := workstationca.Config{Now: func() time.Time { return now }}
	a, err := workstationca.Create(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	csr := request(t, &x509.CertificateRequest{}, ecKey(t, elliptic.P256()))
	end := parse(t, a.CertificatePEM()).NotAfter
	now = end.Add(-24 * time.Hour)
	certPEM, err := a.Issue(t.Context(), csr, workstation())
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, certPEM).NotAfter; !got.Equal(end) {
		t.Errorf("the certificate ends on %s, the authority on %s", got, end)
	}
	now = end.Add(time.Second)
	if _, err := a.Issue(t.Context(), csr, workstation()); err == nil {
		t.Error("an authority that has expired signed")
	}
}

func TestSerialsAreRandomAndPositive(t *testing.T) {
	a := create(t)
	csr := request(t, &x509.CertificateRequest{}, ecKey(t, elliptic.P256()))
	seen := make(map[string]bool)
	for range 50 {
		certPEM, err := a.Issue(t.Context(), csr, workstation())
		if err != nil {
			t.Fatal(err)
		}
		n := parse(t, certPEM).SerialNumber
		if n.Cmp(big.NewInt(0)) <= 0 || n.BitLen() > 159 || seen[n.String()] {
			t.Fatalf("serial %s is not positive, too long or not new", n)
		}
		seen[n.String()] = true
	}
}

func FuzzIssue(f *testing.F) {
	a := create(f)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request(f, &x509.CertificateRequest{}, key))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, csr []byte) {
		certPEM, err := a.Issue(t.Context(), csr, workstation())
		if err == nil {
			if c := parse(t, certPEM); c.IsCA || len(c.ExtKeyUsage) != 1 || len(c.DNSNames) != 0 {
				t.Fatalf("a certificate for more than a client: %+v", c)
			}
			return
		}
		if broker.CodeOf(err) != broker.Invalid {
			t.Fatalf("the request is at fault, yet: %v", err)
		}
	})
}
