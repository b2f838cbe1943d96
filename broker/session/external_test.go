// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"testing"
	"testing/synctest"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// newOwnWorkstation is a world in which the workstation is anna's alone, and of
// a class whose certificate may be all.
func newOwnWorkstation(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := newWorld(t, append([]func(*Config){func(c *Config) {
		c.CertificateAlone = []broker.WorkstationClass{broker.ClassHardware}
	}}, change...)...)
	w.workstation.Class, w.workstation.AgentID = broker.ClassHardware, w.agent.ID
	return w
}

// external is a login by the workstation's certificate alone.
func (w *world) external() broker.Login {
	l := w.login()
	l.Username, l.AuthorizationID, l.Token, l.External = "", "info@firm.example", broker.Secret{}, true
	return l
}

func TestCertificateAloneLetsItsAgentIn(t *testing.T) {
	for _, identity := range []string{"info@firm.example", "anna/info@firm.example"} {
		synctest.Test(t, func(t *testing.T) {
			w := newOwnWorkstation(t)
			w.run(t)
			l := w.external()
			l.AuthorizationID = identity
			s, err := w.manager.Open(context.Background(), l)
			if err != nil {
				t.Fatalf("%s: %v", identity, err)
			}
			defer s.End(nil, nil)
			r := s.Record()
			if r.AgentID != w.agent.ID || r.Authentication != broker.AuthCertificate || r.AppPasswordID != "" || r.WorkstationID != w.workstation.ID {
				t.Errorf("record %+v", r)
			}
			if !w.manager.OffersExternal(context.Background(), w.certificate) {
				t.Error("it is not offered")
			}
		})
	}
}

// TestCertificateAloneIsDenied: it is off unless the class is configured and the
// workstation somebody's, and it is nobody else's.
func TestCertificateAloneIsDenied(t *testing.T) {
	for name, test := range map[string]struct {
		cause   string
		offered bool
		setup   func(w *world, l *broker.Login)
	}{
		"nobody's workstation":        {causeCertificateAlone, false, func(w *world, _ *broker.Login) { w.workstation.AgentID = "" }},
		"a class that is not allowed": {causeCertificateAlone, false, func(w *world, _ *broker.Login) { w.workstation.Class = broker.ClassSoftware }},
		"no class is":                 {causeCertificateAlone, false, func(w *world, _ *broker.Login) { w.manager.certificateAlone = nil }},
		"an agent who is gone":        {causeUnknownAgent, true, func(w *world, _ *broker.Login) { delete(w.agents, w.agent.ID) }},
		"no certificate":              {causeNoCertificate, false, func(_ *world, l *broker.Login) { l.Certificate = nil }},
		"a network-only site":         {causeCertificateAlone, false, func(w *world, l *broker.Login) { l.Certificate, w.site.NetworkOnly = nil, true }},
		"a machine that was thrown out": {causeUnknownCertificate, false, func(_ *world, l *broker.Login) {
			l.Certificate = &x509.Certificate{RawSubjectPublicKeyInfo: []byte("old key")}
		}},
		"another agent's name": {causeUnknownMailbox, true, func(_ *world, l *broker.Login) { l.AuthorizationID = "bob/info@firm.example" }},
		"no mailbox":           {causeUsername, true, func(_ *world, l *broker.Login) { l.AuthorizationID = "" }},
		"not assigned":         {causeNotAssigned, true, func(w *world, _ *broker.Login) { clear(w.assigned) }},
		// A right app password in it changes nothing.
		"nobody's, with a token": {causeCertificateAlone, false, func(w *world, l *broker.Login) {
			l.Token, w.workstation.AgentID = broker.NewSecret([]byte(w.token)), ""
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newOwnWorkstation(t)
				w.run(t)
				l := w.external()
				test.setup(w, &l)
				if w.manager.OffersExternal(context.Background(), l.Certificate) != test.offered {
					t.Errorf("offered: %v", !test.offered)
				}
				_, err := w.manager.Open(context.Background(), l)
				if broker.CodeOf(err) != broker.Denied || broker.PublicText(err) != textDenied {
					t.Fatalf("the error is %v", err)
				}
				failed := w.log.of(broker.EventAuthFailed)
				if len(failed) != 1 || failed[0].Data.(broker.AuthFailed).Cause != test.cause {
					t.Errorf("recorded: %+v", failed[0].Data)
				}
			})
		})
	}
}

// TestTermsDemandAPasswordBeside: a delegation that does is opened by a password
// and not by a certificate alone, and ends what it finds.
func TestTermsDemandAPasswordBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newOwnWorkstation(t)
		w.run(t)
		byCertificate, err := w.manager.Open(context.Background(), w.external())
		if err != nil {
			t.Fatal(err)
		}
		defer byCertificate.End(nil, nil)
		byPassword := w.open(t)
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() {
			demanding := *w.delegation
			demanding.Terms.NeedsPassword = true
			w.grants[demanding.ID] = &demanding
		})
		synctest.Wait()
		if end := ended(t, byCertificate); end.Detail != policy.ReasonPassword {
			t.Errorf("it ended so: %+v", end)
		}
		alive(t, byPassword)
		if code := w.try(w.external()); code != broker.Refused {
			t.Errorf("by certificate: %q", code)
		}
	})
}

// TestAWorkstationThatIsNobodysAnyMoreEndsItsSessions, and one that is another
// agent's.
func TestAWorkstationThatIsNobodysAnyMoreEndsItsSessions(t *testing.T) {
	for _, to := range []broker.ID{"", broker.NewID()} {
		synctest.Test(t, func(t *testing.T) {
			w := newOwnWorkstation(t)
			w.run(t)
			s, err := w.manager.Open(context.Background(), w.external())
			if err != nil {
				t.Fatal(err)
			}
			defer s.End(nil, nil)
			byPassword := w.open(t)
			w.set(broker.Change{Kind: "workstation", ID: w.workstation.ID}, func() {
				changed := *w.workstation
				changed.AgentID = to
				w.stations[changed.ID] = &changed
			})
			synctest.Wait()
			if end := ended(t, s); end.Reason != broker.EndRevoked {
				t.Errorf("it ended so: %+v", end)
			}
			alive(t, byPassword)
			if code := w.try(w.external()); code != broker.Denied {
				t.Errorf("afterwards: %q", code)
			}
		})
	}
}

// TestADisabledAccountHasNoCertificateEither: who has his password in the
// directory is out when his account there is, whatever his workstation's key.
func TestADisabledAccountHasNoCertificateEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDirectory{passwords: map[string]string{"anna": "secret"}}
		w := newOwnWorkstation(t, func(c *Config) { c.Directory = d })
		w.agent.Authentication = broker.AuthLDAP
		w.run(t)
		if code := w.try(w.external()); code != "" || len(d.looked) != 1 || len(d.asked) != 0 {
			t.Errorf("%q, looked for %q, asked %q", code, d.looked, d.asked)
		}
		d.set(func() { d.down = broker.Errorf(broker.Unavailable, "down") })
		if code := w.try(w.external()); code != broker.Unavailable {
			t.Errorf("down: %q", code)
		}
		d.set(func() { d.down = nil; clear(d.passwords) })
		if code := w.try(w.external()); code != broker.Denied {
			t.Errorf("disabled: %q", code)
		}
	})
}
