// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/e2e"
)

// octetEvery is between the octets of who sends one at a time; reopenAfter
// between a connection's end and the next in its place.
const (
	octetEvery  = time.Second
	reopenAfter = 5 * time.Second
)

// loris is a way to hold a connection without ever logging in: what is said at
// once, and what one octet at a time.
type loris struct {
	name string
	port func(*e2e.Postern) uint16
	// certificate is of a workstation: TLS comes first.
	certificate *tls.Certificate
	// steps are said at once, each behind an answer's line.
	steps []string
	// drip is said an octet at a time, for ever.
	drip []byte
}

// strangers' ways need nothing; insiders' a workstation's certificate.
func lorises(t testing.TB, s *staff, insider *worker) (strangers, insiders []loris) {
	imaps := func(p *e2e.Postern) uint16 { return p.IMAPSPort }
	imap := func(p *e2e.Postern) uint16 { return p.IMAPPort }
	submissions := func(p *e2e.Postern) uint16 { return p.SubmissionsPort }
	submission := func(p *e2e.Postern) uint16 { return p.SubmissionPort }
	hello := clientHello(t, s)
	half := string(hello[:len(hello)/2])
	strangers = []loris{
		{name: "silence", port: imaps},
		{name: "silence", port: submissions},
		{name: "silence before STARTTLS", port: imap},
		{name: "silence before STARTTLS", port: submission},
		{name: "a ClientHello by octets", port: imaps, drip: hello},
		{name: "a ClientHello by octets", port: submissions, drip: hello},
		{name: "half a handshake", port: imaps, steps: []string{string(hello)}},
		{name: "half a handshake", port: submissions, steps: []string{string(hello)}},
		{name: "a command by octets", port: imap, drip: []byte("a LOGIN " + sales)},
		{name: "a command by octets", port: submission, drip: []byte("EHLO client.example")},
		{name: "half a literal", port: imap, steps: []string{"a LOGIN {1000+}\r\nsales"}, drip: []byte("@")},
		{name: "STARTTLS half way", port: imap, steps: []string{"a STARTTLS\r\n", half}},
		{name: "STARTTLS half way", port: submission, steps: []string{"EHLO client.example\r\nSTARTTLS\r\n", half}},
	}
	c := &insider.certificate
	insiders = []loris{
		{name: "half a literal", port: imaps, certificate: c, steps: []string{"a LOGIN {1000}\r\n", "sales"}},
		{name: "half of SASL PLAIN", port: imaps, certificate: c, steps: []string{"a AUTHENTICATE PLAIN\r\n"}, drip: []byte("AAAA")},
		{name: "half of SASL LOGIN", port: submissions, certificate: c, steps: []string{"EHLO client.example\r\n", "AUTH LOGIN\r\n", "c2FsZXM=\r\n"}},
		{name: "half of SASL PLAIN", port: submissions, certificate: c, steps: []string{"EHLO client.example\r\n", "AUTH PLAIN\r\n"}, drip: []byte("AAAA")},
	}
	return strangers, insiders
}

// clientHello returns what a client without a certificate says first.
func clientHello(t testing.TB, s *staff) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	var ended sync.WaitGroup
	defer ended.Wait()
	defer client.Close()
	ended.Go(func() { _ = tls.Client(client, &tls.Config{RootCAs: s.roots, ServerName: "localhost"}).Handshake() })
	var hello bytes.Buffer
	if _, err := io.CopyN(&hello, server, 5); err != nil {
		t.Fatal(err)
	}
	record := hello.Bytes()
	if _, err := io.CopyN(&hello, server, int64(record[3])<<8|int64(record[4])); err != nil {
		t.Fatal(err)
	}
	return hello.Bytes()
}

// siege is a number of connections that are opened again whenever they are
// dropped.
type siege struct {
	p              *e2e.Postern
	work           sync.WaitGroup
	cancel         context.CancelFunc
	opened, closed atomic.Int64
}

func newSiege(p *e2e.Postern) (*siege, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	return &siege{p: p, cancel: cancel}, ctx
}

// hold adds a connection.
func (s *siege) hold(ctx context.Context, from string, l *loris) {
	s.work.Go(func() {
		for ctx.Err() == nil {
			s.one(ctx, from, l)
			select {
			case <-ctx.Done():
			case <-time.After(reopenAfter):
			}
		}
	})
}

func (s *siege) end() {
	s.cancel()
	s.work.Wait()
}

// one holds a connection until it is dropped. What becomes of it is nobody's
// business but the server's.
func (s *siege) one(ctx context.Context, from string, l *loris) {
	raw, err := dialFrom(from, l.port(s.p))
	if err != nil {
		return
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	s.opened.Add(1)
	defer s.closed.Add(1)
	_ = raw.SetDeadline(time.Time{})
	c := newLine(raw)
	if l.certificate != nil {
		secured := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{*l.certificate}})
		if secured.HandshakeContext(ctx) != nil {
			return
		}
		c.Conn = secured
		c.in.Reset(secured)
	}
	for i, step := range l.steps {
		if i > 0 || l.certificate != nil || step[0] != 22 {
			if _, err := c.in.ReadString('\n'); err != nil {
				return
			}
		}
		if _, err := io.WriteString(c.Conn, step); err != nil {
			return
		}
	}
	s.drip(ctx, c, l.drip)
}

// drip sends an octet at a time until the server closes.
func (s *siege) drip(ctx context.Context, c *line, octets []byte) {
	dropped := make(chan struct{})
	s.work.Go(func() {
		defer close(dropped)
		_, _ = io.Copy(io.Discard, c.in)
	})
	defer func() { c.Close(); <-dropped }()
	tick := time.NewTicker(octetEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-dropped:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(octets) > 0 {
			if _, err := c.Conn.Write(octets[i%len(octets) : i%len(octets)+1]); err != nil {
				return
			}
		}
	}
}

// shift is what an agent does, over and over: log in, read, wait for news,
// send a message to his own mailbox, be told of it. times has what each took.
func (w *worker) shift(times *timings) error {
	began := time.Now()
	mark := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %s: %w", w.name, what, err)
		}
		times.add(what, time.Since(began))
		began = time.Now()
		return nil
	}
	imap, err := w.imap()
	if err := mark(w.how("log in"), err); err != nil {
		return err
	}
	defer imap.Close()
	err = errors.Join(imap.imap("SELECT INBOX"), imap.imap("UID FETCH 1:3 (UID FLAGS BODY.PEEK[])"))
	if err := mark("read", err); err != nil {
		return err
	}
	if err := mark("wait for news", imap.idle()); err != nil {
		return err
	}
	smtp, err := w.smtp()
	if err := mark(w.how("log in to send"), err); err != nil {
		return err
	}
	defer smtp.Close()
	id := fmt.Sprintf("shift-%s-%d", w.name, times.next.Add(1))
	if err := mark("send", smtp.submit(w.mailbox, w.mailbox, id, "of the day\r\n")); err != nil {
		return err
	}
	if err := mark("be told", imap.news()); err != nil {
		return err
	}
	err = errors.Join(imap.done(), imap.logout(), smtp.quit())
	return mark("leave", err)
}

// how tells apart what takes longer with STARTTLS.
func (w *worker) how(what string) string {
	if w.startTLS {
		return what + ", STARTTLS"
	}
	return what
}

// timings are by what was done.
type timings struct {
	mu   sync.Mutex
	took map[string][]time.Duration
	next atomic.Int64
}

func (s *timings) add(what string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.took == nil {
		s.took = make(map[string][]time.Duration)
	}
	s.took[what] = append(s.took[what], took)
}
