// SPDX-License-Identifier: Apache-2.0

package workstationca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/broker"
)

// The files of an authority in its directory.
const (
	CertificateFile = "workstation-ca.pem"
	KeyFile         = "workstation-ca.key"
)

// Validities.
const (
	// AuthorityValidity is the authority's own.
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	// DefaultValidity is a workstation's. It bounds how long a stolen laptop's
	// certificate lives if nobody reports it.
	DefaultValidity = 90 * 24 * time.Hour
	// MaxValidity is the most that Config.Validity may be.
	MaxValidity = 2 * 365 * 24 * time.Hour
	// ServerValidity is a server certificate's; some clients refuse more than
	// 398 days.
	ServerValidity = 397 * 24 * time.Hour
	// backdated makes up for clocks that are behind.
	backdated = 5 * time.Minute
)

// Config has no required field.
type Config struct {
	// Validity of the certificates for workstations; 0: DefaultValidity.
	Validity time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	if c.Validity == 0 {
		c.Validity = DefaultValidity
	}
	if c.Validity < time.Hour || c.Validity > MaxValidity {
		return c, fmt.Errorf("workstation CA: validity %s is not between 1h and %s", c.Validity, MaxValidity)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

// Authority signs certificates. Its methods may be called from any goroutine.
type Authority struct {
	config      Config
	key         crypto.Signer
	certificate *x509.Certificate
}

// Create makes an authority and its files in dir, which must exist. It
// overwrites nothing: the error then is fs.ErrExist.
func Create(dir string, config Config) (*Authority, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := config.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Postern workstation CA " + serial.Text(16)[:8]},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(AuthorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	// The key first: without it the certificate is of no use, and its absence
	// is what Load complains of.
	if err := writeNew(filepath.Join(dir, KeyFile), keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, CertificateFile), encodeCertificate(der), 0o644); err != nil {
		return nil, err
	}
	return Load(dir, config)
}

// Load reads the authority in dir; there is none: fs.ErrNotExist. A key that
// others than its owner can read is refused.
func Load(dir string, config Config) (*Authority, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	key, err := loadKey(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, CertificateFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no certificate in PEM form", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(key.Public()) || !certificate.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of the key beside it", path)
	}
	return &Authority{config: config, key: key, certificate: certificate}, nil
}

// CertificatePEM returns the authority's own certificate.
func (a *Authority) CertificatePEM() []byte { return encodeCertificate(a.certificate.Raw) }

// Verify checks that the authority issued a client certificate, which is valid
// now.
func (a *Authority) Verify(c *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	_, err := c.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: a.config.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// Issue signs a client certificate for w from a certificate request (PKCS
// #10, PEM), whose key must be w's own: Issue does not pin it. The error is
// Invalid, with the field "csr", when the request is not good, and Internal
// otherwise.
func (a *Authority) Issue(_ context.Context, csrPEM []byte, w *broker.Workstation) (certPEM []byte, err error) {
	uri, err := w.URI()
	if err != nil {
		return nil, err
	}
	csr, err := broker.ParseCertificateRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	der, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: w.Name},
		URIs:        []*url.URL{uri},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, csr.PublicKey, a.config.Validity)
	if err != nil {
		return nil, broker.Errorf(broker.Internal, "the certificate could not be signed").WithCause(err)
	}
	return encodeCertificate(der), nil
}

// IssueServer makes a key and a server certificate for names, which are host
// names or IP addresses. The certificate comes with the authority's own after
// it.
func (a *Authority) IssueServer(names []string) (certPEM, keyPEM []byte, err error) {
	if len(names) == 0 {
		return nil, nil, errors.New("workstation CA: a server certificate needs a name")
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(template, key.Public(), ServerValidity)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return append(encodeCertificate(der), a.CertificatePEM()...), keyPEM, nil
}

// sign fills in serial number and validity; a certificate never outlives the
// authority.
func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey, validity time.Duration) ([]byte, error) {
	now := a.config.Now()
	if !now.Before(a.certificate.NotAfter) {
		return nil, fmt.Errorf("the workstation CA expired on %s", a.certificate.NotAfter.UTC().Format(time.DateOnly))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-backdated)
	template.NotAfter = now.Add(validity)
	if template.NotAfter.After(a.certificate.NotAfter) {
		template.NotAfter = a.certificate.NotAfter
	}
	template.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
}

// newSerial returns 127 random bits, so that the number stays positive in 16
// octets (RFC 5280 §4.1.2.2).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil // never zero, never short
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others could read the key; chmod 0600 it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s: no private key in PEM form (PKCS #8)", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: not a private key in PKCS #8 form", path)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", path)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// writeNew writes a file that must not exist, and makes it durable.
func writeNew(path string, b []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}
