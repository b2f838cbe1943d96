// SPDX-License-Identifier: Apache-2.0

// Package companycatest is a company's CA that tests make when they run. Only
// tests import it.
package companycatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs what it is told to. Its certificate and key may be put together with
// another's.
type CA struct {
	t           testing.TB
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// New makes a root; change may alter its template.
func New(t testing.TB, name string, change ...func(*x509.Certificate)) *CA {
	t.Helper()
	return (&CA{t: t}).Below(name, change...)
}

// Root signs a root's certificate for a key: another one of the same CA, if the
// name is its own.
func Root(t testing.TB, name string, key *ecdsa.PrivateKey, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	return (&CA{t: t}).Certify(name, key, change...)
}

// Below makes a CA that c has signed.
func (c *CA) Below(name string, change ...func(*x509.Certificate)) *CA {
	c.t.Helper()
	key := newKey(c.t)
	return &CA{t: c.t, Certificate: c.Certify(name, key, change...), Key: key}
}

// Certify signs the certificate of a CA below, for its key.
func (c *CA) Certify(name string, key *ecdsa.PrivateKey, change ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return c.sign(template, key, change)
}

// Issue makes a key and a client's certificate for it; change may alter the
// template.
func (c *CA) Issue(change ...func(*x509.Certificate)) tls.Certificate {
	c.t.Helper()
	key := newKey(c.t)
	leaf := c.IssueFor(key, change...)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// IssueFor makes a client's certificate for a key.
func (c *CA) IssueFor(key *ecdsa.PrivateKey, change ...func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	template := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return c.sign(template, key, change)
}

func (c *CA) sign(template *x509.Certificate, key *ecdsa.PrivateKey, change []func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber = number
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	for _, f := range change {
		f(template)
	}
	issuer, signer := c.Certificate, c.Key
	if issuer == nil {
		issuer, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return made
}

// File writes the CA's certificate, and others, in PEM.
func (c *CA) File(others ...*x509.Certificate) string {
	c.t.Helper()
	return PEMFile(c.t, append([]*x509.Certificate{c.Certificate}, others...)...)
}

// PEMFile writes certificates into a file.
func PEMFile(t testing.TB, all ...*x509.Certificate) string {
	t.Helper()
	var text []byte
	for _, one := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: one.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
