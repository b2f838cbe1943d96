// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/proxy"
)

// countingConn counts the writes of a connection.
type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// countingListener wraps what it accepts.
type countingListener struct {
	net.Listener
	accepted chan *countingConn
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	counting := &countingConn{Conn: c}
	l.accepted <- counting
	return counting, nil
}

func TestCorkJoinsRecords(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	l := &countingListener{h.config.Listener, make(chan *countingConn, 1)}
	h.config.Listener = l
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	var before atomic.Int64
	raw := make(chan *countingConn, 1)
	h.start(func(_ context.Context, c *proxy.Conn) {
		counting := <-l.accepted
		before.Store(counting.writes.Load())
		c.Cork()
		if _, err := c.Write(body); err != nil {
			t.Error(err)
		}
		if err := c.Uncork(); err != nil {
			t.Error(err)
		}
		raw <- counting
		_, _ = c.Read(make([]byte, 1)) // the writes of closing must not be counted
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	got := make([]byte, len(body))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("the octets did not come through: %v", err)
	}
	if n := (<-raw).writes.Load() - before.Load(); n > 17 {
		t.Errorf("%d writes for 64 records", n)
	}
}

// What is corked when the handler returns is sent.
func TestCorkedOctetsAreNotLostAtTheEnd(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(func(_ context.Context, c *proxy.Conn) {
		c.Cork()
		_, _ = io.WriteString(c, "* BYE\r\n")
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if got, err := io.ReadAll(c); err != nil || string(got) != "* BYE\r\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestTimeoutsHoldForEachRead(t *testing.T) {
	client, server := tcpPair(t)
	c := proxy.NewConn(server, proxy.ConnConfig{})
	const timeout = 300 * time.Millisecond
	c.SetTimeouts(timeout, 0)
	start := time.Now()
	// Octets that keep coming push the deadline on.
	for range 4 {
		<-time.After(timeout / 3)
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a silent client: %v", err)
	}
	c.SetTimeouts(0, 0)
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatalf("without a timeout: %v", err)
	}
}

func TestTimeoutsHoldForEachWrite(t *testing.T) {
	_, server := tcpPair(t)
	c := proxy.NewConn(server, proxy.ConnConfig{})
	c.SetTimeouts(0, 50*time.Millisecond)
	b := make([]byte, 1<<20)
	for range 1000 {
		if _, err := c.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("a client that reads nothing took 1 GB")
}

func TestNewConn(t *testing.T) {
	client, server := tcpPair(t)
	c := proxy.NewConn(server, proxy.ConnConfig{})
	if got, want := c.RemoteAddrPort().String(), client.LocalAddr().String(); got != want {
		t.Errorf("remote address is %s, want %s", got, want)
	}
	if c.IsTLS() || c.Certificate() != nil || c.Raw() != server {
		t.Error("it claims what it is not")
	}
	if err := c.StartTLS(t.Context()); !errors.Is(err, proxy.ErrNoTLS) {
		t.Errorf("StartTLS: %v", err)
	}
	c.Authenticated() // holds no place; must not mind
	c.Kill()
	c.Kill()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Kill: %v", err)
	}
}

func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}
