// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

var errSaysTooMuch = errors.New("the provider says too much")

// boundedConn ends a conversation in which the other side says too much. It lies
// below TLS. One goroutine reads.
type boundedConn struct {
	net.Conn
	left int
}

// Read reads at most what is left.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errSaysTooMuch
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// dial connects. Whatever waits on the connection is woken when ctx ends; stop
// ends that, and must be called.
func dial(ctx context.Context, address string) (conn net.Conn, stop func() bool, err error) {
	var d net.Dialer
	tcp, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, err
	}
	stop = context.AfterFunc(ctx, func() { tcp.SetDeadline(time.Unix(1, 0)) })
	return &boundedConn{Conn: tcp, left: maxAnswer}, stop, nil
}

// handshake returns conn with TLS, or closes it.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}
