// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// benchSession returns both ends of a session on loopback TCP: what the client
// writes and reads, and what the upstream does; secure and upSecure say whether
// its legs are TLS 1.3.
func benchSession(b *testing.B, secure, upSecure bool) (client, up net.Conn) {
	b.Helper()
	ups := make(chan net.Conn, 1)
	gate := &fakeGate{decision: policy.Decision{Actions: policy.All}, dial: func(context.Context) (*broker.IMAPConn, error) {
		near, far := tcpPair(b)
		if upSecure {
			near, far = tls.Client(near, &tls.Config{InsecureSkipVerify: true}), tls.Server(far, benchTLS(b))
		}
		ups <- far
		return &broker.IMAPConn{Conn: near, Capabilities: []string{"IMAP4rev1", "LITERAL+", "IDLE"}}, nil
	}}
	f, err := New(Config{Gate: gate, Hostname: "postern.test", StartTLS: secure, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	client, server := tcpPair(b)
	config := proxy.ConnConfig{IsTLS: !secure}
	if secure {
		config.TLS = benchTLS(b)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.ServeConn(context.Background(), proxy.NewConn(server, config))
		server.Close()
	}()
	raw := client
	if secure {
		line := make([]byte, 4096)
		_, _ = client.Read(line)
		_, _ = client.Write([]byte("s STARTTLS\r\n"))
		_, _ = client.Read(line)
		client = tls.Client(client, &tls.Config{InsecureSkipVerify: true}) // the test's own key
	}
	p := newPeer(b, client)
	p.send("l LOGIN box secret")
	p.until("l OK")
	up = <-ups
	_ = client.SetDeadline(time.Time{})
	b.Cleanup(func() { raw.Close(); up.Close(); <-done })
	return client, up
}

func benchTLS(b *testing.B) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// benchLegs says which legs are TLS: none, the client's as nginx is compared,
// and both as deployed.
var benchLegs = []struct {
	name     string
	down, up bool
}{{"plain", false, false}, {"TLS-down", true, false}, {"TLS-both", true, true}}

// cpuTime is what the process has used; client and upstream are in it.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkNOOP is one small command and its answer, one at a time, through a
// session on loopback TCP; client and upstream are in the same process.
func BenchmarkNOOP(b *testing.B) {
	for _, legs := range benchLegs {
		b.Run(legs.name, func(b *testing.B) {
			client, up := benchSession(b, legs.down, legs.up)
			go func() {
				in := bufio.NewReader(up)
				for {
					if _, err := in.ReadSlice('\n'); err != nil {
						return
					}
					if _, err := up.Write([]byte("a OK NOOP completed.\r\n")); err != nil {
						return
					}
				}
			}()
			in := bufio.NewReader(client)
			b.ReportAllocs()
			began := cpuTime()
			for b.Loop() {
				if _, err := client.Write([]byte("a NOOP\r\n")); err != nil {
					b.Fatal(err)
				}
				if _, err := in.ReadSlice('\n'); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkFetch is one message of 12 KB of a FETCH of many.
func BenchmarkFetch(b *testing.B) {
	const size = 12 << 10
	for _, legs := range benchLegs {
		b.Run(legs.name, func(b *testing.B) {
			client, up := benchSession(b, legs.down, legs.up)
			header := "Subject: x\r\nMessage-ID: <1@firm.example>\r\n\r\n"
			message := header + strings.Repeat("x", size-len(header))
			var answer strings.Builder
			const messages = 1000
			for i := range messages {
				fmt.Fprintf(&answer, "* %d FETCH (UID %d FLAGS (\\Seen) BODY[] {%d}\r\n%s)\r\n", i+1, i+1, size, message)
			}
			answer.WriteString("a OK done\r\n")
			octets := []byte(answer.String())
			go func() {
				in := bufio.NewReader(up)
				for {
					if _, err := in.ReadSlice('\n'); err != nil {
						return
					}
					if _, err := up.Write(octets); err != nil {
						return
					}
				}
			}()
			b.SetBytes(size)
			b.ReportAllocs()
			sink := make([]byte, 1<<18)
			began := cpuTime()
			for n := 0; b.Loop(); n++ {
				if n%messages != 0 {
					continue
				}
				if _, err := client.Write([]byte("a UID FETCH 1:* (FLAGS BODY.PEEK[])\r\n")); err != nil {
					b.Fatal(err)
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(client, int64(len(octets))), sink); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
