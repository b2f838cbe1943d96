// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// errForeign is a connection of another user of this machine.
var errForeign = errors.New("of another local user")

// carry carries one connection to its end.
func (f *Forwarder) carry(ctx context.Context, client net.Conn) {
	began := time.Now()
	logger := f.Logger.With(zap.Stringer("client", client.RemoteAddr()))
	if err := f.allowed(client); err != nil {
		logger.Warn("a connection was refused", zap.Error(err))
		f.refuse(client, textForeign)
		return
	}
	server, first, err := f.dial(ctx)
	if err != nil {
		if ctx.Err() == nil {
			logger.Warn("Postern cannot be used", zap.String("server", f.Server), zap.Error(err))
		}
		f.refuse(client, f.explain(err))
		return
	}
	// Whatever ends first, ctx or the connection, both sides are closed.
	closeBoth := func() { _, _ = client.Close(), server.NetConn().Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	defer closeBoth()
	up, down := f.relay(client, server, first)
	logger.Info("a connection ended", zap.String("server", f.Server), zap.Duration("after", time.Since(began)),
		zap.Int64("octets_up", up), zap.Int64("octets_down", down))
}

// allowed refuses other users' connections, where the system tells whose they
// are.
func (f *Forwarder) allowed(client net.Conn) error {
	if f.AnyUser {
		return nil
	}
	uid, known, err := peerUID(client)
	switch {
	case err != nil:
		return err
	case known && uid != uint32(os.Geteuid()):
		return errForeign
	}
	return nil
}

// dial connects to Postern and returns its first octets: with TLS 1.3 a server
// refuses a client's certificate only after the client's part of the handshake
// (RFC 8446 §4.4.2.4), so that a server that speaks is the first sign of
// success.
func (f *Forwarder) dial(ctx context.Context) (*tls.Conn, []byte, error) {
	identity, err := f.Identity()
	if err != nil {
		return nil, nil, &identityError{err}
	}
	bounded, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(bounded, "tcp", f.Server)
	if err != nil {
		return nil, nil, err
	}
	c := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: f.host,
		RootCAs:    f.Roots,
		// Also where the server's list of CAs does not name its issuer: the
		// server's refusal says more than a connection without a certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return identity, nil },
	})
	if err := c.HandshakeContext(bounded); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	first := make([]byte, bufferOctets)
	if err := c.SetReadDeadline(time.Now().Add(greetingTimeout)); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	n, err := c.Read(first)
	if n == 0 {
		if err == nil || errors.Is(err, io.EOF) {
			err = errSilent
		}
		return nil, nil, errors.Join(err, raw.Close())
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return c, first[:n], nil
}

// relay copies in both directions until the server has ended, and returns how
// many octets went up and down. A client that sends no more gets its answers
// for a while.
func (f *Forwarder) relay(client net.Conn, server *tls.Conn, first []byte) (up, down int64) {
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err := io.CopyBuffer(onlyWriter{server}, onlyReader{client}, make([]byte, bufferOctets))
		sent.Store(n)
		if err == nil && server.CloseWrite() == nil {
			// The client is through; the server may not be.
			_ = server.SetReadDeadline(time.Now().Add(halfCloseTimeout))
			return
		}
		// A side is gone: the other direction has nobody to copy for.
		_ = server.NetConn().Close()
	}()
	n, err := client.Write(first)
	down = int64(n)
	if err == nil {
		var more int64
		more, _ = io.CopyBuffer(onlyWriter{client}, onlyReader{server}, make([]byte, bufferOctets))
		down += more
	}
	// What the server said is with the client before its connection ends: a
	// close with octets unread would discard it (RFC 1122 §4.2.2.13).
	part(client)
	_ = server.NetConn().Close()
	<-done
	return sent.Load(), down
}

// part closes a connection after its last octets were written, so that they
// arrive.
func part(c net.Conn) {
	defer c.Close()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	// A read that is under way elsewhere ends by the same deadline.
	if c.SetReadDeadline(time.Now().Add(partingTimeout)) == nil {
		_, _ = io.Copy(io.Discard, onlyReader{c})
	}
}

// onlyReader and onlyWriter hide the ways in which io.Copy would use buffers
// of its own choice.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
