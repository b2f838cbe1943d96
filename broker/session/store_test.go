// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

// office is a Manager on the real store and the real audit log, with one agent
// on one mailbox.
type office struct {
	path        string
	store       *store.Store
	manager     *Manager
	login       broker.Login
	delegation  *broker.Delegation
	agent       *broker.Agent
	workstation *broker.Workstation
	mailbox     *broker.Mailbox
}

var admin = broker.Actor{Kind: "admin", Name: "test"}

func newOffice(t testing.TB, connections int) *office {
	t.Helper()
	o := &office{path: filepath.Join(t.TempDir(), "postern.db")}
	o.start(t, connections)
	certificate := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("a key")}
	firm := &broker.Firm{Name: "Firm", Contact: "Priya"}
	must(t, o.store.CreateFirm(t.Context(), admin, firm))
	o.mailbox = &broker.Mailbox{
		FirmID: firm.ID, Address: "info@firm.example", MaxConnections: connections,
		IMAP:       broker.Endpoint{Host: "imap.firm.example", Port: 993, TLS: broker.TLSImplicit},
		Submission: broker.Endpoint{Host: "smtp.firm.example", Port: 465, TLS: broker.TLSImplicit},
	}
	must(t, o.store.CreateMailbox(t.Context(), admin, o.mailbox))
	o.agent = &broker.Agent{Name: "anna"}
	must(t, o.store.CreateAgent(t.Context(), admin, o.agent))
	site := &broker.Site{Name: "hq", Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	must(t, o.store.CreateSite(t.Context(), admin, site))
	o.workstation = &broker.Workstation{
		Name: "desk-1", Class: broker.ClassHardware, SiteID: site.ID, KeyPins: []string{broker.KeyPin(certificate)},
	}
	must(t, o.store.CreateWorkstation(t.Context(), admin, o.workstation))
	o.delegation = &broker.Delegation{FirmID: firm.ID, MailboxID: o.mailbox.ID, Terms: policy.Terms{Actions: policy.All}}
	must(t, o.store.CreateDelegation(t.Context(), admin, o.delegation))
	must(t, o.store.CreateAssignment(t.Context(), admin, &broker.Assignment{
		DelegationID: o.delegation.ID, AgentID: o.agent.ID, Terms: policy.Terms{Actions: policy.All},
	}))
	token, hash, err := o.manager.NewToken()
	must(t, err)
	must(t, o.store.CreateAppPassword(t.Context(), admin, &broker.AppPassword{AgentID: o.agent.ID, Hash: hash}))
	o.login = broker.Login{
		Protocol: broker.ProtocolIMAP, Username: "info@firm.example", Token: broker.NewSecret([]byte(token)),
		Certificate: certificate, RemoteAddr: netip.MustParseAddrPort("192.0.2.1:1000"),
	}
	return o
}

// start opens the store and starts what stands on it, as a process would.
func (o *office) start(t testing.TB, connections int) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Path: o.path, Logger: zap.NewNop()})
	must(t, err)
	log, err := audit.New(audit.Config{Store: s, Logger: zap.NewNop()})
	must(t, err)
	m, err := New(Config{
		State: s, Log: log, Credentials: &fakeVault{}, Upstream: &fakeUpstream{}, Connections: connections, Reserved: -1,
		TokenKey: broker.NewSecret(tokenKey), Node: "node-1", Logger: zap.NewNop(),
	})
	must(t, err)
	o.store, o.manager = s, m
	runs := []func(context.Context) error{log.Run, m.Run}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	<-m.ready
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within waits for done, and fails when that takes longer than limit, beside what
// the machine keeps the test waiting.
func within(t *testing.T, what string, limit time.Duration, done <-chan struct{}) {
	t.Helper()
	watch := servers.StartStopwatch(t)
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
	watch.Within(t, what, limit)
}

// waitFor fails unless the session ends within the second.
func waitFor(t *testing.T, s broker.LiveSession, reason broker.EndReason) {
	t.Helper()
	within(t, "the end of the session", time.Second, s.Context().Done())
	if end := ended(t, s); end.Reason != reason {
		t.Errorf("end %+v, want %s", end, reason)
	}
	s.End(nil, nil)
}

// TestNever4OnTheStore revokes, locks and narrows in the real database.
func TestNever4OnTheStore(t *testing.T) {
	tests := []struct {
		name   string
		apply  func(o *office, ctx context.Context) error
		reason broker.EndReason
		// then is what the next attempt gets.
		then broker.Code
	}{
		{"narrower", func(o *office, ctx context.Context) error {
			o.delegation.Terms.Actions = policy.List | policy.Read
			return o.store.UpdateDelegation(ctx, admin, o.delegation)
		}, broker.EndRevoked, ""},
		{"lock", func(o *office, ctx context.Context) error {
			return o.store.CreateLock(ctx, admin, &broker.Lock{Target: broker.LockAgent, TargetID: o.agent.ID, Message: "Stop."})
		}, broker.EndLocked, broker.Refused},
		{"revoke", func(o *office, ctx context.Context) error {
			return o.store.RevokeDelegation(ctx, admin, o.delegation.ID)
		}, broker.EndRevoked, broker.Refused},
		{"agent deleted", func(o *office, ctx context.Context) error {
			return o.store.DeleteAgent(ctx, admin, o.agent.ID)
		}, broker.EndRevoked, broker.Denied},
		{"workstation deleted", func(o *office, ctx context.Context) error {
			return o.store.DeleteWorkstation(ctx, admin, o.workstation.ID)
		}, broker.EndRevoked, broker.Denied},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := newOffice(t, 5)
			s, err := o.manager.Open(t.Context(), o.login)
			must(t, err)
			rows, err := o.store.Sessions(t.Context(), true, 10)
			must(t, err)
			if len(rows) != 1 || rows[0].ID != s.Record().ID {
				t.Errorf("live in the store: %+v", rows)
			}
			must(t, test.apply(o, t.Context()))
			waitFor(t, s, test.reason)
			again, err := o.manager.Open(t.Context(), o.login)
			if broker.CodeOf(err) != test.then {
				t.Errorf("the next attempt: %v", err)
			}
			if err == nil {
				again.End(&broker.End{Reason: broker.EndLogout}, nil)
			}
			must(t, o.manager.Drain(t.Context()))
			events, err := o.store.Events(t.Context(), broker.EventQuery{FirmID: s.Record().FirmID, After: -1, SessionID: s.Record().ID})
			must(t, err)
			if len(events) != 2 || events[0].Type != broker.EventSessionOpen || events[1].Type != broker.EventSessionEnd {
				t.Errorf("%d events of the session", len(events))
			}
			rows, err = o.store.Sessions(t.Context(), true, 10)
			must(t, err)
			if len(rows) != 0 {
				t.Errorf("live in the store: %+v", rows)
			}
		})
	}
}

// denials are how many were not let in as strangers.
func (o *office) denials() float64 {
	return testutil.ToFloat64(o.manager.metrics.opens.WithLabelValues(string(broker.ProtocolIMAP), string(broker.Denied)))
}

// What strangers send must be NotFound to the store, and never an outage.
func TestDeniedOnTheStore(t *testing.T) {
	o := newOffice(t, 5)
	for name, change := range map[string]func(*broker.Login){
		"no token":       func(l *broker.Login) { l.Token = broker.Secret{} },
		"no certificate": func(l *broker.Login) { l.Certificate = nil },
		"another key":    func(l *broker.Login) { l.Certificate = &x509.Certificate{RawSubjectPublicKeyInfo: []byte("x")} },
		"no user name":   func(l *broker.Login) { l.Username = "" },
		"no address":     func(l *broker.Login) { l.Username = "root' OR 1=1 --" },
		"no address, ☃":  func(l *broker.Login) { l.Username = "☃@☃" },
		"not a mailbox":  func(l *broker.Login) { l.Username = "who@firm.example" },
	} {
		l := o.login
		change(&l)
		ctx, cancel := context.WithCancel(t.Context())
		before := o.denials()
		go func() { // once it is decided, nobody waits for the answer
			for ctx.Err() == nil && o.denials() == before {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if _, err := o.manager.Open(ctx, l); broker.CodeOf(err) != broker.Denied {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// Another process's change shows in the revision alone.
func TestNever4ChangeOfAnotherProcess(t *testing.T) {
	o := newOffice(t, 5)
	s, err := o.manager.Open(t.Context(), o.login)
	must(t, err)
	other, err := store.Open(t.Context(), store.Config{Path: o.path, Logger: zap.NewNop()})
	must(t, err)
	defer func() { must(t, other.Close()) }()
	must(t, other.RevokeDelegation(t.Context(), admin, o.delegation.ID))
	within(t, "the end of the session", PollInterval+time.Second, s.Context().Done())
	s.End(nil, nil)
}

// A node that died left sessions open; the next of its name marks them.
func TestStaleSessionsAreEnded(t *testing.T) {
	o := newOffice(t, 5)
	left, err := o.manager.Open(t.Context(), o.login)
	must(t, err)
	o.start(t, 5) // as if the first process were dead
	rows, err := o.store.Sessions(t.Context(), false, 10)
	must(t, err)
	if len(rows) != 1 || rows[0].ID != left.Record().ID || rows[0].EndReason != string(broker.EndStale) {
		t.Errorf("sessions %+v", rows)
	}
	left.End(nil, nil)
}

// TestNever4ManySessionsOnTheStore ends 1,000 sessions with one revoke.
func TestNever4ManySessionsOnTheStore(t *testing.T) {
	const sessions = 1000
	o := newOffice(t, sessions)
	var open sync.WaitGroup
	live := make(chan broker.LiveSession, sessions)
	for range 100 {
		open.Go(func() {
			for range sessions / 100 {
				s, err := o.manager.Open(t.Context(), o.login)
				if err != nil {
					t.Error(err)
					return
				}
				live <- s
			}
		})
	}
	open.Wait()
	close(live)
	began := time.Now()
	must(t, o.store.RevokeDelegation(t.Context(), admin, o.delegation.ID))
	for s := range live {
		within(t, "the end of a session", time.Second-time.Since(began), s.Context().Done())
		t.Cleanup(func() { s.End(nil, nil) })
	}
	t.Logf("%d sessions ended in %v, commit included", sessions, time.Since(began))
}

// BenchmarkOpenOnTheStore measures a session's way in with its durable record.
func BenchmarkOpenOnTheStore(b *testing.B) {
	o := newOffice(b, 1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s, err := o.manager.Open(context.Background(), o.login)
			if err != nil {
				b.Error(err)
				return
			}
			s.End(nil, nil)
		}
	})
}
