// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/session"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapfilter"
	"github.com/postern-mail/postern/proxy/submission"
)

// server is all of `postern serve` in one process. newServer opens what it
// needs, listeners included; Run serves until it is told to stop; Close lets go.
type server struct {
	config   *Config
	logger   *zap.Logger
	registry *prometheus.Registry

	store        *store.Store
	log          *audit.Log
	credentials  credentials
	manager      *session.Manager
	networkOnly  *networkOnly
	certificates *proxy.Certificates
	proxies      []*proxy.Server
	api          *httpapi.Server
	health       *health

	// listeners are by their configuration key.
	listeners map[string]net.Listener

	// aborted is cancelled by Abort, which cuts a drain short.
	aborted context.Context
	abort   context.CancelFunc
}

// newServer opens everything. An error names the key that it is about, and
// leaves nothing open.
func newServer(ctx context.Context, config *Config, logger *zap.Logger) (*server, error) {
	s := &server{config: config, logger: logger, listeners: make(map[string]net.Listener)}
	s.aborted, s.abort = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// open builds from the state outwards: what is built later stands on what was
// built before. Listeners come last, when nothing else can fail.
func (s *server) open(ctx context.Context) error {
	var err error
	if s.registry, err = newRegistry(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		s.openState, s.openCredentials, s.openManager, s.openCertificates, s.openAPI, s.openProxies,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	checks := []check{
		{"store", func(ctx context.Context) error { _, err := s.store.PolicyRevision(ctx); return err }},
		{"audit", func(context.Context) error { return s.log.Healthy() }},
		{"credentials", s.credentials.Ready},
	}
	s.health = newHealth(s.registry, s.logger.Named("health"), checks)
	if s.config.Metrics.Address != "" {
		_, err = s.listen("metrics.address", s.config.Metrics.Address)
	}
	return err
}

func (s *server) openState(ctx context.Context) error {
	var err error
	s.store, err = store.Open(ctx, store.Config{Path: s.config.Store.Path, Logger: s.logger.Named("store")})
	if err != nil {
		return keyError("store.path", err)
	}
	s.log, err = audit.New(audit.Config{Store: s.store, Logger: s.logger.Named("audit"), Registerer: s.registry})
	return err
}

func (s *server) openCredentials(context.Context) error {
	var err error
	s.credentials, err = openCredentials(&s.config.Credentials, s.logger.Named("credentials"), s.registry)
	return err
}

func (s *server) openManager(context.Context) error {
	key, err := readTokenKey(s.config.AppPasswords.KeyFile)
	if err != nil {
		return err
	}
	dialer, err := newUpstream(s.config, s.logger.Named("upstream"))
	if err != nil {
		return err
	}
	s.manager, err = session.New(session.Config{
		State:       s.store,
		Log:         s.log,
		Credentials: s.credentials,
		Upstream:    dialer,
		TokenKey:    key,
		Node:        s.config.Node,
		Connections: s.config.Limits.MailboxConnections,
		Submissions: s.config.Limits.MailboxSubmissions,
		Logger:      s.logger.Named("session"),
		Registerer:  s.registry,
	})
	return err
}

func (s *server) openCertificates(context.Context) error {
	var err error
	s.certificates, err = newCertificates(s.config, s.logger.Named("tls"), s.registry)
	return err
}

func (s *server) openAPI(context.Context) error {
	dialer, err := newUpstream(s.config, s.logger.Named("upstream"))
	if err != nil {
		return err
	}
	config := httpapi.Config{
		State:       s.store,
		Events:      s.store,
		Credentials: s.credentials,
		Upstream:    dialer,
		Sessions:    s.manager,
		Tokens:      s.manager,
		Logger:      s.logger.Named("api"),
	}
	if s.config.Workstations.EmbeddedCA != "" {
		if config.WorkstationCA, err = loadWorkstationCA(s.config); err != nil {
			return err
		}
	}
	handler, err := httpapi.New(config)
	if err != nil {
		return err
	}
	if s.api, err = httpapi.NewServer(handler, config.Logger); err != nil {
		return err
	}
	l, err := httpapi.ListenUnix(s.config.API.Socket, httpapi.SocketMode)
	if err != nil {
		return keyError("api.socket", err)
	}
	s.listeners["api.socket"] = l
	return nil
}

func (s *server) openProxies(context.Context) error {
	limits := s.config.Limits
	lobby, err := proxy.NewLobby(proxy.LobbyConfig{
		Limits: proxy.Limits{
			Pending:               limits.Pending,
			PendingPerAddress:     limits.PendingPerAddress,
			PendingPerCertificate: limits.PendingPerCertificate,
			HandshakeTimeout:      time.Duration(limits.HandshakeTimeout),
			AuthenticateTimeout:   time.Duration(limits.AuthenticateTimeout),
		},
		Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	imap, err := imapfilter.New(imapfilter.Config{
		Gate:       s.manager,
		Hostname:   s.config.Hostname,
		StartTLS:   true,
		MaxSwallow: int64(limits.MessageSize),
		Logger:     s.logger.Named("imap"),
		Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	smtp, err := submission.New(submission.Config{
		Gate:       s.manager,
		Hostname:   s.config.Hostname,
		Limits:     submission.Limits{MessageOctets: int64(limits.MessageSize), Recipients: limits.MessageRecipients},
		Sent:       submission.IMAPSent{},
		Logger:     s.logger.Named("submission"),
		Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	s.networkOnly = newNetworkOnly(s.store, s.logger.Named("sites"))
	for _, l := range s.config.Listeners.all() {
		if l.address == "" {
			continue
		}
		var handler proxy.Handler = imap
		if l.submission {
			handler = smtp
		}
		if err := s.openProxy(l, lobby, handler); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) openProxy(l listener, lobby *proxy.Lobby, handler proxy.Handler) error {
	socket, err := s.listen("listeners."+l.name, l.address)
	if err != nil {
		return err
	}
	p, err := proxy.NewServer(proxy.ServerConfig{
		Name:           l.name,
		Listener:       socket,
		Implicit:       l.implicit,
		Certificates:   s.certificates,
		TrustedProxies: s.config.TrustedProxies,
		NetworkOnly:    s.networkOnly.contains,
		Lobby:          lobby,
		Handler:        handler,
		Logger:         s.logger.Named("proxy"),
	})
	if err != nil {
		return err
	}
	s.proxies = append(s.proxies, p)
	return nil
}

func (s *server) listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, keyError(key, err)
	}
	s.listeners[key] = l
	return l, nil
}

// addr is where a listener of the configuration listens; nil: it is not there.
func (s *server) addr(key string) net.Addr {
	if l := s.listeners[key]; l != nil {
		return l.Addr()
	}
	return nil
}

// IMAPSAddr and its like are where the server listens, which a configured port
// of 0 leaves to the system; nil: not configured.
func (s *server) IMAPSAddr() net.Addr { return s.addr("listeners.imaps") }

// IMAPAddr is described at IMAPSAddr.
func (s *server) IMAPAddr() net.Addr { return s.addr("listeners.imap") }

// SubmissionsAddr is described at IMAPSAddr.
func (s *server) SubmissionsAddr() net.Addr { return s.addr("listeners.submissions") }

// SubmissionAddr is described at IMAPSAddr.
func (s *server) SubmissionAddr() net.Addr { return s.addr("listeners.submission") }

// MetricsAddr is described at IMAPSAddr.
func (s *server) MetricsAddr() net.Addr { return s.addr("metrics.address") }

// Socket is the path of the management API's socket.
func (s *server) Socket() string { return s.config.API.Socket }

// Reload rereads the certificates.
func (s *server) Reload() error { return s.certificates.Reload() }

// Abort cuts every session off; a Run under way then returns soon.
func (s *server) Abort() {
	s.abort()
	for _, p := range s.proxies {
		p.Close()
	}
}

// Close lets go of what newServer opened. It is called when Run has returned,
// or was never called.
func (s *server) Close() {
	s.Abort()
	for _, l := range s.listeners {
		_ = l.Close() // closed already, as a rule
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.logger.Error("closing the store", zap.Error(err))
		}
		s.store = nil
	}
}

// keyError says which key of the configuration an error is about.
func keyError(key string, err error) error { return fmt.Errorf("%s: %w", key, err) }

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
