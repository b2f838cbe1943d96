// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// front stands where a mailbox's provider is: it ends TLS with a certificate
// that can be changed, and passes what it holds on to the real server in the
// clear, or has a script answer it.
type front struct {
	port     uint16
	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu          sync.Mutex
	certificate *tls.Certificate // nil: no TLS
	script      func(net.Conn)   // nil: the real server answers
	heard       bytes.Buffer     // all that came out of TLS
	open        map[net.Conn]bool
	closed      bool
}

func newFront(t testing.TB, target uint16, certificate *tls.Certificate) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{
		port: uint16(l.Addr().(*net.TCPAddr).Port), target: fmt.Sprintf("127.0.0.1:%d", target),
		listener: l, certificate: certificate, open: make(map[net.Conn]bool),
	}
	f.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.work.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(f.close)
	return f
}

func (f *front) close() {
	f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.work.Wait()
}

// present changes the certificate; answer the script. Both are for
// connections to come.
func (f *front) present(c *servers.Certificate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certificate = &c.TLS
}

func (f *front) answer(script func(net.Conn)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

// hears returns all that came out of TLS so far.
func (f *front) hears() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Clone(f.heard.Bytes())
}

func (f *front) track(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.open[c] = true
	return true
}

func (f *front) serve(raw net.Conn) {
	defer raw.Close()
	if !f.track(raw) {
		return
	}
	f.mu.Lock()
	certificate, script := f.certificate, f.script
	f.mu.Unlock()
	c := raw
	if certificate != nil {
		secured := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{*certificate}})
		if secured.Handshake() != nil {
			return
		}
		c = secured
	}
	c = &heardConn{c, f}
	if script != nil {
		script(c)
		return
	}
	server, err := net.Dial("tcp", f.target)
	if err != nil || !f.track(server) {
		return
	}
	f.work.Go(func() {
		_, _ = io.Copy(server, c) // either end closes both
		server.Close()
	})
	_, _ = io.Copy(c, server)
	raw.Close()
}

// heardConn keeps what is read.
type heardConn struct {
	net.Conn
	front *front
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.front.mu.Lock()
	defer c.front.mu.Unlock()
	c.front.heard.Write(b[:n])
	return n, err
}

// endpoint is where Postern finds it, through a Tap.
func endpoint(tap *servers.Tap, mode broker.TLSMode, ca *servers.CA) broker.Endpoint {
	return broker.Endpoint{Host: "127.0.0.1", Port: tap.Port, TLS: mode, CA: string(ca.PEM)}
}
