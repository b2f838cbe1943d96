// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ServerConfig is what a Server needs; all but TrustedProxies, NetworkOnly
// and Logger is required.
type ServerConfig struct {
	// Name is the listener's in logs and metrics: "imaps", "submission", …
	Name     string
	Listener net.Listener
	// Implicit starts TLS with the first octet (RFC 8314); otherwise it is up
	// to the Handler to call StartTLS, and to refuse a login before.
	Implicit     bool
	Certificates *Certificates
	// TrustedProxies are the balancers that must send a PROXY header. Nobody
	// else's is read.
	TrustedProxies []netip.Prefix
	// NetworkOnly reports whether clients from addr need no certificate; nil:
	// none do without. It is called once per handshake and must not block.
	NetworkOnly func(addr netip.Addr) bool
	Lobby       *Lobby
	Handler     Handler
	Logger      *zap.Logger
}

// Server accepts connections on one listener and hands them to its Handler.
type Server struct {
	config  ServerConfig
	limits  Limits
	metrics *metrics
	logger  *zap.Logger
	buffers *sync.Pool

	handlers sync.WaitGroup
	mu       sync.Mutex
	conns    map[*Conn]struct{}
	closed   bool
}

// NewServer makes a server; the error names what the config lacks.
func NewServer(config ServerConfig) (*Server, error) {
	for what, missing := range map[string]bool{
		"Name":         config.Name == "",
		"Listener":     config.Listener == nil,
		"Certificates": config.Certificates == nil,
		"Lobby":        config.Lobby == nil,
		"Handler":      config.Handler == nil,
	} {
		if missing {
			return nil, errors.New("proxy: ServerConfig." + what + " is missing")
		}
	}
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	// So that each is there as 0.
	config.Lobby.metrics.panics.WithLabelValues(config.Name)
	config.Lobby.metrics.acceptFailures.WithLabelValues(config.Name)
	return &Server{
		config:  config,
		limits:  config.Lobby.limits,
		metrics: config.Lobby.metrics,
		logger:  config.Logger.With(zap.String("listener", config.Name)),
		buffers: newBufferPool(),
		conns:   make(map[*Conn]struct{}),
	}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.config.Listener.Addr() }

// Run accepts until ctx is cancelled. Then it closes the listener, kills what
// has not authenticated, and waits for the handlers of what has: ending those
// sessions is their owner's business, and Close's. The error is nil after a
// cancelled ctx, else why accepting ended.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.config.Listener.Close() })
	defer stop()
	err := s.accept(ctx)
	s.handlers.Wait()
	return err
}

// Close closes the listener and kills every connection, authenticated or not.
// Run then returns as soon as the handlers have.
func (s *Server) Close() {
	_ = s.config.Listener.Close()
	s.mu.Lock()
	s.closed = true
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.Kill()
	}
}

// accept returns when the listener is closed.
func (s *Server) accept(ctx context.Context) error {
	backoff := acceptBackoffMin
	for {
		raw, err := s.config.Listener.Accept()
		switch {
		case err == nil:
			backoff = acceptBackoffMin
			s.start(ctx, raw)
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		}
		// Out of descriptors or memory (EMFILE, ENFILE, ENOBUFS…), or a client
		// that left the queue (ECONNABORTED): none of them ends a server. An
		// evicted connection gives its descriptor back.
		s.metrics.acceptFailures.WithLabelValues(s.config.Name).Inc()
		s.logger.Error("accept failed", zap.Error(err), zap.Duration("backoff", backoff))
		s.config.Lobby.relieve("accept-failed")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// start begins to serve a connection on a goroutine of its own.
func (s *Server) start(ctx context.Context, raw net.Conn) {
	connCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Conn{
		transport: &transport{Conn: raw, remote: raw.RemoteAddr(), buffers: s.buffers},
		remote:    addrPort(raw.RemoteAddr()),
		killed:    cancel,
	}
	c.Conn = c.transport
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.Kill()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.metrics.accepted.WithLabelValues(s.config.Name).Inc()
	s.metrics.open.WithLabelValues(s.config.Name).Inc()
	s.handlers.Go(func() {
		defer s.finish(c)
		s.serve(ctx, connCtx, c)
	})
}

// finish closes a connection and catches its handler's panic.
func (s *Server) finish(c *Conn) {
	if v := recover(); v != nil {
		s.metrics.panics.WithLabelValues(s.config.Name).Inc()
		s.logger.Error("panic while serving a connection",
			zap.Any("panic", v), zap.Stringer("remote", c.remote), zap.ByteString("stack", debug.Stack()))
		c.Kill() // what state its TLS and its locks are in is unknown
	}
	c.linger()
	c.Authenticated()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.metrics.open.WithLabelValues(s.config.Name).Dec()
}

// serve takes a connection through PROXY header, lobby and TLS to its handler.
// server is the context of Run.
func (s *Server) serve(server, ctx context.Context, c *Conn) {
	expires := time.Now().Add(s.limits.AuthenticateTimeout)
	expiry := time.AfterFunc(s.limits.AuthenticateTimeout+killGrace, c.Kill)
	stopped := context.AfterFunc(server, c.Kill)
	c.authenticated = func() {
		expiry.Stop()
		stopped()
		c.transport.setLimit(time.Time{})
	}

	addressTold := true
	if s.trusted(c.remote.Addr()) {
		remote, told, err := c.transport.readHeader(s.limits.HeaderTimeout)
		if err != nil {
			s.reject(c, "proxy-header", err)
			return
		}
		c.remote, addressTold = remote, told
	}
	c.transport.setLimit(expires)

	lobby := s.config.Lobby
	place := lobby.enter(c.remote.Addr(), func(string) { c.Kill() })
	leave := c.authenticated
	c.authenticated = func() {
		lobby.leave(place)
		leave()
	}

	networkOnly := addressTold && s.config.NetworkOnly != nil && s.config.NetworkOnly(c.remote.Addr())
	c.handshake = func(ctx context.Context, c *Conn) error {
		if err := s.handshake(ctx, c, place, expires, networkOnly); err != nil {
			s.reject(c, "handshake", err)
			return err
		}
		if c.certificate != nil {
			lobby.certify(place, c.certificate)
		}
		return nil
	}
	if s.config.Implicit {
		var err error
		Aside(func() { err = c.handshake(ctx, c) })
		if err != nil {
			return
		}
	}
	s.config.Handler.ServeConn(ctx, c)
}

// errEvicted is a handshake's whose connection lost its place.
var errEvicted = errors.New("proxy: pushed out by other connections")

// handshake runs TLS within its time limit, and computes when it is its turn.
func (s *Server) handshake(ctx context.Context, c *Conn, p *place, expires time.Time, networkOnly bool) error {
	limit := earlier(time.Now().Add(s.limits.HandshakeTimeout), expires)
	lobby, t := s.config.Lobby, c.transport
	t.setLimit(limit)
	giveBack := func() {
		if t.beforeWrite != nil {
			t.beforeWrite = nil
			lobby.turns.give()
		}
	}
	defer giveBack()
	addr := c.remote.Addr()
	t.hello = func(ctx context.Context) error {
		if !lobby.advance(p, &lobby.waiting, addr) {
			return errEvicted
		}
		if err := lobby.turns.take(ctx, limit, addr); err != nil {
			return err
		}
		t.beforeWrite = giveBack
		if !lobby.advance(p, &lobby.shaking, addr) {
			return errEvicted
		}
		return nil
	}
	err := c.serveTLS(ctx, s.config.Certificates.serverConfig(!networkOnly))
	t.hello = nil
	t.setLimit(expires)
	return err
}

// reject records why a connection ends before its protocol began. These are
// strangers' doing for the most part: the logger is expected to sample.
func (s *Server) reject(c *Conn, cause string, err error) {
	s.metrics.rejected.WithLabelValues(s.config.Name, cause).Inc()
	s.logger.Info("connection rejected", zap.String("cause", cause), zap.Stringer("remote", c.remote), zap.Error(err))
}

func (s *Server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.config.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}
