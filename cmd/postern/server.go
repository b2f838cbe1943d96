// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit"
	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/audit/retention"
	"github.com/postern-mail/postern/broker/audit/silence"
	"github.com/postern-mail/postern/broker/audit/sink"
	"github.com/postern-mail/postern/broker/companyca"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/oauth"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/broker/sentinel"
	"github.com/postern-mail/postern/broker/session"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/proxy"
)

// server is all of `postern serve` in one process. newServer opens what it
// needs, listeners included; Run serves until it is told to stop; Close lets go.
type server struct {
	config   *Config
	logger   *zap.Logger
	registry *prometheus.Registry

	store       *store.Store
	log         *audit.Log
	checkpoints *checkpoint.Publisher
	logKeys     *logKeys
	witnesses   *silence.Watch
	pruner      *retention.Pruner
	credentials credentials
	// rotator and secrets are where this process replaces passwords; nil: it
	// does not.
	rotator *rotation.Rotator
	secrets credentials
	drivers map[string]broker.Driver
	// sentinel watches mailboxes; nil: this server does not.
	sentinel     *sentinel.Sentinel
	sinks        *sink.Sinks
	upstream     *oauth.Upstream
	manager      *session.Manager
	networkOnly  *networkOnly
	certificates *proxy.Certificates
	authorities  *authorities
	companyCAs   *companyca.CAs
	proxies      []*proxy.Server
	api          *httpapi.Server
	health       *health

	// serving, where set before Run, is called once when everything runs.
	serving func()

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

// APIAddr is described at IMAPSAddr.
func (s *server) APIAddr() net.Addr { return s.addr("api.listen") }

// Socket is the path of the management API's socket.
func (s *server) Socket() string { return s.config.API.Socket }

// Reload rereads the certificates, and has sinks begin anew with their files and
// connections.
func (s *server) Reload() error {
	s.sinks.Reopen()
	return errors.Join(s.certificates.Reload(), s.companyCAs.Reload())
}

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
