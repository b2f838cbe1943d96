// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// CertificatesConfig is what NewCertificates needs.
type CertificatesConfig struct {
	// CertificateFile holds the server's certificate and its intermediates,
	// KeyFile its key; PEM.
	CertificateFile, KeyFile string
	// ClientCAFiles hold the workstation CAs; PEM bundles.
	ClientCAFiles []string
	Logger        *zap.Logger
	Registerer    prometheus.Registerer
}

// Certificates are the server's certificate and the workstation CAs, reread
// when their files change (Run) or on demand (Reload). What cannot be used
// changes nothing: the certificates loaded before stay.
type Certificates struct {
	config  CertificatesConfig
	logger  *zap.Logger
	expiry  *prometheus.GaugeVec   // which
	reloads *prometheus.CounterVec // result

	mu      sync.Mutex // one Reload at a time; guards files
	files   [][]byte
	current atomic.Pointer[configs]
}

// configs are one generation's. They are shared by all connections, so a
// handshake copies nothing.
type configs struct {
	required, optional *tls.Config
	// anonymous asks for no client certificate.
	anonymous *tls.Config
}

// NewCertificates loads the certificates; the error names the file.
func NewCertificates(config CertificatesConfig) (*Certificates, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	c := &Certificates{
		config: config,
		logger: config.Logger,
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "postern", Name: "certificate_expiry_timestamp_seconds",
			Help: "When the server's certificate (server) and the first of the workstation CAs (workstation-ca) expire.",
		}, []string{"which"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Name: "certificate_reloads_total",
			Help: "Certificates read anew: taken over (ok), or refused and the old ones kept (failed).",
		}, []string{"result"}),
	}
	c.reloads.WithLabelValues("failed") // there as 0
	if err := c.Reload(); err != nil {
		return nil, err
	}
	if config.Registerer != nil {
		if err := errors.Join(config.Registerer.Register(c.expiry), config.Registerer.Register(c.reloads)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Reload reads the files and takes them over for the handshakes to come, all
// or nothing. Files that have not changed are no error.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.read()
	if err == nil && slices.EqualFunc(files, c.files, bytes.Equal) {
		return nil
	}
	if err == nil {
		err = c.take(files)
	}
	if err != nil {
		c.reloads.WithLabelValues("failed").Inc()
		return err
	}
	c.files = files
	c.reloads.WithLabelValues("ok").Inc()
	return nil
}

func (c *Certificates) paths() []string {
	return append([]string{c.config.CertificateFile, c.config.KeyFile}, c.config.ClientCAFiles...)
}

// read returns the contents of paths, in that order.
func (c *Certificates) read() ([][]byte, error) {
	var files [][]byte
	for _, path := range c.paths() {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, b)
	}
	return files, nil
}

// take makes files the current generation.
func (c *Certificates) take(files [][]byte) error {
	pair, err := tls.X509KeyPair(files[0], files[1])
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.config.CertificateFile, c.config.KeyFile, err)
	}
	now := time.Now()
	if now.After(pair.Leaf.NotAfter) {
		return fmt.Errorf("%s: the certificate expired on %s", c.config.CertificateFile, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	roots := x509.NewCertPool()
	var firstToExpire time.Time
	for i, b := range files[2:] {
		cas, err := parseCAs(b)
		if err != nil {
			return fmt.Errorf("%s: %w", c.config.ClientCAFiles[i], err)
		}
		for _, ca := range cas {
			roots.AddCert(ca)
			firstToExpire = earlier(firstToExpire, ca.NotAfter)
		}
	}
	c.current.Store(newConfigs(pair, roots))
	c.expiry.WithLabelValues("server").Set(float64(pair.Leaf.NotAfter.Unix()))
	if !firstToExpire.IsZero() {
		c.expiry.WithLabelValues("workstation-ca").Set(float64(firstToExpire.Unix()))
	}
	c.logger.Info("certificates loaded",
		zap.Strings("names", pair.Leaf.DNSNames), zap.Time("not_after", pair.Leaf.NotAfter))
	return nil
}

// serverConfig returns the config for one handshake.
func (c *Certificates) serverConfig(certificateRequired bool) *tls.Config {
	current := c.current.Load()
	if certificateRequired {
		return current.required
	}
	return current.optional
}

// Anonymous returns a config for listeners whose clients show no certificate,
// with these protocols (RFC 7301). It follows every Reload.
func (c *Certificates) Anonymous(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			current := c.current.Load().anonymous.Clone()
			current.NextProtos = protocols
			return current, nil
		},
	}
}

// newConfigs makes the configs of one generation. ClientAuth only decides
// whether a certificate must come; VerifyConnection, which unlike
// VerifyPeerCertificate would run on a resumed session too, decides whether it
// is good. There are no resumed sessions: a ticket would let a workstation
// back in on the strength of a certificate that has been withdrawn since.
func newConfigs(pair tls.Certificate, roots *x509.CertPool) *configs {
	verified := &verifiedChains{roots: roots}
	required := &tls.Config{
		Certificates:           []tls.Certificate{pair},
		MinVersion:             tls.VersionTLS12,
		ClientAuth:             tls.RequireAnyClientCert,
		ClientCAs:              roots, // tells clients which of their certificates to offer
		SessionTicketsDisabled: true,
		// Small first records help a browser to render; here they only cost
		// system calls.
		DynamicRecordSizingDisabled: true,
		// It is called when a whole ClientHello has come, before anything is
		// computed for it.
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if t, ok := hello.Conn.(*transport); ok && t.hello != nil {
				return nil, t.hello(hello.Context())
			}
			return nil, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			return verified.verify(state.PeerCertificates, time.Now())
		},
	}
	optional := required.Clone()
	optional.ClientAuth = tls.RequestClientCert
	anonymous := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
	}
	return &configs{required: required, optional: optional, anonymous: anonymous}
}

// parseCAs reads a PEM bundle, which must hold CA certificates and nothing
// else.
func parseCAs(b []byte) ([]*x509.Certificate, error) {
	var cas []*x509.Certificate
	for {
		var block *pem.Block
		block, b = pem.Decode(b)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s; only CERTIFICATE blocks belong here", block.Type)
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !ca.IsCA {
			return nil, fmt.Errorf("the certificate of %q is not a CA's", ca.Subject)
		}
		cas = append(cas, ca)
	}
	if len(cas) == 0 {
		return nil, errors.New("holds no certificate in PEM form")
	}
	return cas, nil
}
