// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker/attest"
	"github.com/postern-mail/postern/broker/audit"
	"github.com/postern-mail/postern/broker/audit/sink"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/people"
	"github.com/postern-mail/postern/broker/sentinel"
	"github.com/postern-mail/postern/broker/session"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/imapfilter"
	"github.com/postern-mail/postern/proxy/submission"
)

// recordDelay is how long events wait for others while many come: a commit
// costs as much for one as for many, and an agent does not notice it. With 5 ms
// a session's start costs a fifth more at fifty a second.
const recordDelay = 20 * time.Millisecond

// open builds from the state outwards: what is built later stands on what was
// built before.
func (s *server) open(ctx context.Context) error {
	var err error
	if s.registry, err = newRegistry(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		s.openState, s.openCheckpoints, s.openWitnesses, s.openCredentials, s.openManager, s.openRotator, s.openSentinel, s.openSinks, s.openCertificates, s.openAPI, s.openProxies,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	checks := []check{
		{"store", func(ctx context.Context) error { _, err := s.store.PolicyRevision(ctx); return err }},
		{"audit", func(context.Context) error { return s.log.Healthy() }},
		{"transparency log", func(context.Context) error { return s.checkpoints.Healthy() }},
		{"credentials", s.credentials.Ready},
	}
	if err := s.registry.Register(newAlertMetrics(s.store)); err != nil {
		return err
	}
	s.health = newHealth(s.registry, s.logger.Named("health"), checks)
	if s.config.Metrics.Address != "" {
		_, err = s.listen("metrics.address", s.config.Metrics.Address)
	}
	return err
}

func (s *server) openState(ctx context.Context) error {
	var err error
	config := store.Config{Path: s.config.State.SQLite, PostgreSQL: s.config.postgreSQL(), Logger: s.logger.Named("store")}
	if s.store, err = store.Open(ctx, config); err != nil {
		return keyError(s.config.stateKey(), err)
	}
	s.log, err = audit.New(audit.Config{
		Store: s.store, Logger: s.logger.Named("audit"), Registerer: s.registry, MaxDelay: recordDelay,
	})
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
	if s.upstream, err = newOAuth(s.config, dialer, s.credentials, s.logger.Named("oauth"), s.registry); err != nil {
		return err
	}
	if err := s.openCompanyCAs(); err != nil {
		return err
	}
	guardrails, err := s.config.guardrails()
	if err != nil {
		return err
	}
	config := session.Config{
		State:       s.store,
		Log:         s.log,
		Credentials: s.credentials,
		Upstream:    s.upstream,
		Rotations:   s.store,
		Pending:     s.credentials,
		TokenKey:    key,
		Node:        s.config.Node,
		Connections: s.config.Limits.MailboxConnections,
		Submissions: s.config.Limits.MailboxSubmissions,
		Leases:      s.leases(),
		Lease:       time.Duration(s.config.State.Lease),
		Guardrails:  guardrails,
		Witnesses:   s.witnesses,
		Logger:      s.logger.Named("session"),
		Registerer:  s.registry,

		CertificateAlone: s.config.certificateAlone(),
		CompanyCAs:       s.companyCAs,
	}
	if err := s.openDirectory(&config); err != nil {
		return err
	}
	s.manager, err = session.New(config)
	return err
}

// openRotator makes what replaces passwords, unless another process does.
func (s *server) openRotator(context.Context) error {
	var err error
	if s.drivers, err = newDrivers(s.config); err != nil {
		return err
	}
	if !s.config.rotatesInServer() {
		return nil
	}
	logger := s.logger.Named("rotation")
	if s.config.Credentials.Vault == nil {
		s.secrets = s.credentials
	} else if s.secrets, err = openRotatorSecrets(&s.config.Credentials, logger, prometheus.NewRegistry()); err != nil {
		return err
	}
	s.rotator, err = newRotator(s.config, s.config.Node, s.store, s.secrets, s.upstream, s.drivers, logger)
	return err
}

// openSentinel makes what watches mailboxes.
func (s *server) openSentinel(context.Context) error {
	if s.config.Sentinel.Off {
		return nil
	}
	var err error
	s.sentinel, err = sentinel.New(sentinel.Config{
		State: s.store, Credentials: s.credentials, Upstream: s.upstream, Node: s.config.Node,
		Interval: time.Duration(s.config.Sentinel.Interval), Concurrency: s.config.Sentinel.Concurrency,
		// What a dead node had in hand is recorded as its end a lease later.
		Settle: max(sentinel.DefaultSettle, time.Duration(s.config.State.Lease)+5*time.Second),
		Logger: s.logger.Named("sentinel"), Registerer: s.registry,
	})
	return err
}

// openSinks makes what sends events on.
func (s *server) openSinks(context.Context) error {
	all, err := newSinks(s.config, s.store)
	if err != nil {
		return err
	}
	s.sinks, err = sink.New(sink.Config{
		Sinks: all, Store: s.store, Log: s.log, Node: s.config.Node, Logger: s.logger.Named("sinks"), Registerer: s.registry,
	})
	return err
}

func (s *server) openCertificates(context.Context) error {
	var err error
	s.certificates, err = newCertificates(s.config, s.logger.Named("tls"), s.registry)
	return err
}

func (s *server) openAPI(ctx context.Context) error {
	config := httpapi.Config{
		State:       s.store,
		FirmState:   s.store,
		People:      s.store,
		Repeats:     s.store,
		Events:      s.store,
		Flusher:     s.log,
		Logs:        s.store,
		Questions:   s.store,
		LogKeyring:  s.checkpoints,
		Witnesses:   s.store,
		Retentions:  s.store,
		Enrolments:  s.store,
		Credentials: s.credentials,
		Providers:   s.store,
		Rotations:   s.store,
		Watches:     s.store,
		Canaries:    s.store,
		Alerts:      s.store,
		Sinks:       s.sinks,
		Drivers:     s.drivers,
		Upstream:    s.upstream,
		Sessions:    s.manager,
		Tokens:      s.manager,
		Directory:   s.config.Directory != nil,
		Logger:      s.logger.Named("api"),

		CertificateAlone: s.config.certificateAlone(),
		CompanyCAs:       s.companyCAs,
	}
	config.RotationSecrets = s.credentials
	if err := s.openPeople(ctx, &config); err != nil {
		return err
	}
	var err error
	if s.authorities, err = openWorkstationCA(s.config, s.logger.Named("workstation-ca"), s.registry); err != nil {
		return err
	}
	config.WorkstationCA = s.authorities.issuing()
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
	if s.config.API.Listen != "" {
		_, err = s.listen("api.listen", s.config.API.Listen)
	}
	return err
}

// openPeople makes what knows those who manage Postern.
func (s *server) openPeople(ctx context.Context, config *httpapi.Config) error {
	key, err := readTokenKey(s.config.AppPasswords.KeyFile)
	if err != nil {
		return err
	}
	defer key.Wipe()
	tokens, err := people.NewAPITokens(key)
	if err != nil {
		return err
	}
	if config.Claims, err = people.NewClaims(key); err != nil {
		return err
	}
	if config.EnrolmentCodes, err = people.NewEnrolmentCodes(key); err != nil {
		return err
	}
	makers, err := s.config.Workstations.tpmMakers()
	if err != nil {
		return err
	}
	if config.Attestor, err = attest.New(attest.Config{Key: key, Makers: makers}); err != nil {
		return err
	}
	config.APITokens = tokens
	if err := firstAdmin(ctx, s.store, tokens, filepath.Join(s.config.DataDir, adminTokenFile)); err != nil {
		return err
	}
	issuers, err := s.config.issuers()
	if err != nil {
		return err
	}
	config.Authenticator, err = people.NewAuthenticator(people.Config{People: s.store, Tokens: tokens, Issuers: issuers})
	return err
}

func (s *server) openProxies(context.Context) error {
	limits := s.config.Limits
	boundPending(&limits, s.logger.Named("proxy"))
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
		Counts:     s.store,
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
		Gate:           s.manager,
		Counts:         s.store,
		Hostname:       s.config.Hostname,
		Limits:         submission.Limits{MessageOctets: int64(limits.MessageSize), Recipients: limits.MessageRecipients},
		Sent:           submission.IMAPSent{},
		Correspondents: submission.NewIMAPCorrespondents(s.store),
		Logger:         s.logger.Named("submission"),
		Registerer:     s.registry,
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
