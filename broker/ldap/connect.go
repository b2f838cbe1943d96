// SPDX-License-Identifier: Apache-2.0

package ldap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	client "github.com/go-ldap/ldap/v3"
)

// conversation is one connection, for one question.
type conversation struct {
	directory *Directory
	conn      *client.Conn
	stop      func() bool
}

// connect returns a connection over verified TLS, to the first server that has
// one. It ends with ctx.
func (d *Directory) connect(ctx context.Context) (*conversation, error) {
	deadline, _ := ctx.Deadline()
	var failures []error
	for i, s := range d.servers {
		// Those that are left share the time: one that is silent leaves some.
		share := time.Until(deadline) / time.Duration(len(d.servers)-i)
		conn, err := s.connect(ctx, deadline, share)
		if err == nil {
			c := &conversation{directory: d, conn: conn}
			c.stop = context.AfterFunc(ctx, c.cut)
			return c, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", s.address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// connect dials and speaks TLS within share; whatever follows ends at deadline.
func (s *server) connect(ctx context.Context, deadline time.Time, share time.Duration) (*client.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	bounded := &boundedConn{Conn: raw, left: maxAnswer}
	// The library looks at no context. Reads and writes that wait end with it.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	conn, err := s.encrypt(ctx, bounded)
	if !stop() && err == nil {
		err = context.Cause(ctx)
		_ = conn.Close()
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, raw.SetDeadline(deadline)
}

// encrypt returns a connection over TLS; before it nothing is said but
// StartTLS.
func (s *server) encrypt(ctx context.Context, raw net.Conn) (*client.Conn, error) {
	if !s.startTLS {
		over := tls.Client(raw, s.tls)
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn := client.NewConn(over, true)
		conn.Start()
		return conn, nil
	}
	conn := client.NewConn(raw, false)
	conn.Start()
	if err := conn.StartTLS(s.tls); err != nil {
		_ = conn.Close()
		return nil, err
	}
	// The library has no other way to say that TLS is there.
	if _, ok := conn.TLSConnectionState(); !ok {
		_ = conn.Close()
		return nil, errors.New("no TLS after StartTLS")
	}
	return conn, nil
}

// cut ends a conversation whose context is over.
func (c *conversation) cut() { _ = c.conn.Close() }

func (c *conversation) close() {
	c.stop()
	_ = c.conn.Close()
}

// boundedConn ends after a number of octets read: the library takes lengths
// from the server.
type boundedConn struct {
	net.Conn
	left int // of one reader at a time
}

var errAnswer = errors.New("the directory's answer is too long")

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errAnswer
	}
	if len(p) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= n
	return n, err
}
