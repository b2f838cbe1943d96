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
	"github.com/postern-mail/postern/broker/oauth"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/proxy"
)

// newUpstream makes the dialer for providers.
func newUpstream(c *Config, logger *zap.Logger) (broker.Upstream, error) {
	roots, err := readCAs("upstream.ca_file", c.Upstream.CAFile)
	if err != nil {
		return nil, err
	}
	config := upstream.Config{
		RootCAs:      roots,
		Hostname:     c.Hostname,
		DialTimeout:  time.Duration(c.Upstream.DialTimeout),
		LoginTimeout: time.Duration(c.Upstream.LoginTimeout),
		Logger:       logger,
	}
	dialer, err := upstream.New(config)
	if err != nil {
		return nil, keyError("upstream", err)
	}
	return dialer, nil
}

// newOAuth makes what stands before it, and mints access tokens.
func newOAuth(c *Config, dialer broker.Upstream, credentials broker.Credentials, logger *zap.Logger, registry prometheus.Registerer) (*oauth.Upstream, error) {
	roots, err := readCAs("oauth.ca_file", c.OAuth.CAFile)
	if err != nil {
		return nil, err
	}
	u, err := oauth.New(oauth.Config{
		Upstream:    dialer,
		Credentials: credentials,
		RootCAs:     roots,
		Networks:    c.OAuth.Networks,
		Timeout:     time.Duration(c.OAuth.Timeout),
		Logger:      logger,
		Registerer:  registry,
	})
	if err != nil {
		return nil, keyError("oauth", err)
	}
	return u, nil
}

// readCAs reads a bundle of CAs; nil: the system's.
func readCAs(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, keyError(key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, keyError(key, errors.New(file+" holds no certificate in PEM form"))
	}
	return roots, nil
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
