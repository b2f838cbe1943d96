// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ownAddress = "alice@own.example"
	ownAlias   = "sales@own.example"
	token      = "app-password-of-the-agent"
	patience   = 10 * time.Second
	// assignmentID is of the form that the store takes.
	assignmentID = "0198c0de-0000-7000-8000-000000000001"
)

// event is one that a fake session recorded.
type event struct {
	kind broker.EventType
	data any
}

// fakeGate lets in whoever has the token, and fails as it is told.
type fakeGate struct {
	mu       sync.Mutex
	err      error // Open's
	dialErr  error
	checkErr error
	// appendErr fails events of a type.
	appendErr map[broker.EventType]error
	actions   policy.Actions
	external  bool            // offers EXTERNAL to who has a certificate
	terms     policy.Decision // what else is decided
	dial      func(ctx context.Context) (*broker.SubmissionConn, error)
	dialIMAP  func(ctx context.Context) (*broker.IMAPConn, error)
	// onAppend is called with every event before it is durable.
	onAppend func(event)

	logins   []broker.Login
	tokens   []string
	events   []event
	sessions []*fakeSession
	ended    chan *broker.End
}

func newGate() *fakeGate {
	return &fakeGate{actions: policy.All, ended: make(chan *broker.End, 64)}
}

func (g *fakeGate) OffersExternal(_ context.Context, certificate *x509.Certificate) bool {
	return g.external && certificate != nil
}

func (g *fakeGate) Open(_ context.Context, l broker.Login) (broker.LiveSession, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logins = append(g.logins, l)
	g.tokens = append(g.tokens, string(l.Token.Reveal()))
	if g.err != nil {
		return nil, g.err
	}
	external := g.external && l.External && l.Certificate != nil && l.Username == "" && l.Token.Empty() && l.AuthorizationID == ownAddress
	if string(l.Token.Reveal()) != token && !external {
		return nil, broker.Errorf(broker.Denied, "login failed").WithCause(errors.New("SECRET CAUSE"))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &fakeSession{gate: g, ctx: ctx, cancel: cancel}
	g.sessions = append(g.sessions, s)
	return s, nil
}

func (g *fakeGate) record(e event) error {
	g.mu.Lock()
	hook, err := g.onAppend, g.appendErr[e.kind]
	g.mu.Unlock()
	if hook != nil {
		hook(e)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.events = append(g.events, e)
	}
	return err
}

func (g *fakeGate) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// last returns the newest live session.
func (g *fakeGate) last() *fakeSession {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions[len(g.sessions)-1]
}

// eventsOf returns the data of all events of one type.
func eventsOf[T any](g *fakeGate, kind broker.EventType) []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []T
	for _, e := range g.events {
		if e.kind == kind {
			all = append(all, *e.data.(*T))
		}
	}
	return all
}

func (g *fakeGate) rules() []string {
	var rules []string
	for _, r := range eventsOf[broker.SendRefused](g, broker.EventSendRefused) {
		rules = append(rules, r.Rule)
	}
	return rules
}

func (g *fakeGate) outcomes() []string {
	var all []string
	for _, r := range eventsOf[broker.SendResult](g, broker.EventSendResult) {
		all = append(all, r.Outcome)
	}
	return all
}

func (g *fakeGate) intents() int {
	return len(eventsOf[broker.SendIntent](g, broker.EventSendIntent))
}

type fakeSession struct {
	gate   *fakeGate
	ctx    context.Context
	cancel context.CancelCauseFunc
	once   sync.Once
}

var _ broker.LiveSession = (*fakeSession)(nil)

func (s *fakeSession) Record() *broker.Session {
	return &broker.Session{
		ID: "s1", AgentID: "a1", MailboxID: "m1", AssignmentID: assignmentID, Protocol: broker.ProtocolSubmission,
	}
}

func (s *fakeSession) Mailbox() *broker.Mailbox {
	return &broker.Mailbox{ID: "m1", Address: "Alice@Own.example", Aliases: []string{ownAlias}}
}

func (s *fakeSession) Decision() *policy.Decision {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	d := s.gate.terms
	d.Actions, d.Addresses = s.gate.actions, s.Mailbox().Addresses()
	return &d
}
func (s *fakeSession) Context() context.Context { return s.ctx }

func (s *fakeSession) Check(context.Context) error {
	s.gate.mu.Lock()
	err := s.gate.checkErr
	s.gate.mu.Unlock()
	if err != nil {
		s.cancel(&broker.End{Reason: broker.EndRevoked, Text: broker.PublicText(err)})
	}
	return err
}
func (s *fakeSession) SetIdle(bool) {}

func (s *fakeSession) AppendChecked(ctx context.Context, t broker.EventType, data any) (recorded, checked error) {
	if err := s.Append(ctx, t, data); err != nil {
		return err, nil
	}
	return nil, s.Check(ctx)
}

func (s *fakeSession) Append(_ context.Context, t broker.EventType, data any) error {
	return s.gate.record(event{t, data})
}

func (s *fakeSession) Submit(t broker.EventType, data any) *broker.Receipt {
	r, settle := broker.NewReceipt()
	settle(s.gate.record(event{t, data}))
	return r
}

func (s *fakeSession) DialIMAP(ctx context.Context) (*broker.IMAPConn, error) {
	return s.gate.dialIMAP(ctx)
}

func (s *fakeSession) DialSubmission(ctx context.Context) (*broker.SubmissionConn, error) {
	s.gate.mu.Lock()
	err, dial := s.gate.dialErr, s.gate.dial
	s.gate.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return dial(ctx)
}

func (s *fakeSession) End(e *broker.End, _ *broker.SessionEnd) {
	s.once.Do(func() { s.gate.ended <- e })
	s.cancel(e)
}

// revoke ends the newest session as the session manager does.
func (g *fakeGate) revoke() {
	g.last().cancel(&broker.End{Reason: broker.EndRevoked, Text: "the delegation was revoked"})
}

// uncounted is for tests without limits per hour: nothing may ask it.
type uncounted struct{ broker.SendingCounts }

// sink is an upstream: a go-smtp server that keeps what it is sent.
type sink struct {
	server *smtp.Server
	addr   string

	mu       sync.Mutex
	messages []sunk
	mailErr  error
	rcptErr  map[string]error
	dataErr  error
}

type sunk struct {
	from string
	to   []string
	opts smtp.MailOptions
	rcpt []smtp.RcptOptions
	body []byte
}

type sinkSession struct {
	sink *sink
	cur  sunk
}

func newSink(t testing.TB, adjust func(*smtp.Server)) *sink {
	t.Helper()
	k := &sink{rcptErr: map[string]error{}}
	k.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &sinkSession{sink: k}, nil
	}))
	k.server.Domain = "upstream.example"
	k.server.EnableDSN = true
	k.server.MaxLineLength = 0
	k.server.ErrorLog = errorLog{zapNop}
	if adjust != nil {
		adjust(k.server)
	}
	l := listen(t)
	k.addr = l.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = k.server.Serve(l) }()
	t.Cleanup(func() {
		_, _ = k.server.Close(), l.Close() // Close does not know of it before Serve has begun
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = k.server.Shutdown(ctx)
	})
	return k
}

func (k *sink) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.messages)
}

func (k *sink) only(t testing.TB) sunk {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.messages) != 1 {
		t.Fatalf("the sink has %d messages, want 1", len(k.messages))
	}
	return k.messages[0]
}

func (s *sinkSession) Reset()        { s.cur = sunk{} }
func (s *sinkSession) Logout() error { return nil }
func (s *sinkSession) Mail(from string, o *smtp.MailOptions) error {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.cur.from, s.cur.opts = from, *o
	return s.sink.mailErr
}

func (s *sinkSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if err := s.sink.rcptErr[to]; err != nil {
		return err
	}
	s.cur.to = append(s.cur.to, to)
	s.cur.rcpt = append(s.cur.rcpt, *o)
	return nil
}

func (s *sinkSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if s.sink.dataErr != nil {
		return s.sink.dataErr
	}
	s.cur.body = b
	s.sink.messages = append(s.sink.messages, s.cur)
	return nil
}

// dialTo logs in to an upstream the way broker/upstream hands it over.
func dialTo(addr string) func(context.Context) (*broker.SubmissionConn, error) {
	return func(ctx context.Context) (*broker.SubmissionConn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, broker.Errorf(broker.Unavailable, "the mail server is out of reach").WithCause(err)
		}
		tc := textproto.NewConn(c)
		if _, _, err := tc.ReadResponse(220); err != nil {
			return nil, err
		}
		if err := tc.PrintfLine("EHLO postern.example"); err != nil {
			return nil, err
		}
		_, text, err := tc.ReadResponse(250)
		if err != nil {
			return nil, err
		}
		ext := map[string]string{}
		for _, line := range strings.Split(text, "\n")[1:] {
			keyword, params, _ := strings.Cut(line, " ")
			ext[strings.ToUpper(keyword)] = params
		}
		return &broker.SubmissionConn{Conn: c, Extensions: ext}, nil
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// setup is a gateway on a listener, with one upstream.
type setup struct {
	gate    *fakeGate
	gateway *Gateway
	addr    string
	conn    proxy.ConnConfig
	written atomic.Int64
	watch   *servers.Stopwatch
	wg      sync.WaitGroup
}

func newSetup(t testing.TB, gate *fakeGate, adjust func(*Config)) *setup {
	t.Helper()
	return newSetupOn(t, gate, proxy.ConnConfig{IsTLS: true}, adjust)
}

// newSetupOn is newSetup with connections of another kind.
func newSetupOn(t testing.TB, gate *fakeGate, conn proxy.ConnConfig, adjust func(*Config)) *setup {
	t.Helper()
	config := Config{Gate: gate, Counts: uncounted{}, Hostname: "postern.example"}
	if adjust != nil {
		adjust(&config)
	}
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	conn.Remote = netip.MustParseAddrPort("192.0.2.1:1234")
	s := &setup{gate: gate, gateway: g, conn: conn, watch: servers.StartStopwatch(t)}
	l := listen(t)
	s.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			c := proxy.NewConn(countingConn{raw.(*net.TCPConn), &s.written}, s.conn)
			s.wg.Go(func() {
				g.ServeConn(ctx, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		s.wg.Wait()
	})
	return s
}

// start is the usual: a gate, a sink and a gateway between.
func start(t testing.TB) (*setup, *sink) {
	t.Helper()
	gate, k := newGate(), newSink(t, nil)
	gate.dial = dialTo(k.addr)
	return newSetup(t, gate, nil), k
}

// client speaks to a gateway.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (s *setup) connect(t testing.TB) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	cl := &client{t: t, Conn: c, r: bufio.NewReader(c)}
	cl.expect("220 ")
	return cl
}

// login connects and authenticates.
func (s *setup) login(t testing.TB) *client {
	t.Helper()
	c := s.connect(t)
	c.talk("C: EHLO client.example\nS*250\nC: AUTH PLAIN " + plain("", ownAddress, token) + "\nS: 235 ")
	return c
}

func plain(authzid, user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(authzid + "\x00" + user + "\x00" + password))
}

func (c *client) raw(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("writing %.40q: %v", s, err)
	}
}

// expect reads a whole reply and returns it; its last line has the prefix.
func (c *client) expect(prefix string) string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("waiting for %q, have %q: %v", prefix, all.String()+line, err)
		}
		all.WriteString(line)
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, prefix) {
			c.t.Fatalf("got %q, want %q", all.String(), prefix)
		}
		return all.String()
	}
}

func (c *client) expectEOF() {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 {
		c.t.Fatalf("got %q, want the end of the connection", rest)
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatal("the connection is still open")
	}
}

// talk runs a transcript: "C: " lines are sent, "S: " lines are the start of
// a reply's last line, "S*code" any reply with that code.
func (c *client) talk(script string) {
	c.t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
		line = strings.TrimLeft(line, "\t")
		switch {
		case strings.HasPrefix(line, "C: "):
			c.raw(line[3:] + "\r\n")
		case strings.HasPrefix(line, "S: "):
			c.expect(line[3:])
		case strings.HasPrefix(line, "S*"):
			c.expect(line[2:])
		default:
			c.t.Fatalf("not a line of a transcript: %q", line)
		}
	}
}

// data opens a transaction up to the 354.
func (c *client) data() {
	c.t.Helper()
	c.talk("C: MAIL FROM:<alice@own.example>\nS*250\nC: RCPT TO:<bob@client.example>\nS*250\nC: DATA\nS*354")
}

const messageID = "<m1@own.example>"

func message1(body string) string {
	return "From: Alice <alice@own.example>\r\nTo: bob@client.example\r\nMessage-ID: " + messageID + "\r\nSubject: x\r\n\r\n" + body
}

// stuffed is a message as it goes after DATA, with its end.
func stuffed(m string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+m, "\r\n.", "\r\n.."), "\r\n") + ".\r\n"
}

func (c *client) quit() {
	c.t.Helper()
	c.talk("C: QUIT\nS: 221 ")
	c.expectEOF()
}

func (g *fakeGate) waitEnd(t testing.TB) *broker.End {
	t.Helper()
	select {
	case e := <-g.ended:
		return e
	case <-time.After(patience):
		t.Fatal("the session was not ended")
		return nil
	}
}

func wantList(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (s *setup) within(t testing.TB, d time.Duration, since time.Time) {
	t.Helper()
	s.watch.Took(t, "it", time.Since(since), d)
}

// scripted is an upstream that a test drives by hand.
type scripted struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// scriptedUpstream hands the gateway one end of a loopback connection, already
// logged in, and the test the other.
func scriptedUpstream(t testing.TB, gate *fakeGate, extensions ...string) <-chan *scripted {
	t.Helper()
	l := listen(t)
	accepted := make(chan *scripted, 8)
	ext := map[string]string{}
	for _, e := range extensions {
		k, v, _ := strings.Cut(e, " ")
		ext[k] = v
	}
	gate.dial = func(ctx context.Context) (*broker.SubmissionConn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		far, err := l.Accept()
		if err != nil {
			return nil, err
		}
		_ = far.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = far.Close() })
		accepted <- &scripted{t: t, conn: far, r: bufio.NewReader(far)}
		return &broker.SubmissionConn{Conn: c, Extensions: ext}, nil
	}
	return accepted
}

func (u *scripted) read(want string) {
	u.t.Helper()
	line, err := u.r.ReadString('\n')
	if err != nil || strings.TrimRight(line, "\r\n") != want {
		u.t.Errorf("upstream got %q (%v), want %q", line, err, want)
	}
}

func (u *scripted) write(s string) {
	u.t.Helper()
	if _, err := fmt.Fprint(u.conn, s); err != nil {
		u.t.Errorf("upstream writing: %v", err)
	}
}

// envelope answers MAIL, RCPT and DATA.
func (u *scripted) envelope() {
	u.t.Helper()
	u.read("MAIL FROM:<alice@own.example>")
	u.write("250 ok\r\n")
	u.read("RCPT TO:<bob@client.example>")
	u.write("250 ok\r\n")
	u.read("DATA")
	u.write("354 go\r\n")
}

// message reads up to the final dot, which it returns with it, or to the end
// of the connection.
func (u *scripted) message() (got []byte, whole bool) {
	var b bytes.Buffer
	for {
		line, err := u.r.ReadBytes('\n')
		b.Write(line)
		if string(line) == ".\r\n" {
			return b.Bytes(), true
		}
		if err != nil {
			return b.Bytes(), false
		}
	}
}

func asError(err error, e **broker.Error) bool { return errors.As(err, e) }

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func newPlainConn(raw net.Conn) *proxy.Conn { return proxy.NewConn(raw, proxy.ConnConfig{}) }

// countingConn counts what the gateway wrote to its client.
type countingConn struct {
	*net.TCPConn
	written *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// sent is how much was written to all clients.
func (s *setup) sent() int64 { return s.written.Load() }

// cannedConn answers what it has to say, and keeps what it is told.
type cannedConn struct {
	net.Conn
	answers *strings.Reader
	said    bytes.Buffer
}

func (c *cannedConn) Read(b []byte) (int, error)       { return c.answers.Read(b) }
func (c *cannedConn) Write(b []byte) (int, error)      { return c.said.Write(b) }
func (c *cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *cannedConn) SetWriteDeadline(time.Time) error { return nil }

func newReplyReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, maxReplyLine) }
