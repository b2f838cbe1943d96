// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/broker"
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

	certificateFile, keyFile string
	roots                    *x509.CertPool
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
	w.certificateFile, w.keyFile = filepath.Join(dir, profileCertificateFile), filepath.Join(dir, profileKeyFile)
	ca, err := os.ReadFile(filepath.Join(dir, profileCAFile))
	switch {
	case errors.Is(err, fs.ErrNotExist): // the system's
	case err != nil:
		return nil, err
	default:
		w.roots = x509.NewCertPool()
		if !w.roots.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, profileCAFile))
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
	c, err := tls.LoadX509KeyPair(w.certificateFile, w.keyFile)
	if err != nil {
		return nil, err
	}
	if end := c.Leaf.NotAfter; !time.Now().Before(end) {
		return nil, fmt.Errorf("the certificate in %s expired on %s: enrol this machine again", w.certificateFile, stamp(end))
	}
	return &c, nil
}
