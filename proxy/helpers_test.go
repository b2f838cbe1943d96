// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
)

// patience is how long a test waits for what must come. Nothing is expected
// to take that long.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handlerFunc is a Handler.
type handlerFunc func(ctx context.Context, c *proxy.Conn)

func (f handlerFunc) ServeConn(ctx context.Context, c *proxy.Conn) { f(ctx, c) }

// house is a server with its certificates and what tests turn.
type house struct {
	t        *testing.T
	dir      string
	ca       *workstationca.Authority
	certs    *proxy.Certificates
	lobby    *proxy.Lobby
	registry *prometheus.Registry
	config   proxy.ServerConfig
	server   *proxy.Server
	cancel   context.CancelFunc
	done     chan struct{}
}

// newHouse makes all but the server; start runs it.
func newHouse(t *testing.T, limits proxy.Limits) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), registry: prometheus.NewRegistry()}
	var err error
	if h.ca, err = workstationca.Create(h.dir, workstationca.Config{}); err != nil {
		t.Fatal(err)
	}
	h.writeServerCertificate("imap.postern.example")
	h.certs, err = proxy.NewCertificates(proxy.CertificatesConfig{
		CertificateFile: h.path("server.pem"),
		KeyFile:         h.path("server.key"),
		ClientCAFiles:   []string{h.path(workstationca.CertificateFile)},
		Logger:          zaptest.NewLogger(t),
		Registerer:      h.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.lobby, err = proxy.NewLobby(proxy.LobbyConfig{Limits: limits, Registerer: h.registry}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.config = proxy.ServerConfig{
		Name: "test", Listener: listener, Implicit: true,
		Certificates: h.certs, Lobby: h.lobby, Logger: zaptest.NewLogger(t),
	}
	t.Cleanup(func() { _ = listener.Close() })
	return h
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) writeServerCertificate(name string) {
	h.t.Helper()
	certPEM, keyPEM, err := h.ca.IssueServer([]string{name, "127.0.0.1"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("server.pem", certPEM)
	h.write("server.key", keyPEM)
}

// write replaces a file by a rename, as renewals do.
func (h *house) write(name string, b []byte) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name+".new"), b, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(h.path(name+".new"), h.path(name)); err != nil {
		h.t.Fatal(err)
	}
}

// start serves f until the test ends or stop is called.
func (h *house) start(f handlerFunc) {
	h.t.Helper()
	h.config.Handler = f
	server, err := proxy.NewServer(h.config)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	h.server, h.cancel, h.done = server, cancel, make(chan struct{})
	go func() {
		defer close(h.done)
		if err := server.Run(ctx); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	}()
	h.t.Cleanup(func() {
		cancel()
		server.Close()
		h.wait(h.done, "Run to return")
	})
}

func (h *house) wait(what <-chan struct{}, name string) {
	h.t.Helper()
	select {
	case <-what:
	case <-time.After(patience):
		h.t.Fatalf("waited in vain for %s", name)
	}
}

// dial opens a bare connection.
func (h *house) dial() net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.server.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) { // it was evicted before connect returned
		gone, far := net.Pipe()
		_ = far.Close()
		return gone
	}
	if err != nil {
		h.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// workstation makes a client certificate.
func (h *house) workstation(ca *workstationca.Authority) tls.Certificate {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		h.t.Fatal(err)
	}
	certPEM, err := ca.Issue(h.t.Context(),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}),
		&broker.Workstation{ID: broker.NewID(), Name: "desk-7"})
	if err != nil {
		h.t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// clientTLS trusts the house's server certificate, and shows certs.
func (h *house) clientTLS(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.ca.CertificatePEM())
	return &tls.Config{
		RootCAs:    roots,
		ServerName: "127.0.0.1",
		// Shown whatever CAs the server names: a hostile client need not ask.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certs[0], nil
		},
	}
}

// line reads one line; its error is fatal.
func line(t *testing.T, c net.Conn) string {
	t.Helper()
	s, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		t.Fatalf("read a line: %v (got %q)", err, s)
	}
	return s
}

// metric returns the sum of a family's samples that bear the labels.
func (h *house) metric(name string, labels map[string]string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	var sum float64
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	samples:
		for _, m := range family.GetMetric() {
			has := make(map[string]string)
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for k, v := range labels {
				if has[k] != v {
					continue samples
				}
			}
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sum
}

// eventually waits until f holds, looking every few milliseconds.
func (h *house) eventually(what string, f func() bool) {
	h.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func mustParse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func anywhere(netip.Addr) bool { return true }
