// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and defaults.
const (
	// DefaultDialTimeout bounds connecting, all of a host's addresses together.
	DefaultDialTimeout = 5 * time.Second
	// DefaultLoginTimeout bounds everything after it: TLS, greeting and login.
	DefaultLoginTimeout = 15 * time.Second
	// maxAnswer bounds the octets that a server may send before it has
	// answered one command.
	maxAnswer = 64 << 10
	// readBuffer is what one read from the server takes at most.
	readBuffer = 4 << 10
	// maxWords bounds the server's words in an error, in octets.
	maxWords = 200
	// maxEndpoints bounds the cached TLS configurations.
	maxEndpoints = 4096
	// goodbyeTimeout bounds LOGOUT and QUIT after a probe.
	goodbyeTimeout = 2 * time.Second
	// keepAlive finds connections whose other end is gone without a word.
	keepAliveIdle     = 60 * time.Second
	keepAliveInterval = 20 * time.Second
	keepAliveCount    = 4
)

// Reasons of this package's errors, for records and metrics.
const (
	ReasonDial       = "dial"       // no connection
	ReasonTLS        = "tls"        // not verified, not offered, or broken
	ReasonTimeout    = "timeout"    // too slow, or the caller gave up
	ReasonConnection = "connection" // lost before the login was answered
	ReasonProtocol   = "protocol"   // an answer outside the protocol
	ReasonMechanism  = "mechanism"  // no common way to log in
	ReasonBusy       = "busy"       // "try again later"
	ReasonRefused    = "refused"    // the credential was refused
)

// Config is what a Dialer needs.
type Config struct {
	// RootCAs verify endpoints that have no CA bundle of their own; nil: the
	// system's.
	RootCAs *x509.CertPool
	// Hostname is what EHLO says: a domain or an address literal; empty:
	// "localhost".
	Hostname string
	// DialTimeout and LoginTimeout replace the defaults; 0: the default.
	DialTimeout  time.Duration
	LoginTimeout time.Duration
	// Logger takes one line per login at debug level; nil: none.
	Logger *zap.Logger
	// Now is the clock that certificates are verified by; nil: time.Now.
	Now func() time.Time
}

// Dialer opens connections that are logged in. It is safe for concurrent use.
type Dialer struct {
	roots        *x509.CertPool
	hostname     string
	dialer       net.Dialer
	loginTimeout time.Duration
	log          *zap.Logger
	now          func() time.Time
	endpoints    endpointCache
}

var _ broker.Upstream = (*Dialer)(nil)

// New makes a Dialer; a wrong setting is Invalid.
func New(c Config) (*Dialer, error) {
	if c.DialTimeout < 0 {
		return nil, broker.InvalidField("dial_timeout", "must not be negative")
	}
	if c.LoginTimeout < 0 {
		return nil, broker.InvalidField("login_timeout", "must not be negative")
	}
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	if len(c.Hostname) > 255 || strings.ContainsFunc(c.Hostname, notInHostname) {
		return nil, broker.InvalidField("hostname", "not a domain or an address literal")
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = DefaultDialTimeout
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = DefaultLoginTimeout
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Dialer{
		roots:    c.RootCAs,
		hostname: c.Hostname,
		dialer: net.Dialer{
			Timeout: c.DialTimeout,
			KeepAliveConfig: net.KeepAliveConfig{
				Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
			},
		},
		loginTimeout: c.LoginTimeout,
		log:          c.Logger,
		now:          c.Now,
	}, nil
}

func notInHostname(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-.[]:", r))
}

// OpenIMAP connects to the mailbox's IMAP endpoint and logs in. The caller
// wipes c, and closes the connection.
//
// Errors: Unavailable, CredentialRefused, and Invalid when the credential or
// the login name cannot be put on the wire at all. Reason is one of this
// package's constants.
func (d *Dialer) OpenIMAP(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	cred, err := newCredentials(m, c, &m.IMAP)
	if err != nil {
		return nil, err
	}
	var open *broker.IMAPConn
	err = d.open(ctx, broker.ProtocolIMAP, &m.IMAP, cred, func(w *wire) error {
		open, err = loginIMAP(w, &m.IMAP, cred)
		return err
	})
	if err != nil {
		return nil, err
	}
	return open, nil
}

// OpenSubmission connects to the mailbox's submission endpoint and logs in;
// otherwise it is as OpenIMAP.
func (d *Dialer) OpenSubmission(ctx context.Context, m *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	cred, err := newCredentials(m, c, &m.Submission)
	if err != nil {
		return nil, err
	}
	var open *broker.SubmissionConn
	err = d.open(ctx, broker.ProtocolSubmission, &m.Submission, cred, func(w *wire) error {
		open, err = loginSubmission(w, &m.Submission, d.hostname, cred)
		return err
	})
	if err != nil {
		return nil, err
	}
	return open, nil
}

// open dials and runs one protocol's login under the deadlines, which are
// cleared when it succeeds.
func (d *Dialer) open(ctx context.Context, p broker.Protocol, e *broker.Endpoint, cred *credentials, login func(*wire) error) error {
	began := d.now()
	w, err := d.connect(ctx, e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.loginTimeout)
	defer cancel()
	done := w.obey(ctx)
	if err = w.begin(e); err == nil {
		err = login(w)
	}
	if late := done(); err == nil {
		err = late
	}
	if err != nil {
		w.conn.Close()
		return cred.report(ctx, err)
	}
	d.log.Debug("logged in upstream",
		zap.String("protocol", string(p)), zap.String("host", e.Host), zap.Uint16("port", e.Port),
		zap.Duration("took", d.now().Sub(began)))
	return nil
}

// Probe logs in to IMAP and submission at once, and out again. When both fail
// and one of them because the credential was refused, that is the error.
func (d *Dialer) Probe(ctx context.Context, m *broker.Mailbox, c *broker.Credential) error {
	var imap, submission error
	var both sync.WaitGroup
	both.Go(func() {
		conn, err := d.OpenIMAP(ctx, m, c)
		if err != nil {
			imap = named("IMAP", err)
			return
		}
		goodbye(conn, "logout LOGOUT\r\n")
	})
	both.Go(func() {
		conn, err := d.OpenSubmission(ctx, m, c)
		if err != nil {
			submission = named("submission", err)
			return
		}
		goodbye(conn, "QUIT\r\n")
	})
	both.Wait()
	if imap == nil || broker.CodeOf(imap) != broker.CredentialRefused && broker.CodeOf(submission) == broker.CredentialRefused {
		return submission
	}
	return imap
}

// named says in the public text which of the two logins failed.
func named(which string, err error) error {
	var e *broker.Error
	if !errors.As(err, &e) {
		return err
	}
	copied := *e
	copied.Public = which + ": " + e.Public
	return &copied
}

// goodbye ends a session in an orderly way, as far as the server lets it. The
// login has proved what it was to prove, so that no failure counts.
func goodbye(c net.Conn, command string) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(goodbyeTimeout)) != nil {
		return
	}
	if _, err := c.Write([]byte(command)); err != nil {
		return
	}
	buffer := make([]byte, readBuffer)
	for range maxAnswer / readBuffer {
		if _, err := c.Read(buffer); err != nil {
			return
		}
	}
}
