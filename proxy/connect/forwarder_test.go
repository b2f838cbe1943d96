// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// patience is far more than anything here takes.
const patience = 30 * time.Second

// pair is a self-signed certificate for 127.0.0.1, for a server or a client.
func pair(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// rig is a server of the test's own, and a forwarder to it.
type rig struct {
	t                   *testing.T
	server, client      *tls.Certificate
	serverCAs, trusted  *x509.CertPool
	heard               chan net.Conn // connections whose handshake is through
	forwarder           *Forwarder
	identify            func() (*tls.Certificate, error)
	protocol            Protocol
	connections         int
	address, serverAddr string
}

func newRig(t *testing.T, change func(*rig)) *rig {
	t.Helper()
	r := &rig{t: t, heard: make(chan net.Conn, 8), protocol: IMAP}
	r.server, r.trusted = pair(t)
	r.client, r.serverCAs = pair(t)
	r.identify = func() (*tls.Certificate, error) { return r.client, nil }
	change(r)
	if r.serverAddr == "" {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: []tls.Certificate{*r.server}, ClientCAs: r.serverCAs, ClientAuth: tls.RequireAndVerifyClientCert,
		})
		if err != nil {
			t.Fatal(err)
		}
		r.serverAddr = l.Addr().String()
		served := make(chan struct{})
		go func() {
			defer close(served)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if c.(*tls.Conn).Handshake() != nil {
					_ = c.Close()
					continue
				}
				r.heard <- c
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-served })
	}
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = local.Addr().String()
	r.forwarder, err = New(Config{
		Protocol: r.protocol, Listener: local, Server: r.serverAddr, Roots: r.trusted, Identity: r.identify,
		Connections: r.connections, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.forwarder.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		r.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func (r *rig) accept() *tls.Conn {
	r.t.Helper()
	select {
	case c := <-r.heard:
		r.t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			r.t.Fatal(err)
		}
		return c.(*tls.Conn)
	case <-time.After(patience):
		r.t.Fatal("nothing reaches the server")
		return nil
	}
}

func write(t *testing.T, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func TestOctetsPassBothWaysToTheEnd(t *testing.T) {
	r := newRig(t, func(*rig) {})
	client := r.dial()
	server := r.accept()
	if got := server.ConnectionState().PeerCertificates[0]; !got.Equal(r.client.Leaf) {
		t.Error("another certificate was shown")
	}
	write(t, server, "* OK ready\r\n")
	in := bufio.NewReader(client)
	if line, err := in.ReadString('\n'); err != nil || line != "* OK ready\r\n" {
		t.Fatalf("greeting %q, %v", line, err)
	}
	up, down := make([]byte, 3<<20), make([]byte, 5<<20)
	rand.Read(up)
	rand.Read(down)
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write(up)
		sent <- errors.Join(err, client.CloseWrite())
	}()
	// The client sends no more; the server has all of it, and goes on.
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, up) {
		t.Fatalf("%d octets came up, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := server.Write(down)
		sent <- errors.Join(err, server.Close())
	}()
	got, err = io.ReadAll(in)
	if err != nil || !bytes.Equal(got, down) {
		t.Fatalf("%d octets came down, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestAServerThatEndsEndsTheClient(t *testing.T) {
	r := newRig(t, func(*rig) {})
	client := r.dial()
	server := r.accept()
	write(t, server, "* OK\r\n* BYE revoked\r\n")
	write(t, client, "a NOOP\r\n") // unread at the server when it closes
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); err != nil || string(got) != "* OK\r\n* BYE revoked\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAClientThatVanishesFreesTheServer(t *testing.T) {
	r := newRig(t, func(*rig) {})
	client := r.dial()
	server := r.accept()
	write(t, server, "* OK\r\n")
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(server); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server was left waiting")
	}
}

// TestWhatAClientIsTold: whatever fails before the server has spoken is told in
// the client's protocol, and nothing reaches a server that is not Postern.
func TestWhatAClientIsTold(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	_, others := pair(t)
	for _, c := range []struct {
		name   string
		change func(*rig)
		text   string
	}{
		{"unreachable", func(r *rig) { r.serverAddr = nobody }, "cannot be reached at " + nobody},
		{"no such name", func(r *rig) { r.serverAddr = "postern.invalid:993" }, "postern.invalid"},
		{"another server", func(r *rig) { r.trusted = others }, textServer},
		{"withdrawn", func(r *rig) { r.serverCAs = others }, textRefused},
		{"no key", func(r *rig) {
			r.identify = func() (*tls.Certificate, error) { return nil, errors.New("/home/asha/key.pem: gone") }
		}, textKey},
	} {
		for protocol, prefix := range map[Protocol]string{IMAP: "* BYE [UNAVAILABLE] ", Submission: "421 4.3.2 "} {
			t.Run(c.name+" "+string(protocol), func(t *testing.T) {
				r := newRig(t, func(r *rig) { r.protocol = protocol; c.change(r) })
				client := r.dial()
				write(t, client, "a LOGIN sales@client.example secret\r\n")
				got, err := io.ReadAll(client)
				line := string(got)
				if err != nil || !strings.HasPrefix(line, prefix) || !strings.Contains(line, c.text) ||
					strings.Count(line, "\r\n") != 1 || !strings.HasSuffix(line, "\r\n") || len(line) > 512 {
					t.Errorf("%q, %v", line, err)
				}
				if strings.Contains(line, "key.pem") {
					t.Error("a client is told what is for the log")
				}
			})
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	r := newRig(t, func(r *rig) { r.connections = 1 })
	first := r.dial()
	server := r.accept()
	write(t, server, "* OK\r\n")
	if got, err := io.ReadAll(r.dial()); err != nil || string(got) != "* BYE [UNAVAILABLE] "+textFull+"\r\n" {
		t.Errorf("a second connection: %q, %v", got, err)
	}
	if err := errors.Join(first.Close(), server.Close()); err != nil {
		t.Fatal(err)
	}
	// The place is free again some time after the end.
	for end := time.Now().Add(patience); ; {
		client := r.dial()
		select {
		case c := <-r.heard:
			_ = c.Close()
			return
		case err := <-closedSoon(client):
			if err != nil || time.Now().After(end) {
				t.Fatalf("the place is not free again: %v", err)
			}
		}
	}
}

// closedSoon tells when a connection has ended.
func closedSoon(c net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		done <- err
	}()
	return done
}

func TestAnEndEndsAllConnections(t *testing.T) {
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(*rig) {})
	f, err := New(Config{Protocol: IMAP, Listener: local, Server: r.serverAddr, Roots: r.trusted, Identity: r.identify, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- f.Run(ctx) }()
	r.address = local.Addr().String()
	client := r.dial()
	server := r.accept()
	write(t, server, "* OK\r\n")
	if _, err := io.ReadFull(client, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(client); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection outlives its forwarder")
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1143": true, "127.9.9.9:1": true, "localhost:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true,
		":1143": false, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "mail.bpo.example:1": false, "": false, "127.0.0.1": false,
	} {
		if got := Loopback(address); got != want {
			t.Errorf("%q: %v, want %v", address, got, want)
		}
	}
}

func TestNewRefusesWhatIsIncomplete(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, change := range map[string]func(*Config){
		"protocol": func(c *Config) { c.Protocol = "pop3" }, "server": func(c *Config) { c.Server = "mail.bpo.example" },
		"host": func(c *Config) { c.Server = ":993" }, "listener": func(c *Config) { c.Listener = nil },
		"identity": func(c *Config) { c.Identity = nil }, "logger": func(c *Config) { c.Logger = nil },
		"connections": func(c *Config) { c.Connections = -1 },
	} {
		c := Config{
			Protocol: IMAP, Server: "mail.bpo.example:993", Listener: l, Logger: zap.NewNop(),
			Identity: func() (*tls.Certificate, error) { return nil, fmt.Errorf("none") },
		}
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
