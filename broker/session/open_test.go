// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		w.delegation.Terms.NotAfter = time.Now().Add(time.Hour)
		s := w.open(t)

		opened := w.log.of(broker.EventSessionOpen)
		if len(opened) != 1 {
			t.Fatalf("%d session.open events", len(opened))
		}
		e, data := opened[0], opened[0].Data.(broker.SessionOpen)
		if e.FirmID != w.firm.ID || e.AgentID != w.agent.ID || e.MailboxID != w.mailbox.ID ||
			e.WorkstationID != w.workstation.ID || e.SessionID != s.Record().ID ||
			e.Actor != (broker.Actor{Kind: "agent", Name: "anna", ID: w.agent.ID}) {
			t.Errorf("event %+v", e)
		}
		want := broker.Session{
			ID: s.Record().ID, Protocol: broker.ProtocolIMAP, FirmID: w.firm.ID, MailboxID: w.mailbox.ID,
			AgentID: w.agent.ID, WorkstationID: w.workstation.ID, SiteID: w.site.ID, DelegationID: w.delegation.ID,
			AssignmentID: w.assignment.ID, AppPasswordID: w.password.ID, Authentication: broker.AuthAppPassword, RemoteAddr: "192.0.2.17:50000",
			Node: "node-1", OpenedAt: time.Now().UTC(),
		}
		if data.Session != want || data.Revision != 1 {
			t.Errorf("record %+v, revision %d", data.Session, data.Revision)
		}
		if d := s.Decision(); d.Actions != policy.All || !d.Until.Equal(w.delegation.Terms.NotAfter) ||
			!slices.Equal(d.Addresses, []string{"info@firm.example", "sales@firm.example"}) {
			t.Errorf("decision %+v", d)
		}
		if live := w.manager.Live(); len(live) != 1 || live[0].ID != s.Record().ID {
			t.Errorf("live: %v", live)
		}
		infos := w.manager.Sessions()
		if len(infos) != 1 || infos[0].Agent != "anna" || infos[0].Workstation != "desk-1" || infos[0].Mailbox != "Info@firm.example" {
			t.Errorf("sessions: %+v", infos)
		}
	})
}

// TestDenied tries everything that strangers may get wrong. Whatever it is,
// they get one text after one time, and cause the same look-ups; the log has
// the true cause.
func TestDenied(t *testing.T) {
	other := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("another key")}
	tests := []struct {
		name  string
		cause string
		setup func(w *world, l *broker.Login)
	}{
		{"unknown token", causeUnknownToken, func(w *world, l *broker.Login) {
			token, _, _ := w.manager.NewToken()
			l.Token = broker.NewSecret([]byte(token))
		}},
		{"no token at all", causeUnknownToken, func(w *world, l *broker.Login) { l.Token = broker.Secret{} }},
		{"not a token", causeUnknownToken, func(w *world, l *broker.Login) { l.Token = broker.NewSecret([]byte("hunter2")) }},
		{"a token with more behind it", causeUnknownToken, func(w *world, l *broker.Login) {
			l.Token = broker.NewSecret([]byte(w.token + "0"))
		}},
		{"a row that is not the token's", causeUnknownToken, func(w *world, l *broker.Login) {
			token, _, _ := w.manager.NewToken()
			l.Token, w.lying = broker.NewSecret([]byte(token)), true
		}},
		{"revoked token", causeRevokedToken, func(w *world, l *broker.Login) { w.password.RevokedAt = time.Now() }},
		{"expired token", causeExpiredToken, func(w *world, l *broker.Login) { w.password.ExpiresAt = time.Now() }},
		{"agent deleted", causeUnknownAgent, func(w *world, l *broker.Login) { delete(w.agents, w.agent.ID) }},
		{"no certificate", causeNoCertificate, func(w *world, l *broker.Login) { l.Certificate = nil }},
		{"no certificate, outside the network-only site", causeNoCertificate, func(w *world, l *broker.Login) {
			l.Certificate, w.site.NetworkOnly = nil, true
			l.RemoteAddr = netip.MustParseAddrPort("198.51.100.1:1")
		}},
		{"unknown certificate", causeUnknownCertificate, func(w *world, l *broker.Login) { l.Certificate = other }},
		{"unknown certificate in a network-only site", causeUnknownCertificate, func(w *world, l *broker.Login) {
			l.Certificate, w.site.NetworkOnly = other, true
		}},
		{"workstation of another group", causeWorkstationGroup, func(w *world, l *broker.Login) { w.password.Groups = []string{"sales"} }},
		{"token of a group in a network-only site", causeWorkstationGroup, func(w *world, l *broker.Login) {
			l.Certificate, w.site.NetworkOnly, w.password.Groups = nil, true, []string{"support"}
		}},
		{"no user name", causeUsername, func(w *world, l *broker.Login) { l.Username = "" }},
		{"user names that disagree", causeUsername, func(w *world, l *broker.Login) { l.AuthorizationID = "other@firm.example" }},
		{"control in the user name", causeUsername, func(w *world, l *broker.Login) { l.Username = "info@firm.example\x00" }},
		{"unknown mailbox", causeUnknownMailbox, func(w *world, l *broker.Login) { l.Username = "who@firm.example" }},
		{"another agent's name", causeUnknownMailbox, func(w *world, l *broker.Login) { l.Username = "bob/info@firm.example" }},
		{"another agent's name as the identity", causeUsername, func(w *world, l *broker.Login) {
			l.Username, l.AuthorizationID = "bob", "info@firm.example"
		}},
		{"an alias", causeUnknownMailbox, func(w *world, l *broker.Login) { l.Username = "sales@firm.example" }},
		{"not assigned", causeNotAssigned, func(w *world, l *broker.Login) { delete(w.assigned, w.assignment.ID) }},
		{"locked, but not this agent's", causeNotAssigned, func(w *world, l *broker.Login) {
			delete(w.assigned, w.assignment.ID)
			w.lock(broker.LockMailbox, w.mailbox.ID, time.Time{})
		}},
	}
	var lookups []string
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.run(t)
				l := w.login()
				test.setup(w, &l)
				w.manager.view.Store(&view{state: w, revision: w.revision})
				w.taken()
				began := time.Now()
				s, err := w.manager.Open(context.Background(), l)
				if s != nil || broker.CodeOf(err) != broker.Denied {
					t.Fatalf("Open = %v, %v", s, err)
				}
				if took := time.Since(began); took != firstDelay {
					t.Errorf("the answer took %v", took)
				}
				if broker.PublicText(err) != textDenied {
					t.Errorf("text %q", broker.PublicText(err))
				}
				calls := w.taken()
				if lookups == nil {
					lookups = calls
				} else if !slices.Equal(calls, lookups) {
					t.Errorf("look-ups %v, those of the first case %v", calls, lookups)
				}
				failed := w.log.of(broker.EventAuthFailed)
				if len(failed) != 1 || failed[0].Data.(broker.AuthFailed).Cause != test.cause {
					t.Errorf("events %+v, want the cause %s", failed, test.cause)
				}
				astray := w.log.of(broker.EventAppPasswordAstray)
				alarm := slices.Contains([]string{causeNoCertificate, causeUnknownCertificate, causeWorkstationGroup}, test.cause)
				if !alarm && len(astray) > 0 || alarm && (len(astray) != 1 || astray[0].AgentID != w.agent.ID || astray[0].Data.(broker.AppPasswordAstray).Cause != test.cause) {
					t.Errorf("alarms %+v for %s", astray, test.cause)
				}
				if n := len(w.manager.Live()); n != 0 {
					t.Errorf("%d sessions are live", n)
				}
				if len(w.log.of(broker.EventSessionOpen)) != 0 {
					t.Error("a session was recorded")
				}
			})
		})
	}
}

// TestRefused tries what a valid token on its own workstation may be refused
// for: the agent is told at once why, and whom to ask.
func TestRefused(t *testing.T) {
	lock := func(target broker.LockTarget, id func(*world) broker.ID) func(*world, *broker.Login) {
		return func(w *world, _ *broker.Login) { w.lock(target, id(w), time.Time{}) }
	}
	tests := []struct {
		name   string
		reason string
		text   string
		setup  func(w *world, l *broker.Login)
	}{
		{"agent locked", policy.ReasonLocked, "Stop work.", lock(broker.LockAgent, func(w *world) broker.ID { return w.agent.ID })},
		{"workstation locked", policy.ReasonLocked, "Stop work.", lock(broker.LockWorkstation, func(w *world) broker.ID { return w.workstation.ID })},
		{"mailbox locked", policy.ReasonLocked, "Stop work.", lock(broker.LockMailbox, func(w *world) broker.ID { return w.mailbox.ID })},
		{"firm locked", policy.ReasonLocked, "Stop work.", lock(broker.LockFirm, func(w *world) broker.ID { return w.firm.ID })},
		{"site locked", policy.ReasonLocked, "Stop work.", lock(broker.LockSite, func(w *world) broker.ID { return w.site.ID })},
		{"another site that holds the address is locked", policy.ReasonLocked, "Stop work.", func(w *world, l *broker.Login) {
			wide := &broker.Site{ID: broker.NewID(), Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
			w.places[wide.ID] = wide
			w.lock(broker.LockSite, wide.ID, time.Time{})
		}},
		{"delegation revoked", policy.ReasonRevoked, "withdrawn", func(w *world, _ *broker.Login) { w.delegation.RevokedAt = time.Now() }},
		{"delegation gone", policy.ReasonRevoked, "withdrawn", func(w *world, _ *broker.Login) { delete(w.grants, w.delegation.ID) }},
		{"assignment pending", policy.ReasonPending, "not approved", func(w *world, _ *broker.Login) { w.assignment.Pending = true }},
		{"assignment revoked", policy.ReasonRevoked, "no longer assigned", func(w *world, _ *broker.Login) { w.assignment.RevokedAt = time.Now() }},
		{"expired", policy.ReasonExpired, "ended on", func(w *world, _ *broker.Login) { w.delegation.Terms.NotAfter = time.Now() }},
		{"not yet valid", policy.ReasonNotYetValid, "begins on", func(w *world, _ *broker.Login) { w.assignment.Terms.NotBefore = time.Now().Add(1) }},
		{"workstation away from its site", policy.ReasonSite, "its own site", func(w *world, l *broker.Login) {
			l.RemoteAddr = netip.MustParseAddrPort("198.51.100.1:1")
		}},
		{"workstation's site is gone", policy.ReasonSite, "its own site", func(w *world, _ *broker.Login) { delete(w.places, w.site.ID) }},
		{"a site that the terms do not name", policy.ReasonSite, "site that you are at", func(w *world, _ *broker.Login) {
			w.delegation.Terms.Sites = []string{string(broker.NewID())}
		}},
		{"a roaming workstation outside all sites", policy.ReasonSite, "site that you are at", func(w *world, l *broker.Login) {
			w.workstation.SiteID, w.delegation.Terms.Sites = "", []string{string(w.site.ID)}
			l.RemoteAddr = netip.MustParseAddrPort("198.51.100.1:1")
		}},
		{"key in a file", policy.ReasonWorkstation, "hardware", func(w *world, _ *broker.Login) { w.delegation.Terms.HardwareKey = true }},
		{"nothing granted", policy.ReasonNoActions, "Nothing is granted", func(w *world, _ *broker.Login) {
			w.delegation.Terms.Actions, w.assignment.Terms.Actions = policy.Send, policy.Read
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.run(t)
				l := w.login()
				test.setup(w, &l)
				began := time.Now()
				s, err := w.manager.Open(context.Background(), l)
				if s != nil || broker.CodeOf(err) != broker.Refused {
					t.Fatalf("Open = %v, %v", s, err)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("the refusal took %v", took)
				}
				text := broker.PublicText(err)
				if !strings.Contains(text, test.text) || !strings.HasSuffix(text, " Ask Priya (desk 4).") {
					t.Errorf("text %q", text)
				}
				events := w.log.of(broker.EventSessionRefused)
				if len(events) != 1 || events[0].AgentID != w.agent.ID || events[0].FirmID != w.firm.ID {
					t.Fatalf("events %+v", events)
				}
				if d := events[0].Data.(broker.SessionRefused); d.Reason != test.reason || d.Text != text || d.Code != broker.Refused {
					t.Errorf("event %+v", d)
				}
				if n := len(w.manager.Live()); n != 0 {
					t.Errorf("%d sessions are live", n)
				}
			})
		})
	}
}

func TestRefusedWithoutContact(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.firm.Contact = ""
	w.lock(broker.LockAgent, w.agent.ID, time.Time{})
	_, err := w.manager.Open(t.Context(), w.login())
	if got := broker.PublicText(err); got != "Stop work. Ask your supervisor." {
		t.Errorf("text %q", got)
	}
}

func TestLetIn(t *testing.T) {
	tests := []struct {
		name  string
		setup func(w *world, l *broker.Login)
		check func(t *testing.T, w *world, s broker.LiveSession)
	}{
		{"agent/mailbox", func(w *world, l *broker.Login) { l.Username = "Anna/INFO@firm.example" }, nil},
		{"authorization identity", func(w *world, l *broker.Login) { l.Username, l.AuthorizationID = "anna", "anna/info@firm.example" }, nil},
		{"authorization identity alone", func(w *world, l *broker.Login) { l.Username, l.AuthorizationID = "", "info@firm.example" }, nil},
		{"both, alike", func(w *world, l *broker.Login) { l.AuthorizationID = "anna/info@firm.example" }, nil},
		{"token as pasted", func(w *world, l *broker.Login) {
			l.Token = broker.NewSecret([]byte(" " + strings.ToUpper(strings.ReplaceAll(w.token, "-", " ")) + " "))
		}, nil},
		{"a lock that has ended", func(w *world, l *broker.Login) { w.lock(broker.LockAgent, w.agent.ID, time.Now()) }, nil},
		{"somebody else's lock", func(w *world, l *broker.Login) { w.lock(broker.LockAgent, broker.NewID(), time.Time{}) }, nil},
		{
			"network-only site", func(w *world, l *broker.Login) { l.Certificate, w.site.NetworkOnly = nil, true },
			func(t *testing.T, w *world, s broker.LiveSession) {
				if s.Record().WorkstationID != "" || s.Record().SiteID != w.site.ID {
					t.Errorf("record %+v", s.Record())
				}
			},
		},
		{"an IPv4 address in IPv6 form", func(w *world, l *broker.Login) {
			l.RemoteAddr = netip.MustParseAddrPort("[::ffff:192.0.2.17]:50000")
		}, nil},
		{"workstation of the token's group", func(w *world, l *broker.Login) { w.password.Groups = []string{"sales", "support"} }, nil},
		{"second key of the workstation", func(w *world, l *broker.Login) {
			w.workstation.KeyPins = append([]string{strings.Repeat("ab", 32)}, w.workstation.KeyPins...)
		}, nil},
		{"hardware key", func(w *world, l *broker.Login) {
			w.workstation.Class, w.delegation.Terms.HardwareKey = broker.ClassHardware, true
		}, nil},
		{"roaming, in the narrower of two sites", func(w *world, l *broker.Login) {
			w.workstation.SiteID = ""
			wide := &broker.Site{ID: broker.NewID(), Networks: []netip.Prefix{netip.MustParsePrefix("192.0.0.0/8")}}
			w.places[wide.ID] = wide
			w.delegation.Terms.Sites = []string{string(w.site.ID)}
		}, nil},
		{"roaming, at no site", func(w *world, l *broker.Login) {
			w.workstation.SiteID = ""
			l.RemoteAddr = netip.MustParseAddrPort("198.51.100.1:1")
		}, func(t *testing.T, w *world, s broker.LiveSession) {
			if s.Record().SiteID != "" {
				t.Errorf("record %+v", s.Record())
			}
		}},
		{"the app password ends before the terms", func(w *world, l *broker.Login) {
			w.password.ExpiresAt, w.delegation.Terms.NotAfter = time.Now().Add(time.Minute), time.Now().Add(time.Hour)
		}, func(t *testing.T, w *world, s broker.LiveSession) {
			if !s.Decision().Until.Equal(w.password.ExpiresAt) {
				t.Errorf("until %v", s.Decision().Until)
			}
		}},
		{"the widest of several assignments", func(w *world, l *broker.Login) {
			w.assignment.Terms.Actions = policy.List | policy.Read
			revoked := w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.All})
			revoked.RevokedAt = time.Now()
			w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.List})
			w.assignment = w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.List | policy.Read | policy.Flag})
			w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.List | policy.Read | policy.Flag, NotAfter: time.Now().Add(time.Hour)})
			w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.List | policy.Read | policy.Send})
		}, func(t *testing.T, w *world, s broker.LiveSession) {
			if s.Record().AssignmentID != w.assignment.ID {
				t.Errorf("assignment %v, want the oldest that lasts", s.Decision())
			}
		}},
		{"submission", func(w *world, l *broker.Login) { l.Protocol = broker.ProtocolSubmission }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.run(t)
				l := w.login()
				test.setup(w, &l)
				s, err := w.manager.Open(context.Background(), l)
				if err != nil {
					t.Fatal(err)
				}
				defer s.End(&broker.End{Reason: broker.EndLogout}, nil)
				if test.check != nil {
					test.check(t, w, s)
				}
			})
		})
	}
}

func TestRefusalOfSeveralAssignments(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.assignment.Terms.NotAfter = time.Now().Add(-time.Hour)
	revoked := w.assign(w.agent, w.delegation, policy.Terms{Actions: policy.All})
	revoked.RevokedAt = time.Now()
	_, err := w.manager.Open(t.Context(), w.login())
	if text := broker.PublicText(err); !strings.Contains(text, "ended on") {
		t.Errorf("text %q, want that of the assignment that is not revoked", text)
	}
}

// What an agent types into the wrong field must not get into the log.
func TestTokenInTheUserNameIsNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(t)
		l := w.login()
		l.Username, l.Token = w.token, broker.NewSecret([]byte("info@firm.example"))
		if _, err := w.manager.Open(context.Background(), l); broker.CodeOf(err) != broker.Denied {
			t.Fatal(err)
		}
		if name := w.log.of(broker.EventAuthFailed)[0].Data.(broker.AuthFailed).Username; strings.Contains(name, w.token[:4]) {
			t.Errorf("recorded %q", name)
		}
	})
}

func TestStateOutOfReachIsNoDenial(t *testing.T) {
	calls := []string{
		"AppPasswordByHash", "WorkstationByKeyPin", "Agent", "MailboxByAddress", "AssignmentsOf", "Sites", "Locks",
		"Delegation", "PolicyRevision",
	}
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			w := newWorld(t)
			w.run(t)
			w.mu.Lock()
			w.revision++ // what Run has read is of no use
			w.failOnly[call] = broker.Errorf(broker.Unavailable, "the database is away")
			w.mu.Unlock()
			w.manager.view.Store(&view{state: w, revision: 2})
			_, err := w.manager.Open(t.Context(), w.login())
			// The revision is asked for last, when the session is open.
			text := map[bool]string{true: textLease, false: textUnavailable}[call == "PolicyRevision"]
			if broker.CodeOf(err) != broker.Unavailable || broker.PublicText(err) != text {
				t.Errorf("Open: %v", err)
			}
			if n := len(w.manager.Live()); n != 0 {
				t.Errorf("%d sessions are live", n)
			}
		})
	}
}

func TestOpenBeforeTheStateWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.manager.Open(context.Background(), w.login()); broker.CodeOf(err) != broker.Unavailable {
			t.Errorf("Open without Run: %v", err)
		}
	})
}

func TestPolicyThatNeverRests(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.hook = func(call string) {
		if call == "before PolicyRevision" {
			w.set(broker.Change{Kind: "agent", ID: broker.NewID()}, func() {})
		}
	}
	defer func() { w.mu.Lock(); w.hook = nil; w.mu.Unlock() }()
	stranger := w.login()
	stranger.Token = broker.NewSecret([]byte(strings.Repeat("x", len(w.token))))
	if _, err := w.manager.Open(t.Context(), stranger); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("a refusal at no revision: %v", err)
	}
	// What changes has nothing to do with this agent.
	s, err := w.manager.Open(t.Context(), w.login())
	if err != nil {
		t.Fatal(err)
	}
	s.End(&broker.End{Reason: broker.EndLogout}, nil)
}

// TestNever4AChangeBesideTheRecord: what another node commits between the
// decision and its record, and nobody tells of, keeps the session from
// beginning.
func TestNever4AChangeBesideTheRecord(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.log.hook = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.revision++
		w.assignment.RevokedAt = w.assignment.CreatedAt.Add(1)
	}
	if _, err := w.manager.Open(t.Context(), w.login()); broker.CodeOf(err) != broker.Refused {
		t.Errorf("Open: %v", err)
	}
	if n := len(w.manager.Live()); n != 0 {
		t.Errorf("%d sessions are live", n)
	}
	if opened, ended := w.log.of(broker.EventSessionOpen), w.log.of(broker.EventSessionEnd); len(opened) != 1 || len(ended) != 1 {
		t.Errorf("%d began and %d ended in the record", len(opened), len(ended))
	}
}

// TestNever3NoSessionWithoutItsRecord: when the log cannot make session.open
// durable, there is no session, and its place is free again.
func TestNever3NoSessionWithoutItsRecord(t *testing.T) {
	for _, code := range []broker.Code{broker.Unavailable, broker.Internal, broker.Invalid} {
		t.Run(string(code), func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Connections = 2 })
			w.run(t)
			w.log.breakWith(broker.Errorf(code, "no"))
			for range 3 {
				_, err := w.manager.Open(t.Context(), w.login())
				if broker.CodeOf(err) != broker.Unavailable || broker.PublicText(err) != textUnrecorded {
					t.Fatalf("Open: %v", err)
				}
			}
			if n := len(w.manager.Live()); n != 0 {
				t.Errorf("%d sessions are live", n)
			}
			w.log.breakWith(nil)
			w.open(t)
		})
	}
}

// stopped stands for witnesses that are silent.
type stopped struct{ now bool }

func (s *stopped) Stopped(broker.ID) bool { return s.now }

// Where the witness of a firm's log is silent and the firm wants no work without,
// no session is opened; the agent is told whom to ask, and live ones go on.
func TestSilentWitnessStopsNewSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		witness := new(stopped)
		w := newWorld(t, func(c *Config) { c.Witnesses = witness })
		w.run(t)
		s := w.open(t)
		witness.now = true
		_, err := w.manager.Open(context.Background(), w.login())
		var refusal *broker.Error
		if !errors.As(err, &refusal) || refusal.Code != broker.Refused || refusal.Reason != reasonWitness ||
			!strings.Contains(refusal.Public, "not witnessed") || !strings.HasSuffix(refusal.Public, "Ask Priya (desk 4).") {
			t.Fatalf("opened although nobody witnesses: %v", err)
		}
		w.set(broker.Change{Kind: "agent", ID: w.agent.ID}, func() {})
		synctest.Wait()
		if s.Context().Err() != nil {
			t.Error("a live session was ended")
		}
		witness.now = false
		w.open(t)
	})
}
