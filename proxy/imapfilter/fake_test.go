// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// fakeGate lets everybody in who knows the token "secret", to one upstream.
type fakeGate struct {
	dial     func(context.Context) (*broker.IMAPConn, error)
	decision policy.Decision
	refuse   error
	// external offers EXTERNAL to who has a certificate.
	external bool

	mu       sync.Mutex
	sessions []*fakeSession
	// logFails makes the log fail; stalls keeps receipts open until it is
	// closed.
	logFails bool
	stall    chan struct{}
	// submitting is called before an event is submitted.
	submitting func(broker.EventType)
}

func (g *fakeGate) OffersExternal(_ context.Context, certificate *x509.Certificate) bool {
	return g.external && certificate != nil
}

func (g *fakeGate) Open(_ context.Context, l broker.Login) (broker.LiveSession, error) {
	if g.refuse != nil {
		return nil, g.refuse
	}
	external := g.external && l.External && l.Certificate != nil && l.Username == "" && l.Token.Empty() && l.AuthorizationID == "box@firm.example"
	if string(l.Token.Reveal()) != "secret" && !external {
		return nil, broker.Errorf(broker.Denied, "no such app password here")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &fakeSession{gate: g, ctx: ctx, cancel: cancel}
	g.mu.Lock()
	g.sessions = append(g.sessions, s)
	g.mu.Unlock()
	return s, nil
}

func (g *fakeGate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions)
}

func (g *fakeGate) last() *fakeSession {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[len(g.sessions)-1]
}

type recorded struct {
	Type broker.EventType
	Data any
}

type fakeSession struct {
	gate   *fakeGate
	ctx    context.Context
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	events []recorded
	ended  *broker.End
}

func (s *fakeSession) Record() *broker.Session {
	return &broker.Session{ID: "0192a000-0000-7000-8000-000000000001"}
}

func (s *fakeSession) Mailbox() *broker.Mailbox {
	return &broker.Mailbox{Address: "box@firm.example"}
}
func (s *fakeSession) Decision() *policy.Decision  { return &s.gate.decision }
func (s *fakeSession) Context() context.Context    { return s.ctx }
func (s *fakeSession) Check(context.Context) error { return nil }
func (s *fakeSession) SetIdle(bool)                {}
func (s *fakeSession) AppendChecked(ctx context.Context, t broker.EventType, data any) (recorded, checked error) {
	return s.Append(ctx, t, data), nil
}

func (s *fakeSession) Append(_ context.Context, t broker.EventType, data any) error {
	s.Submit(t, data)
	return nil
}

func (s *fakeSession) Submit(t broker.EventType, data any) *broker.Receipt {
	s.mu.Lock()
	submitting := s.gate.submitting
	s.mu.Unlock()
	if submitting != nil {
		submitting(t)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, settle := broker.NewReceipt()
	switch {
	case s.gate.stall != nil:
		go func() { <-s.gate.stall; settle(nil) }()
	case s.gate.logFails:
		settle(broker.Errorf(broker.Unavailable, "the disk is full"))
	default:
		s.events = append(s.events, recorded{t, data})
		settle(nil)
	}
	return r
}

func (s *fakeSession) DialIMAP(ctx context.Context) (*broker.IMAPConn, error) {
	return s.gate.dial(ctx)
}

func (s *fakeSession) DialSubmission(context.Context) (*broker.SubmissionConn, error) {
	return nil, broker.Errorf(broker.Internal, "not here")
}

func (s *fakeSession) End(e *broker.End, _ *broker.SessionEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = e
	}
}

func (s *fakeSession) recorded(t broker.EventType) (found []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Type == t {
			found = append(found, e.Data)
		}
	}
	return found
}

func (s *fakeSession) endReason() broker.EndReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		return ""
	}
	return s.ended.Reason
}

// rig is a Filter with one client connection.
type rig struct {
	t      testing.TB
	gate   *fakeGate
	filter *Filter
	served chan struct{}
}

// newRig returns a Filter in front of an upstream.
func newRig(t testing.TB, gate *fakeGate) *rig {
	t.Helper()
	if gate.decision.Actions == 0 {
		gate.decision.Actions = policy.All
	}
	f, err := New(Config{Gate: gate, Hostname: "postern.test", Logger: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, gate: gate, filter: f}
}

// connect returns a client's end of a new connection, which Postern takes for
// one under TLS.
func (r *rig) connect() *peer {
	r.t.Helper()
	return r.connectWith(nil)
}

// connectWith is connect with a client certificate.
func (r *rig) connectWith(certificate *x509.Certificate) *peer {
	r.t.Helper()
	client, server := tcpPair(r.t)
	conn := proxy.NewConn(server, proxy.ConnConfig{IsTLS: true, Certificate: certificate})
	done := make(chan struct{})
	r.served = done
	go func() {
		defer close(done)
		r.filter.ServeConn(context.Background(), conn)
		linger(server)
	}()
	r.t.Cleanup(func() {
		client.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			r.t.Error("the connection is still served")
		}
	})
	p := newPeer(r.t, client)
	p.expect("* OK [CAPABILITY ")
	return p
}

// newServerConn makes of a connection one that Postern takes for TLS.
func newServerConn(c net.Conn) *proxy.Conn {
	return proxy.NewConn(c, proxy.ConnConfig{IsTLS: true})
}

// linger closes a connection as proxy.Server does: the peer may read what was
// written last.
func linger(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		_, _ = io.Copy(io.Discard, c)
	}
	_ = c.Close()
}

// login connects and logs in.
func (r *rig) login() *peer {
	r.t.Helper()
	p := r.connect()
	p.send("l LOGIN box@firm.example secret")
	p.expect("l OK [CAPABILITY ")
	return p
}

// peer is one end of a connection, spoken line by line.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	return &peer{t, c, bufio.NewReaderSize(c, 1<<20)}
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	p.raw(fmt.Sprintf(format, args...) + "\r\n")
}

func (p *peer) raw(s string) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(p.conn, s); err != nil {
		p.t.Fatalf("writing %.60q: %v", s, err)
	}
}

// line returns the next line without CRLF.
func (p *peer) line() string {
	p.t.Helper()
	s, err := p.tryLine()
	if err != nil {
		p.t.Fatalf("reading a line: %v (got %q)", err, s)
	}
	return s
}

func (p *peer) tryLine() (string, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(time.Minute))
	s, err := p.r.ReadString('\n')
	return strings.TrimSuffix(s, "\r\n"), err
}

// expect reads one line, which must begin so.
func (p *peer) expect(prefix string) string {
	p.t.Helper()
	s := p.line()
	if !strings.HasPrefix(s, prefix) {
		p.t.Fatalf("got %q, want %q", s, prefix)
	}
	return s
}

// until reads lines up to one that begins so, and returns them all.
func (p *peer) until(prefix string) []string {
	p.t.Helper()
	var lines []string
	for {
		s := p.line()
		lines = append(lines, s)
		if strings.HasPrefix(s, prefix) {
			return lines
		}
		if len(lines) > 100000 {
			p.t.Fatalf("no %q", prefix)
		}
	}
}

// closed fails unless the other side closes, whatever it says before.
func (p *peer) closed() []string {
	p.t.Helper()
	var lines []string
	for {
		s, err := p.tryLine()
		if err == nil {
			lines = append(lines, s)
			continue
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			p.t.Fatalf("still open; got %q", lines)
		}
		return lines
	}
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- c
	}()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, ok := <-accepted
	if !ok {
		t.Fatal("not accepted")
	}
	return a, b
}

// scripted returns a gate whose upstream is the test itself: each dial hands a
// peer to the channel.
func scripted(t testing.TB, capabilities ...string) (*fakeGate, chan *peer) {
	peers := make(chan *peer, 4)
	if capabilities == nil {
		capabilities = []string{"IMAP4rev1", "IDLE", "LITERAL+", "UIDPLUS", "MOVE", "UNSELECT", "ENABLE", "STARTTLS", "AUTH=PLAIN", "MULTIAPPEND", "CATENATE", "BINARY", "UTF8=ACCEPT"}
	}
	return &fakeGate{dial: func(context.Context) (*broker.IMAPConn, error) {
		a, b := tcpPair(t)
		t.Cleanup(func() { b.Close() })
		peers <- newPeer(t, b)
		return &broker.IMAPConn{Conn: a, Capabilities: capabilities}, nil
	}}, peers
}
