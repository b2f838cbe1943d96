// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Handler speaks a protocol on a connection.
type Handler interface {
	// ServeConn returns when the connection is over; the server then closes
	// it. ctx is cancelled when the connection is killed and, as long as it is
	// not authenticated, when the server stops; from then on whoever opened
	// the session is the one to end it.
	ServeConn(ctx context.Context, c *Conn)
}

// ErrNoTLS is StartTLS's error where there is nothing to start.
var ErrNoTLS = errors.New("proxy: TLS is active already, or not configured")

// Conn is a client's connection. Reads may run beside writes; each of them
// belongs to one goroutine at a time. Other methods may be called from any,
// but for StartTLS, which must run alone.
type Conn struct {
	// Conn is the *tls.Conn after the handshake, and the bare connection
	// before STARTTLS. The wrappers for deadlines and PROXY protocol are below.
	net.Conn

	transport   *transport
	remote      netip.AddrPort
	certificate *x509.Certificate
	isTLS       bool

	// handshake runs TLS as the server's side over the transport.
	handshake func(ctx context.Context, c *Conn) error
	// authenticated gives up the place in the lobby, once.
	authenticated func()
	// killed cancels the handler's context.
	killed context.CancelFunc
	dead   atomic.Bool
	once   sync.Once
}

// ConnConfig is for connections that no Server accepted.
type ConnConfig struct {
	// Remote is the client's address; the zero value: the connection's own.
	Remote netip.AddrPort
	// Certificate is taken as verified; IsTLS is what the Conn will say.
	Certificate *x509.Certificate
	IsTLS       bool
	// TLS serves StartTLS, and must verify what it wants verified; nil: there
	// is no StartTLS.
	TLS *tls.Config
}

// NewConn wraps a connection that is authenticated by other means or
// belongs to a test of a Handler: no limits hold for it.
func NewConn(raw net.Conn, config ConnConfig) *Conn {
	c := &Conn{
		transport:   &transport{Conn: raw, remote: raw.RemoteAddr(), buffers: newBufferPool()},
		remote:      config.Remote,
		certificate: config.Certificate,
		isTLS:       config.IsTLS,
	}
	c.Conn = c.transport
	if !c.remote.IsValid() {
		c.remote = addrPort(raw.RemoteAddr())
	}
	if config.TLS != nil {
		c.handshake = func(ctx context.Context, c *Conn) error { return c.serveTLS(ctx, config.TLS) }
	}
	return c
}

// RemoteAddrPort is the client's address, as the PROXY protocol told it where
// that is spoken; an IPv4 address is never mapped into IPv6.
func (c *Conn) RemoteAddrPort() netip.AddrPort { return c.remote }

// Certificate is the client's leaf, verified against the workstation CAs; nil
// when there is none, and once the connection is authenticated.
func (c *Conn) Certificate() *x509.Certificate { return c.certificate }

// IsTLS reports whether the connection is encrypted.
func (c *Conn) IsTLS() bool { return c.isTLS }

// Raw is the connection as it was accepted, a *net.TCPConn from a TCP
// listener. What is read from or written to it passes TLS by.
func (c *Conn) Raw() net.Conn { return c.transport.Conn }

// StartTLS runs the handshake with the server's certificates, within the time
// limit for handshakes. The caller guarantees that nothing from the client
// was buffered when it gave the go-ahead (RFC 9051 §6.2.1, RFC 3207 §4.2, and
// CVE-2011-0411 for what happens otherwise). After an error the connection is
// of no use.
func (c *Conn) StartTLS(ctx context.Context) error {
	if c.isTLS || c.handshake == nil {
		return ErrNoTLS
	}
	return c.handshake(ctx, c)
}

// Authenticated gives up the connection's place in the lobby, lifts the
// deadline that comes with it, and lets go of what only the login needed: the
// certificate is gone, and there is no StartTLS any more. Further calls do
// nothing.
func (c *Conn) Authenticated() {
	c.once.Do(func() {
		if c.authenticated == nil {
			return
		}
		c.authenticated()
		c.authenticated, c.handshake, c.certificate = nil, nil, nil
		// crypto/tls keeps the parsed chain as well, 3 KB for as long as the
		// session lasts. What it hands out is the slice that it keeps; were that
		// to change, this would merely save nothing.
		if t, ok := c.Conn.(*tls.Conn); ok {
			clear(t.ConnectionState().PeerCertificates)
		}
	})
}

// SetDeadline, SetReadDeadline and SetWriteDeadline act on the socket. Until
// Authenticated they cannot reach past the limit that holds before it.
func (c *Conn) SetDeadline(t time.Time) error { return c.transport.SetDeadline(t) }

// SetReadDeadline is described at SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.transport.SetReadDeadline(t) }

// SetWriteDeadline is described at SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.transport.SetWriteDeadline(t) }

// SetTimeouts gives every read and every write of the socket a deadline of
// its own from now on, in place of those set by hand. 0 ends that for its
// direction and leaves the last deadline standing. A read is over when
// anything comes in; a write when everything is with the kernel.
func (c *Conn) SetTimeouts(read, write time.Duration) { c.transport.setTimeouts(read, write) }

// Cork holds back what is written until Uncork, or until 64 KiB have come
// together: crypto/tls makes one system call per record of 16 KiB, and those
// are most of what a large transfer costs. The buffer is pooled and given
// back by Uncork, so cork only while octets flow.
func (c *Conn) Cork() { c.transport.cork() }

// Uncork sends what Cork held back.
func (c *Conn) Uncork() error { return c.transport.uncork() }

// Close ends the connection with TLS's close_notify. It waits for a client
// that does not read, but for less than a second; see Kill.
func (c *Conn) Close() error {
	timer := time.AfterFunc(closeTimeout, c.Kill)
	defer timer.Stop()
	err := c.transport.uncork()
	if cerr := c.Conn.Close(); err == nil {
		err = cerr
	}
	if c.killed != nil {
		c.killed()
	}
	return err
}

// Finish tells the client that nothing more comes: what is corked, TLS's
// close_notify and TCP's FIN, in as few system calls as may be. The kernel has
// them within grace, or the error says that the client does not take them.
// Reads go on.
func (c *Conn) Finish(grace time.Duration) error {
	if t, ok := c.Conn.(*tls.Conn); ok {
		c.transport.cork()
		_ = t.CloseWrite() // into the cork; it leaves a deadline that is over
		_ = c.transport.SetWriteDeadline(time.Now().Add(grace))
	}
	return c.transport.finish()
}

// linger closes in a way that lets the client read what was written last.
func (c *Conn) linger() {
	if c.dead.Load() {
		return
	}
	timer := time.AfterFunc(closeTimeout, c.Kill)
	defer timer.Stop()
	if err := c.transport.uncork(); err != nil {
		c.Kill()
		return
	}
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.CloseWrite() // close_notify; if it fails, so does what follows
	}
	raw := c.transport.Conn
	if h, ok := raw.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
		_, _ = io.CopyN(io.Discard, raw, lingerOctets) // ends with the client's FIN as a rule
	}
	_ = raw.Close()
	if c.killed != nil {
		c.killed()
	}
}

// Stalled reports whether a write has been under way for longer than d: the
// client does not take what it is sent.
func (c *Conn) Stalled(d time.Duration) bool {
	since := c.transport.sending.Load()
	return since != 0 && time.Now().UnixNano()-since > int64(d)
}

// Kill resets the connection at once: what the kernel has not delivered yet
// is dropped, reads and writes under way fail. It waits for no lock, in
// particular for none of crypto/tls, which a write to a slow client holds.
func (c *Conn) Kill() {
	if c.dead.Swap(true) {
		return
	}
	raw := c.transport.Conn
	if l, ok := raw.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // fails only when the socket is closed already
	}
	_ = raw.Close()
	if c.killed != nil {
		c.killed()
	}
}

// serveTLS puts TLS on top of the transport.
func (c *Conn) serveTLS(ctx context.Context, config *tls.Config) error {
	conn := tls.Server(c.transport, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	c.Conn, c.isTLS = conn, true
	if peers := conn.ConnectionState().PeerCertificates; len(peers) > 0 {
		c.certificate = peers[0]
	}
	return nil
}

// addrPort reads an address of the net package; the zero value: it has none.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp == nil {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
