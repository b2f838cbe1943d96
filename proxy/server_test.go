// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/proxy"
)

// login reads one line, and is authenticated by any.
func login(c *proxy.Conn) error {
	b := make([]byte, 6)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	c.Authenticated()
	_, err := io.WriteString(c, "OK\n")
	return err
}

func TestHandshakeTimeLimit(t *testing.T) {
	h := newHouse(t, proxy.Limits{HandshakeTimeout: 30 * time.Millisecond})
	h.start(func(context.Context, *proxy.Conn) { t.Error("the handler was called") })
	c := h.dial()
	// A slow-loris: the beginning of a ClientHello, and then nothing.
	if _, err := c.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || len(got) != 0 {
		t.Fatalf("got %q, %v", got, err)
	}
}

// Whatever deadlines a handler sets, an unauthenticated connection ends; and
// the handler can say why.
func TestAuthenticateTimeLimit(t *testing.T) {
	h := newHouse(t, proxy.Limits{AuthenticateTimeout: 200 * time.Millisecond})
	h.start(func(_ context.Context, c *proxy.Conn) {
		c.SetTimeouts(time.Hour, time.Hour)
		_ = c.SetDeadline(time.Time{})
		_ = c.Conn.SetReadDeadline(time.Now().Add(time.Hour))
		if err := login(c); errors.Is(err, os.ErrDeadlineExceeded) {
			fmt.Fprint(c, "too slow\n")
		}
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if got, err := io.ReadAll(c); err != nil || string(got) != "too slow\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// A handler that does not react to its deadline is ended all the same.
func TestStubbornHandlerIsCutOff(t *testing.T) {
	h := newHouse(t, proxy.Limits{AuthenticateTimeout: 10 * time.Millisecond})
	h.config.Implicit = false
	ended := make(chan struct{})
	h.start(func(ctx context.Context, c *proxy.Conn) {
		<-ctx.Done()
		close(ended)
	})
	if _, err := io.ReadAll(h.dial()); err == nil {
		t.Error("the connection was not reset")
	}
	h.wait(ended, "the handler's context to be cancelled")
}

func TestAuthenticatedOutlivesTheTimeLimit(t *testing.T) {
	const limit = 300 * time.Millisecond
	h := newHouse(t, proxy.Limits{AuthenticateTimeout: limit})
	accepted := make(chan time.Time, 1)
	h.start(func(_ context.Context, c *proxy.Conn) {
		accepted <- time.Now()
		if login(c) == nil {
			_ = login(c)
		}
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	fmt.Fprint(c, "login\n")
	line(t, c)
	// The limit and what is granted above it must pass; there is no event.
	<-time.After(time.Until((<-accepted).Add(limit + 2500*time.Millisecond)))
	fmt.Fprint(c, "again\n")
	if got := line(t, c); got != "OK\n" {
		t.Fatalf("got %q", got)
	}
	if n := h.metric("postern_proxy_connections_pending", nil); n != 0 {
		t.Errorf("%v connections are pending", n)
	}
}

// TestNever9StrangersCannotKeepAgentsOut holds every place with connections
// that say nothing, and reopens each that is dropped, while an office full of
// agents behind one address comes and goes.
func TestNever9StrangersCannotKeepAgentsOut(t *testing.T) {
	const strangers, agents, rounds = 200, 10, 5
	for name, stranger := range map[string]func(i int) string{
		"few addresses":  func(i int) string { return fmt.Sprintf("198.51.100.%d", i%3) },
		"many addresses": func(i int) string { return fmt.Sprintf("203.0.113.%d", i) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, proxy.Limits{Pending: 128, PendingPerAddress: 64})
			h.config.TrustedProxies = loopback // so that connections come from anywhere
			h.start(func(_ context.Context, c *proxy.Conn) { _ = login(c) })
			ctx, cancel := context.WithCancel(t.Context())
			var flood sync.WaitGroup
			var dropped atomic.Int64
			for i := range strangers {
				flood.Go(func() {
					for ctx.Err() == nil {
						holdPlace(ctx, h.server.Addr().String(), stranger(i))
						dropped.Add(1)
						select { // not as fast as loopback lets it, but 1,000 a second
						case <-ctx.Done():
						case <-time.After(strangers * time.Millisecond):
						}
					}
				})
			}
			h.eventually("strangers fill the lobby", func() bool { return dropped.Load() > strangers })
			config := h.clientTLS(h.workstation(h.ca))
			var work sync.WaitGroup
			var failures atomic.Int64
			for range agents {
				work.Go(func() {
					for range rounds {
						if err := logInFrom(h.server.Addr().String(), "192.0.2.1", config); err != nil {
							t.Logf("an agent was kept out: %v", err)
							failures.Add(1)
						}
					}
				})
			}
			work.Wait()
			cancel()
			flood.Wait()
			if n := failures.Load(); n > 0 {
				t.Errorf("%d of %d logins failed", n, agents*rounds)
			}
			if n := h.metric("postern_proxy_connections_evicted_total", map[string]string{"class": "stranger"}); n < strangers/2 {
				t.Errorf("only %v strangers were evicted", n)
			}
		})
	}
}

// TestNever9SilentConnectionsPushOutNoHandshake: not even from the agents' own
// address. The client here takes its time for the second half of its handshake,
// as one on a bad line does.
func TestNever9SilentConnectionsPushOutNoHandshake(t *testing.T) {
	const silent = 100
	h := newHouse(t, proxy.Limits{Pending: 4, PendingPerAddress: 2})
	h.start(func(_ context.Context, c *proxy.Conn) { _ = login(c) })
	config := h.clientTLS(h.workstation(h.ca))
	asked, flooded := make(chan struct{}), make(chan struct{})
	certificate := config.GetClientCertificate
	config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		close(asked)
		<-flooded
		return certificate(i)
	}
	c := tls.Client(h.dial(), config)
	shaken := make(chan error, 1)
	go func() { shaken <- c.Handshake() }()
	h.wait(asked, "the server's half of the handshake")
	for i := range silent {
		if i%2 == 0 {
			h.intrude(nil)
		} else { // the beginning of a ClientHello
			h.intrude([]byte{22, 3, 1})
		}
	}
	h.eventually("the silent push out each other", func() bool {
		return h.metric("postern_proxy_connections_evicted_total", map[string]string{"class": "stranger"}) == silent-2
	})
	close(flooded)
	if err := <-shaken; err != nil {
		t.Fatalf("the agent was kept out: %v", err)
	}
	fmt.Fprint(c, "login\n")
	if got := line(t, c); got != "OK\n" {
		t.Fatalf("got %q", got)
	}
	if n := h.metric("postern_proxy_connections_evicted_total", map[string]string{"class": "handshake"}); n != 0 {
		t.Errorf("%v handshakes were pushed out", n)
	}
}

// Handshakes that stop in the middle push out each other, and are bounded.
func TestHandshakesAreBounded(t *testing.T) {
	h := newHouse(t, proxy.Limits{Pending: 4, PendingPerAddress: 2})
	h.start(func(context.Context, *proxy.Conn) { t.Error("the handler was called") })
	hello := clientHello(t, h.clientTLS())
	for range 10 {
		h.intrude(hello)
	}
	h.eventually("all but two are pushed out", func() bool {
		return h.metric("postern_proxy_connections_evicted_total", nil) == 8 &&
			h.metric("postern_proxy_connections_pending", map[string]string{"class": "handshake"}) == 2
	})
}

// intrude connects and says something. It may be pushed out at once.
func (h *house) intrude(say []byte) {
	h.t.Helper()
	c, err := net.Dial("tcp", h.server.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	_, _ = c.Write(say)
}

// clientHello returns what a client says first.
func clientHello(t *testing.T, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() { _ = tls.Client(client, config).Handshake() }()
	header := make([]byte, 5)
	if _, err := io.ReadFull(server, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

func proxyHeader(from string) string {
	return "PROXY TCP4 " + from + " 192.0.2.200 4711 993\r\n"
}

// holdPlace begins a handshake and waits until it is dropped.
func holdPlace(ctx context.Context, addr, from string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return // dropped before it was connected
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_, _ = io.WriteString(c, proxyHeader(from)+"\x16\x03\x01")
	_, _ = io.ReadAll(c)
}

func logInFrom(addr, from string, config *tls.Config) error {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	if _, err := io.WriteString(raw, proxyHeader(from)); err != nil {
		return err
	}
	return logIn(raw, config)
}

func logInOnce(addr string, config *tls.Config) error {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	return logIn(raw, config)
}

func logIn(raw net.Conn, config *tls.Config) error {
	_ = raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, config)
	if _, err := io.WriteString(c, "login\n"); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 3))
	return err
}

// Once a certificate was shown, strangers' connections do not count against
// it, however many come.
func TestCertifiedConnectionsAreNotEvictedByStrangers(t *testing.T) {
	h := newHouse(t, proxy.Limits{Pending: 2, PendingPerAddress: 2})
	h.start(func(_ context.Context, c *proxy.Conn) { _ = login(c) })
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	h.eventually("the certificate counts", func() bool {
		return h.metric("postern_proxy_connections_pending", map[string]string{"class": "certificate"}) == 1
	})
	for range 10 {
		h.dial()
	}
	h.eventually("strangers evict strangers", func() bool {
		return h.metric("postern_proxy_connections_evicted_total", map[string]string{"class": "stranger"}) == 8
	})
	fmt.Fprint(c, "login\n")
	if got := line(t, c); got != "OK\n" {
		t.Fatalf("got %q", got)
	}
}

// One workstation cannot fill the places of all: its own oldest go.
func TestOneCertificateCannotFillTheLobby(t *testing.T) {
	h := newHouse(t, proxy.Limits{PendingPerCertificate: 2})
	h.start(func(_ context.Context, c *proxy.Conn) { _ = login(c) })
	other := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if err := other.Handshake(); err != nil {
		t.Fatal(err)
	}
	config := h.clientTLS(h.workstation(h.ca))
	for range 5 {
		if err := tls.Client(h.dial(), config).Handshake(); err != nil {
			t.Fatal(err)
		}
	}
	h.eventually("three are evicted", func() bool {
		return h.metric("postern_proxy_connections_evicted_total", map[string]string{"class": "certificate"}) == 3
	})
	fmt.Fprint(other, "login\n")
	if got := line(t, other); got != "OK\n" {
		t.Fatalf("got %q", got)
	}
}

// Stopping ends what is not authenticated, and leaves sessions to whoever
// opened them.
func TestRunDrains(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	contexts := make(chan context.Context, 2)
	finish := make(chan struct{})
	h.start(func(ctx context.Context, c *proxy.Conn) {
		contexts <- ctx
		if login(c) == nil {
			<-finish
			fmt.Fprint(c, "BYE\n")
		}
	})
	config := h.clientTLS(h.workstation(h.ca))
	session := tls.Client(h.dial(), config)
	fmt.Fprint(session, "login\n")
	line(t, session)
	sessionCtx := <-contexts
	pending := tls.Client(h.dial(), config)
	if err := pending.Handshake(); err != nil {
		t.Fatal(err)
	}
	pendingCtx := <-contexts
	h.cancel()
	h.wait(pendingCtx.Done(), "the unauthenticated connection's context")
	if _, err := pending.Read(make([]byte, 1)); err == nil {
		t.Error("the unauthenticated connection lives on")
	}
	if sessionCtx.Err() != nil {
		t.Error("the session's context was cancelled")
	}
	select {
	case <-h.done:
		t.Error("Run returned before the session was over")
	default:
	}
	h.eventually("the listener is closed", func() bool {
		c, err := net.Dial("tcp", h.server.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(finish)
	if got := line(t, session); got != "BYE\n" {
		t.Errorf("got %q", got)
	}
	h.wait(h.done, "Run to return")
}

func TestCloseKillsSessions(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(func(ctx context.Context, c *proxy.Conn) {
		if login(c) == nil {
			<-ctx.Done()
		}
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	fmt.Fprint(c, "login\n")
	line(t, c)
	h.server.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	h.wait(h.done, "Run to return")
}

func TestPanicEndsOneConnection(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(func(_ context.Context, c *proxy.Conn) {
		if login(c) == nil {
			b := make([]byte, 1)
			if _, err := c.Read(b); err == nil {
				panic("boom")
			}
		}
	})
	config := h.clientTLS(h.workstation(h.ca))
	for range 2 {
		c := tls.Client(h.dial(), config)
		fmt.Fprint(c, "login\n")
		line(t, c)
		fmt.Fprint(c, "x")
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection lives on")
		}
	}
	h.eventually("both panics are counted", func() bool { return h.metric("postern_proxy_panics_total", nil) == 2 })
	h.eventually("nothing is left open", func() bool { return h.metric("postern_proxy_connections_open", nil) == 0 })
}

// TestKillWaitsForNoWrite has a client that reads nothing, so that a write
// holds crypto/tls's lock, and Close would wait for it.
func TestKillWaitsForNoWrite(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	blocked, ended := make(chan *proxy.Conn, 1), make(chan error, 1)
	h.start(func(_ context.Context, c *proxy.Conn) {
		c.Authenticated()
		blocked <- c
		b := make([]byte, 1<<20)
		for {
			c.Cork()
			if _, err := c.Write(b); err != nil {
				ended <- err
				return
			}
		}
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	victim := <-blocked
	// Whether the socket is full cannot be asked; a write with a deadline
	// that has passed tells, and disturbs the blocked one not at all.
	h.eventually("the socket is full", func() bool { return socketFull(t, victim) })
	start := time.Now()
	victim.Kill()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Kill took %s", d)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("the write ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the blocked write did not end")
	}
}

// socketFull asks the kernel whether the socket takes no more octets.
func socketFull(t *testing.T, c *proxy.Conn) bool {
	t.Helper()
	raw, err := c.Raw().(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	full := false
	if err := raw.Control(func(fd uintptr) { full = !writable(fd) }); err != nil {
		t.Fatal(err)
	}
	return full
}

// Last words reach a client that is still sending: to close with octets
// unread would reset the connection, and the client might never see them.
func TestLastWordsReachATalkativeClient(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.start(func(_ context.Context, c *proxy.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 10))
		fmt.Fprint(c, "* BYE line too long\r\n")
	})
	c := tls.Client(h.dial(), h.clientTLS(h.workstation(h.ca)))
	if _, err := io.WriteString(c, strings.Repeat("x", 100_000)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "* BYE line too long\r\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// failingListener fails its first accepts as a process without descriptors
// does.
type failingListener struct {
	net.Listener
	failures atomic.Int64
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsBackOff(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.config.Implicit = false
	l := &failingListener{Listener: h.config.Listener}
	l.failures.Store(3)
	h.config.Listener = l
	h.start(whoami)
	if got := line(t, h.dial()); got != "nobody tls=false\n" {
		t.Fatalf("got %q", got)
	}
}

func TestServerConfigIsChecked(t *testing.T) {
	if _, err := proxy.NewServer(proxy.ServerConfig{}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Fatalf("error is %v", err)
	}
}
