// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// mailServer takes mail from who signs in, over TLS.
type mailServer struct {
	mu sync.Mutex
	// answer, where set, is what it says of a message.
	answer func(n int) error
	// refuses, where set, is what it says of a recipient.
	refuses func(to string) error
	asked   int
	to      []string
	took    []string // the messages
}

type mailSession struct {
	server *mailServer
	known  bool
	to     []string
}

func (s *mailServer) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &mailSession{server: s}, nil
}

func (*mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if s.known = user == "postern" && password == "hunter2"; !s.known {
			return &smtp.SMTPError{Code: 535, Message: "no: " + password}
		}
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	if !s.known || from != "postern@bpo.example" {
		return smtp.ErrAuthRequired
	}
	return nil
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.refuses != nil {
		if err := s.server.refuses(to); err != nil {
			return err
		}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.asked++
	if s.server.answer != nil {
		if err := s.server.answer(s.server.asked); err != nil {
			return err
		}
	}
	s.server.to, s.server.took = s.to, append(s.server.took, string(b))
	return nil
}

func (*mailSession) Reset()        {}
func (*mailSession) Logout() error { return nil }

func (s *mailServer) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.took)
}

// newMail makes a server, and a receiver for it.
func newMail(t testing.TB, w *world, startTLS bool) (*mailServer, *Mail) {
	t.Helper()
	server, ca := &mailServer{}, servers.NewCA(t)
	own := &tls.Config{Certificates: []tls.Certificate{ca.Issue("localhost", "127.0.0.1").TLS}, MinVersion: tls.VersionTLS12}
	s := smtp.NewServer(server)
	s.TLSConfig, s.Domain = own, "localhost"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	at := l.Addr().String()
	if !startTLS {
		l = tls.NewListener(l, own)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	m, err := NewMail(MailConfig{
		Server: at, StartTLS: startTLS, TLS: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS12},
		Username: "postern", Password: func() (broker.Secret, error) { return broker.NewSecret([]byte("hunter2")), nil },
		From: "postern@bpo.example", To: []string{"oncall@bpo.example", "soc@bpo.example"}, Hostname: "mail.postern.example",
		Alert: w.store.Alert, Firm: func(context.Context, broker.ID) (*broker.Firm, error) {
			return &broker.Firm{Name: "Zo\u00eb & Co\r\nBcc: x@y.example"}, nil
		},
	})
	must(t, err)
	return server, m
}

// alarm raises an alert in a firm's log.
func (w *world) alarm(firm, mailbox broker.ID) {
	w.t.Helper()
	must(w.t, w.store.AppendEvents(ctx, []*broker.Event{
		{Type: broker.EventDrift, FirmID: firm, MailboxID: mailbox, Data: broker.Drift{Answer: "NO changed\r\n.\r\nelsewhere"}},
	}))
}

// TestMail: alerts reach people in whole messages, many in one, once the server
// takes them, and nobody's text becomes a header.
func TestMail(t *testing.T) {
	for name, startTLS := range map[string]bool{"implicit": false, "starttls": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			server, m := newMail(t, w, startTLS)
			server.answer = func(n int) error {
				if n < 3 {
					return &smtp.SMTPError{Code: 451, Message: "later"}
				}
				return nil
			}
			for range 5 {
				w.alarm(w.firms[0], broker.NewID())
			}
			w.append(w.firms[0], "no alert")
			w.start("a", quick(), Sink{Name: "mail", Receiver: m, FromStart: true, Filter: Filter{Alerts: true, Severity: broker.SeverityWarning}})
			soon(t, "a message", func() bool { return len(server.all()) > 0 })
			got := server.all()
			e, err := message.Read(strings.NewReader(got[0]))
			must(t, err)
			body, err := io.ReadAll(e.Body)
			must(t, err)
			subject, err := e.Header.Text("Subject")
			must(t, err)
			if len(got) != 1 || subject != "[Postern] critical: drift, Zo\u00eb & Co  Bcc: x@y.example (raised), and 4 more" || e.Header.Has("Bcc") ||
				e.Header.Get("Auto-Submitted") != "auto-generated" || e.Header.Get("To") != "<oncall@bpo.example>, <soc@bpo.example>" {
				t.Errorf("%d messages: %s", len(got), got[0])
			}
			if n := strings.Count(string(body), "CRITICAL, raised: drift"); n != 5 || strings.Count(string(body), "Detail: NO changed") != 5 {
				t.Errorf("%d alerts: %s", n, body)
			}
			if !slices.Equal(server.to, m.cfg.To) || strings.Contains(got[0], "hunter2") {
				t.Errorf("to %v: %s", server.to, got[0])
			}
		})
	}
}

// TestMailToOneWhoIsGone: the others get their mail, and people are told of him until
// the server takes him again. One who is put off is waited for, and not for ever.
func TestMailToOneWhoIsGone(t *testing.T) {
	w := newWorld(t, 1)
	server, m := newMail(t, w, true)
	answer := func(codes map[string]int) {
		server.mu.Lock()
		defer server.mu.Unlock()
		server.refuses = func(to string) error {
			if codes[to] == 0 {
				return nil
			}
			return &smtp.SMTPError{Code: codes[to], Message: "not him"}
		}
	}
	s, stop := w.start("a", quick(), Sink{Name: "mail", Receiver: m, FromStart: true, Filter: Filter{Alerts: true}})
	says := func(what, text string) {
		t.Helper()
		soon(t, what, func() bool {
			all, err := s.List(ctx)
			must(t, err)
			return all[0].State.FailingSince.IsZero() && all[0].State.Node == "a" && all[0].Lag.Events == 0 && all[0].State.Failure == text
		})
	}
	answer(map[string]int{"oncall@bpo.example": 550})
	w.alarm(w.firms[0], broker.NewID())
	says("he is named", "oncall@bpo.example: SMTP error 550: not him")
	if got := server.all(); len(got) != 1 || !slices.Equal(server.to, []string{"soc@bpo.example"}) {
		t.Errorf("%d messages, to %v", len(got), server.to)
	}
	answer(nil)
	w.alarm(w.firms[0], broker.NewID())
	says("nobody is named", "")
	stop()

	now := time.Now()
	m.cfg.Now = func() time.Time { return now }
	for _, test := range []struct {
		first, second int
		after         time.Duration
		want          int
	}{
		{550, 550, 0, 0},
		{421, 0, 0, 0},
		{452, 0, 0, 0},
		{452, 550, maxPutOff - time.Second, 0},
		{452, 0, time.Second, 1},
		{452, 0, 0, 1},
		{0, 0, 0, 1},
		{452, 0, 0, 0}, // he was taken in between
		{452, 452, maxPutOff, 0},
		{452, 452, maxPutOff, 0},
		{452, 0, 0, 1},
	} {
		answer(map[string]int{"oncall@bpo.example": test.first, "soc@bpo.example": test.second})
		now = now.Add(test.after)
		n, err := m.Deliver(ctx, some(t, 1))
		var refused *RefusedError
		if n != test.want || (err == nil) != (test.first+test.second == 0) || errors.As(err, &refused) {
			t.Errorf("%+v: %d, %v", test, n, err)
		}
	}
}

// TestMessageIDOfAnotherMessage: as many events that begin with the same one have
// another Message-ID, and the same events have the same.
func TestMessageIDOfAnotherMessage(t *testing.T) {
	server, m := newMail(t, newWorld(t, 1), true)
	e := some(t, 3)
	for _, events := range [][]*Event{{e[0], e[1]}, {e[0], e[2]}, {e[0], e[1]}} {
		deliver(t, m, events)
	}
	var ids []string
	for _, text := range server.all() {
		x, err := message.Read(strings.NewReader(text))
		must(t, err)
		ids = append(ids, x.Header.Get("Message-ID"))
	}
	if len(ids) != 3 || ids[0] == "" || ids[0] == ids[1] || ids[0] != ids[2] {
		t.Errorf("%q", ids)
	}
}

// TestMailFailures: a sign-in that is refused tells nobody the password, another's
// certificate gets nothing, and an answer of 5xx is about the message.
func TestMailFailures(t *testing.T) {
	w := newWorld(t, 1)
	server, m := newMail(t, w, true)
	test, err := testEvent(nil, broker.Actor{Kind: "admin"}, time.Now())
	must(t, err)
	deliver(t, m, []*Event{test})
	m.cfg.Password = func() (broker.Secret, error) { return broker.NewSecret([]byte("other-secret")), nil }
	if n, err := m.Deliver(ctx, []*Event{test}); n != 0 || err == nil || strings.Contains(err.Error(), "other-secret") {
		t.Errorf("%d, %v", n, err)
	}
	m.cfg.Password = func() (broker.Secret, error) { return broker.NewSecret([]byte("hunter2")), nil }
	server.answer = func(int) error { return &smtp.SMTPError{Code: 554, Message: "no"} }
	var refused *RefusedError
	if n, err := m.Deliver(ctx, []*Event{test, test}); n != 0 || !errors.As(err, &refused) || refused.Events != 2 {
		t.Errorf("%d, %v", n, err)
	}
	m.cfg.TLS = m.cfg.TLS.Clone()
	m.cfg.TLS.ServerName = "other.example"
	if n, err := m.Deliver(ctx, []*Event{test}); n != 0 || err == nil || len(server.all()) != 1 {
		t.Errorf("another name: %d, %v", n, err)
	}
	if n, err := m.Deliver(ctx, []*Event{{Event: broker.Event{Type: broker.EventAlertRaised, Data: json.RawMessage(`[]`)}}}); n != 0 || !errors.As(err, &refused) {
		t.Errorf("an alert that is none: %d, %v", n, err)
	}
}
