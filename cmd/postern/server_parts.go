// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
)

// newUpstream makes the dialer for providers.
func newUpstream(c *Config, logger *zap.Logger) (broker.Upstream, error) {
	config := upstream.Config{
		Hostname:     c.Hostname,
		DialTimeout:  time.Duration(c.Upstream.DialTimeout),
		LoginTimeout: time.Duration(c.Upstream.LoginTimeout),
		Logger:       logger,
	}
	if c.Upstream.CAFile != "" {
		b, err := os.ReadFile(c.Upstream.CAFile)
		if err != nil {
			return nil, keyError("upstream.ca_file", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, keyError("upstream.ca_file", errors.New(c.Upstream.CAFile+" holds no certificate in PEM form"))
		}
	}
	dialer, err := upstream.New(config)
	if err != nil {
		return nil, keyError("upstream", err)
	}
	return dialer, nil
}

func newCertificates(c *Config, logger *zap.Logger, registry prometheus.Registerer) (*proxy.Certificates, error) {
	certificates, err := proxy.NewCertificates(proxy.CertificatesConfig{
		CertificateFile: c.TLS.Certificate,
		KeyFile:         c.TLS.Key,
		ClientCAFiles:   c.workstationCAFiles(),
		Logger:          logger,
		Registerer:      registry,
	})
	if err != nil {
		return nil, keyError("tls or workstations", err)
	}
	return certificates, nil
}

func loadWorkstationCA(c *Config) (*workstationca.Authority, error) {
	ca, err := workstationca.Load(c.Workstations.EmbeddedCA, workstationca.Config{Validity: time.Duration(c.Workstations.CertificateValidity)})
	if err != nil {
		return nil, keyError("workstations.embedded_ca", err)
	}
	return ca, nil
}

// appPasswordKeySize is the HMAC-SHA-256 key's size in octets.
const appPasswordKeySize = 32

// readTokenKey reads the key of the app passwords' hashes.
func readTokenKey(file string) (broker.Secret, error) {
	const key = "app_passwords.key_file"
	info, err := os.Stat(file)
	if err != nil {
		return broker.Secret{}, keyError(key, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return broker.Secret{}, keyError(key, fmt.Errorf("%s has mode %04o: others could read the key; chmod 0600 it", file, info.Mode().Perm()))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return broker.Secret{}, keyError(key, err)
	}
	if len(b) != appPasswordKeySize {
		n := len(b)
		clear(b)
		return broker.Secret{}, keyError(key, fmt.Errorf("%s holds %d octets; the key has %d", file, n, appPasswordKeySize))
	}
	return broker.NewSecret(b), nil
}
