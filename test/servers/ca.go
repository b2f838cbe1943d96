// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const certificateLife = 24 * time.Hour

// CA is a certificate authority that lives as long as its test.
type CA struct {
	// PEM is the CA's certificate, and File a file that holds it.
	PEM  []byte
	File string

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	made int
}

// Certificate is a certificate with its key, in memory and as files.
type Certificate struct {
	TLS      tls.Certificate
	CertFile string
	KeyFile  string
}

// NewCA makes a certificate authority.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t, dir: t.TempDir(), key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber:          newSerial(t),
		Subject:               pkix.Name{CommonName: "Postern test CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certificateLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ca.key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	ca.PEM = pemBlock("CERTIFICATE", der)
	ca.File = filepath.Join(ca.dir, "ca.pem")
	writeFile(t, ca.File, string(ca.PEM), 0o644)
	return ca
}

// Pool returns a pool that holds the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Issue makes a server certificate for DNS names and IP addresses; without
// any, for localhost and 127.0.0.1.
func (ca *CA) Issue(names ...string) *Certificate {
	ca.t.Helper()
	return ca.issue(x509.ExtKeyUsageServerAuth, names, time.Now().Add(certificateLife))
}

// IssueExpired makes a server certificate that ended an hour ago.
func (ca *CA) IssueExpired(names ...string) *Certificate {
	ca.t.Helper()
	return ca.issue(x509.ExtKeyUsageServerAuth, names, time.Now().Add(-time.Hour))
}

// IssueWrongName makes a server certificate that names some other host.
func (ca *CA) IssueWrongName() *Certificate {
	ca.t.Helper()
	return ca.Issue("elsewhere.example")
}

// IssueClient makes a client certificate, as a workstation has.
func (ca *CA) IssueClient(name string) *Certificate {
	ca.t.Helper()
	return ca.issue(x509.ExtKeyUsageClientAuth, []string{name}, time.Now().Add(certificateLife))
}

// IssueExpiredClient makes a client certificate that ended an hour ago.
func (ca *CA) IssueExpiredClient(name string) *Certificate {
	ca.t.Helper()
	return ca.issue(x509.ExtKeyUsageClientAuth, []string{name}, time.Now().Add(-time.Hour))
}

func (ca *CA) issue(usage x509.ExtKeyUsage, names []string, notAfter time.Time) *Certificate {
	ca.t.Helper()
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1"}
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(ca.t),
		Subject:      pkix.Name{CommonName: names[0]},
		NotBefore:    notAfter.Add(-2 * certificateLife),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key := newKey(ca.t)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	certPEM, keyPEM := pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", keyDER)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		ca.t.Fatal(err)
	}
	ca.made++
	c := &Certificate{
		TLS:      pair,
		CertFile: filepath.Join(ca.dir, strconv.Itoa(ca.made)+".pem"),
		KeyFile:  filepath.Join(ca.dir, strconv.Itoa(ca.made)+".key"),
	}
	writeFile(ca.t, c.CertFile, string(bytes.Join([][]byte{certPEM, ca.PEM}, nil)), 0o644)
	writeFile(ca.t, c.KeyFile, string(keyPEM), 0o600)
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSerial(t testing.TB) *big.Int {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return serial
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// logTail returns the end of a log file, for a test that failed.
func logTail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}
