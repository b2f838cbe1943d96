// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/x509"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
)

// TestOneMachineWithManyKeysIsOneSource: a company's CA gives a machine as many
// keys as it asks for; its failures count together all the same.
func TestOneMachineWithManyKeysIsOneSource(t *testing.T) {
	source := func(pin string, c *broker.CompanyCertificate) string {
		return (&attempt{
			pin: strings.Repeat(pin, 64), company: c,
			login: broker.Login{RemoteAddr: netip.MustParseAddrPort("192.0.2.1:1")},
		}).source()
	}
	first := source("a", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-07"})
	if second := source("b", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-07"}); second != first {
		t.Errorf("another key of it is %q, and the first %q", second, first)
	}
	for name, other := range map[string]string{
		"another machine's":            source("a", &broker.CompanyCertificate{Authority: "head-office", Name: "pune-08"}),
		"another authority's":          source("a", &broker.CompanyCertificate{Authority: "branch", Name: "pune-07"}),
		"one that names nobody":        source("a", &broker.CompanyCertificate{Authority: "head-office"}),
		"that key without a company's": source("a", nil),
	} {
		if other == first {
			t.Errorf("%s is the same source: %q", name, other)
		}
	}
}

// companyCA is one authority that says what a test wants.
type companyCA struct {
	mu   sync.Mutex
	says *broker.CompanyCertificate
	err  error
	tell func()
}

func (c *companyCA) Identify(*x509.Certificate) (*broker.CompanyCertificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.says, nil
}

func (c *companyCA) Standing(*broker.CompanyCertificate) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *companyCA) set(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *companyCA) Subscribe(f func()) (cancel func()) {
	c.tell = f
	return func() {}
}

func (c *companyCA) Named(n broker.CertificateName) (broker.CertificateName, broker.WorkstationClass, error) {
	return n, broker.ClassSoftware, nil
}

// named is a world whose workstation is known by its name alone.
func named(t testing.TB) (*world, *companyCA) {
	ca := &companyCA{says: &broker.CompanyCertificate{
		Authority: "head-office", Name: "desk-1", Class: broker.ClassSoftware, NotAfter: time.Now().Add(time.Hour),
	}}
	w := newWorld(t, func(c *Config) { c.CompanyCAs = ca })
	w.workstation.KeyPins, w.workstation.CertificateName = nil, &broker.CertificateName{Authority: "head-office", Name: "desk-1"}
	return w, ca
}

func revoked() error {
	err := broker.Errorf(broker.Denied, "revoked")
	err.Reason = "revoked-certificate"
	return err
}

// TestNever4CertificatesEnd: a session does not outlive the certificate of a
// company's CA that it came with.
func TestNever4CertificatesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := named(t)
		w.run(t)
		s := w.open(t)
		time.Sleep(time.Hour - time.Millisecond) // in the bubble's time
		synctest.Wait()
		if s.Context().Err() != nil {
			t.Fatalf("it ended early: %v", context.Cause(s.Context()))
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if end, _ := context.Cause(s.Context()).(*broker.End); end == nil || end.Reason != broker.EndExpired {
			t.Errorf("it ended with %v", context.Cause(s.Context()))
		}
	})
}

// TestNever4ListThatComesDuringALogin: a certificate that is revoked while its
// session is opened, after it was asked about and before the session is one of
// those that a list ends, opens nothing.
func TestNever4ListThatComesDuringALogin(t *testing.T) {
	for name, err := range map[string]error{"revoked": revoked(), "out of date": broker.Errorf(broker.Unavailable, "stale")} {
		w, ca := named(t)
		w.run(t)
		w.mu.Lock()
		w.hook = func(call string) {
			if call == "before Delegation" {
				ca.set(err)
				ca.tell()
			}
		}
		w.mu.Unlock()
		s, got := w.manager.Open(t.Context(), w.login())
		if got == nil {
			t.Errorf("%s: it is let in: %+v", name, s.Record())
		}
		if n := w.manager.Count(); n != 0 {
			t.Errorf("%s: %d sessions live", name, n)
		}
		w.mu.Lock()
		w.hook = nil
		w.mu.Unlock()
	}
}

// TestNever4ReasonlessRefusalOfACertificate: one that is refused for no reason
// that is told is refused all the same.
func TestNever4ReasonlessRefusalOfACertificate(t *testing.T) {
	w, ca := named(t)
	w.run(t)
	s := w.open(t)
	ca.set(broker.Errorf(broker.Denied, "no"))
	ca.tell()
	waitFor(t, s, broker.EndRevoked)
	if _, err := w.manager.Open(t.Context(), w.login()); broker.CodeOf(err) != broker.Denied {
		t.Errorf("Open: %v", err)
	}
}
