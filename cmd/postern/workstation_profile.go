// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/connect/tpmkey"
)

// Files of the directory that workstation enrol makes.
const (
	profileFile            = "workstation.json"
	profileKeyFile         = "key.pem"
	profileCertificateFile = "certificate.pem"
	profileCAFile          = "ca.pem"
)

// localWorkstation is this machine as Postern knows it.
type localWorkstation struct {
	Name  string                  `json:"name"`
	Class broker.WorkstationClass `json:"class"`
	// APIServer is HOST:PORT of the API, or empty for a socket; MailServer the
	// host of the mail ports.
	APIServer  string `json:"api_server,omitempty"`
	MailServer string `json:"mail_server,omitempty"`

	// TPMDevice is where the TPM is that has the key; empty: the key is in a
	// file.
	TPMDevice string `json:"tpm_device,omitempty"`

	certificateFile, keyFile string
	// caFile holds what verifies Postern's certificates, and roots are it;
	// without them, the system's do.
	caFile string
	roots  *x509.CertPool
}

// defaultProfileDir is in the user's own configuration; empty when he has none.
func defaultProfileDir() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "postern", "workstation")
}

// loadProfile reads what workstation enrol wrote.
func loadProfile(dir string) (*localWorkstation, error) {
	b, err := os.ReadFile(filepath.Join(dir, profileFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("this machine is not enrolled in %s: use 'postern workstation enrol', or --certificate and --key", dir)
	}
	if err != nil {
		return nil, err
	}
	w := &localWorkstation{}
	if err := json.Unmarshal(b, w); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, profileFile), err)
	}
	w.caFile = filepath.Join(dir, profileCAFile)
	w.certificateFile, w.keyFile = filepath.Join(dir, profileCertificateFile), filepath.Join(dir, profileKeyFile)
	ca, err := os.ReadFile(w.caFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.caFile = ""
	case err != nil:
		return nil, err
	default:
		w.roots = x509.NewCertPool()
		if !w.roots.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate", w.caFile)
		}
	}
	return w, nil
}

// identity reads certificate and key, as they are now.
func (w *localWorkstation) identity() (*tls.Certificate, error) {
	info, err := os.Stat(w.keyFile)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others could read the key; chmod 0600 it", w.keyFile, mode)
	}
	c, err := w.pair()
	if err != nil {
		return nil, err
	}
	if end := c.Leaf.NotAfter; !time.Now().Before(end) {
		return nil, fmt.Errorf("the certificate in %s expired on %s: enrol this machine again", w.certificateFile, stamp(end))
	}
	return c, nil
}

func (w *localWorkstation) pair() (*tls.Certificate, error) {
	kept, err := os.ReadFile(w.keyFile)
	if err != nil {
		return nil, err
	}
	defer clear(kept)
	certificate, err := os.ReadFile(w.certificateFile)
	if err != nil {
		return nil, err
	}
	if !tpmkey.Is(kept) {
		c, err := tls.X509KeyPair(certificate, kept)
		return &c, err
	}
	device := w.TPMDevice
	if device == "" {
		device = tpmkey.DefaultDevice
	}
	key, err := tpmkey.Load(tpmkey.At(device), kept)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(certificate)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", w.certificateFile)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.certificateFile, err)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("%s is not the certificate of the key beside it", w.certificateFile)
	}
	return &tls.Certificate{
		Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf,
		SupportedSignatureAlgorithms: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	}, nil
}
