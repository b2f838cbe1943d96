// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Limits and times.
const (
	// DefaultConnections is how many of a client's connections a forwarder
	// carries at once: many clients hold one for each folder.
	DefaultConnections = 64
	// maxRefusals is how many connections beyond them are told why at once; what
	// comes then is closed without a word.
	maxRefusals = 16
	// dialTimeout bounds connecting and the TLS handshake; greetingTimeout, how
	// long the server then takes to speak.
	dialTimeout     = 20 * time.Second
	greetingTimeout = 30 * time.Second
	// halfCloseTimeout is how long the server may go on after the client has
	// said that it sends no more.
	halfCloseTimeout = 2 * time.Minute
	// partingTimeout is how long a client may take to read why it is refused.
	partingTimeout = 2 * time.Second
	// bufferOctets is what a direction of a connection holds at most.
	bufferOctets = 16 << 10
	// acceptPause is for a moment without file descriptors to pass.
	acceptPause = 100 * time.Millisecond
)

// Protocol is what a client speaks.
type Protocol string

// The protocols.
const (
	IMAP       Protocol = "imap"
	Submission Protocol = "submission"
)

// Config says what a Forwarder carries where.
type Config struct {
	Protocol Protocol
	// Listener is where mail clients connect. The forwarder closes it.
	Listener net.Listener
	// Server is Postern's HOST:PORT with TLS from the first octet.
	Server string
	// Roots verify the server's certificate; nil: the system's.
	Roots *x509.CertPool
	// Identity returns the workstation's certificate and key. It is asked for
	// each connection, so that a renewed certificate is used from then on.
	Identity func() (*tls.Certificate, error)
	// AnyUser carries other local users' connections too.
	AnyUser bool
	// Connections bounds how many are carried at once; 0: DefaultConnections.
	Connections int
	Logger      *zap.Logger
}

// Forwarder carries the connections of one listener.
type Forwarder struct {
	Config
	host     string
	places   chan struct{}
	refusals chan struct{}
	carrying sync.WaitGroup
}

// New checks the configuration.
func New(c Config) (*Forwarder, error) {
	host, _, err := net.SplitHostPort(c.Server)
	switch {
	case err != nil || host == "":
		return nil, fmt.Errorf("connect: the server %q is not HOST:PORT", c.Server)
	case c.Protocol != IMAP && c.Protocol != Submission:
		return nil, fmt.Errorf("connect: unknown protocol %q", c.Protocol)
	case c.Listener == nil || c.Identity == nil || c.Logger == nil:
		return nil, errors.New("connect: New needs a listener, an identity and a logger")
	case c.Connections < 0:
		return nil, errors.New("connect: a negative number of connections")
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	return &Forwarder{
		Config: c, host: host,
		places: make(chan struct{}, c.Connections), refusals: make(chan struct{}, maxRefusals),
	}, nil
}

// Loopback reports whether an address, HOST:PORT, is one of this machine alone.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Run carries connections until ctx ends, and then closes those that are open.
func (f *Forwarder) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = f.Listener.Close() })
	defer stop()
	defer f.carrying.Wait()
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("connect: %w", err)
			}
			// Too many open files, or a connection that was gone at once.
			f.Logger.Warn("a connection was not accepted", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		f.take(ctx, c)
	}
}

// take finds a connection its place, or tells it that there is none.
func (f *Forwarder) take(ctx context.Context, c net.Conn) {
	place, serve := f.places, func() { f.carry(ctx, c) }
	select {
	case place <- struct{}{}:
	default:
		place, serve = f.refusals, func() { f.refuse(c, textFull) }
		select {
		case place <- struct{}{}:
		default:
			_ = c.Close()
			return
		}
	}
	f.carrying.Go(func() {
		defer func() { <-place }()
		serve()
	})
}
