// SPDX-License-Identifier: Apache-2.0

package drivertest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// listen serves one connection in place of the provider. It is closed, and
// waited for, when the test ends.
func listen(t *testing.T, serve func(net.Conn)) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			done.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		done.Wait()
	})
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// listenTLS is listen with TLS. The first octets that the driver says are read
// before answer is called with them.
func listenTLS(t *testing.T, p *Provider, certificate *servers.Certificate, answer func(conn net.Conn, asked []byte)) uint16 {
	t.Helper()
	return listen(t, func(raw net.Conn) {
		if p.StartTLS != nil && p.StartTLS(raw) != nil {
			return
		}
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certificate.TLS}, MinVersion: tls.VersionTLS12})
		if conn.Handshake() != nil {
			return
		}
		asked := make([]byte, 64<<10)
		n, err := conn.Read(asked)
		if err != nil {
			return
		}
		answer(conn, asked[:n])
		conn.Close()
	})
}

// fault runs a change against something else than the provider.
func fault(ctx context.Context, t *testing.T, p *Provider, port uint16, outcome broker.DriverOutcome) {
	t.Helper()
	c := p.Mailbox(t)
	p.At(c, port)
	WantError(t, set(ctx, t, p, c), outcome, broker.DriverUnavailable)
}

// answered is the outcome when what is wrong is the first answer.
func (p *Provider) answered() broker.DriverOutcome {
	if p.AskedAtOnce {
		return broker.OutcomeUnknown
	}
	return broker.NotApplied
}

func nobodyListens(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	fault(t.Context(), t, p, servers.FreePort(t), broker.NotApplied)
}

func badCertificates(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	for name, certificate := range map[string]*servers.Certificate{
		"another name":     p.CA.IssueWrongName(),
		"expired":          p.CA.IssueExpired(),
		"of another CA":    servers.NewCA(t).Issue(),
		"of a workstation": p.CA.IssueClient("localhost"),
	} {
		t.Run(name, func(t *testing.T) {
			port := listenTLS(t, p, certificate, func(net.Conn, []byte) {
				t.Error("the driver spoke to a server that it cannot know")
			})
			fault(t.Context(), t, p, port, broker.NotApplied)
		})
	}
}

// silence: the driver ends with its context.
func silence(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	port := listen(t, func(conn net.Conn) {
		io.ReadFull(conn, make([]byte, 1)) // it has begun to speak
		cancel()
		io.Copy(io.Discard, conn)
	})
	fault(ctx, t, p, port, broker.NotApplied)
}

func silentAnswer(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	port := listenTLS(t, p, p.CA.Issue(), func(conn net.Conn, _ []byte) {
		cancel()
		io.Copy(io.Discard, conn)
	})
	fault(ctx, t, p, port, p.answered())
}

func nonsense(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	for name, said := range map[string]string{
		"words":      "what do you want?\r\n\r\n",
		"nothing":    "",
		"NULs":       string(make([]byte, 4096)),
		"high bits":  "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"SMTP":       "220 mail.example ESMTP\r\n",
		"half HTTP":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{\"type\":\"succ",
		"half of it": string(p.Flood),
	} {
		t.Run(name, func(t *testing.T) {
			port := listenTLS(t, p, p.CA.Issue(), func(conn net.Conn, _ []byte) { io.WriteString(conn, said) })
			fault(t.Context(), t, p, port, p.answered())
		})
	}
}

// echo: a server that says back what it was told, secrets included.
func echo(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	port := listenTLS(t, p, p.CA.Issue(), func(conn net.Conn, asked []byte) { conn.Write(asked) })
	fault(t.Context(), t, p, port, p.answered())
}

func hangsUp(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	port := listenTLS(t, p, p.CA.Issue(), func(conn net.Conn, _ []byte) {
		conn.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
		conn.(*tls.Conn).NetConn().Close()
	})
	fault(t.Context(), t, p, port, p.answered())
}

// flood: the driver stops to listen long before memory is short.
func flood(t *testing.T, p *Provider) {
	if p.At == nil {
		return
	}
	const most = 64 << 20 // what kernels buffer is far less
	var told atomic.Int64
	ended := make(chan struct{}, 16) // a library may try again, at another address
	port := listenTLS(t, p, p.CA.Issue(), func(conn net.Conn, _ []byte) {
		defer func() { ended <- struct{}{} }()
		conn.Write(p.Flood)
		filling := make([]byte, 64<<10)
		for i := range filling {
			filling[i] = 'x'
		}
		for told.Load() < most {
			n, err := conn.Write(filling)
			told.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	fault(t.Context(), t, p, port, p.answered())
	<-ended
	if n := told.Load(); n >= most {
		t.Errorf("the driver listened to %d octets", n)
	}
}
