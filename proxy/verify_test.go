// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"
)

// issue makes a certificate; without a parent a CA of its own.
func issue(t *testing.T, parent *x509.Certificate, signer *ecdsa.PrivateKey, from, to time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: parent == nil,
	}
	if parent == nil {
		template.KeyUsage = x509.KeyUsageCertSign
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// TestNever4ARememberedCertificateStillExpires: what was found good once is
// not good before and after its time, nor when its CA's time is over, nor
// under other roots.
func TestNever4ARememberedCertificateStillExpires(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ca, caKey := issue(t, nil, nil, now.Add(-time.Hour), now.Add(time.Hour))
	short, _ := issue(t, ca, caKey, now.Add(-time.Minute), now.Add(time.Minute))
	long, _ := issue(t, ca, caKey, now.Add(-time.Minute), now.Add(24*time.Hour))
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	v := &verifiedChains{roots: roots}
	for _, test := range []struct {
		name string
		leaf *x509.Certificate
		at   time.Time
		good bool
	}{
		{"first", short, now, true},
		{"again", short, now, true},
		{"at its last second", short, now.Add(time.Minute), true},
		{"after it", short, now.Add(time.Minute + time.Second), false},
		{"before its time", short, now.Add(-time.Minute - time.Second), false},
		{"outlives its CA", long, now, true},
		{"after its CA's end", long, now.Add(time.Hour + time.Second), false},
	} {
		if err := v.verify([]*x509.Certificate{test.leaf}, test.at); (err == nil) != test.good {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if len(v.good) != 2 {
		t.Errorf("%d chains are remembered", len(v.good))
	}
	if err := (&verifiedChains{roots: x509.NewCertPool()}).verify([]*x509.Certificate{short}, now); err == nil {
		t.Error("good under other roots")
	}
}

// TestAChainIsItsOctets: another certificate, or one more, is another chain.
func TestAChainIsItsOctets(t *testing.T) {
	now := time.Now()
	ca, caKey := issue(t, nil, nil, now.Add(-time.Hour), now.Add(time.Hour))
	one, _ := issue(t, ca, caKey, now.Add(-time.Hour), now.Add(time.Hour))
	two, _ := issue(t, ca, caKey, now.Add(-time.Hour), now.Add(time.Hour))
	keys := map[[32]byte]bool{}
	for _, chain := range [][]*x509.Certificate{{one}, {two}, {one, ca}, {one, two}, {two, one}} {
		keys[chainKey(chain)] = true
	}
	if len(keys) != 5 {
		t.Errorf("%d keys of 5 chains", len(keys))
	}
}
