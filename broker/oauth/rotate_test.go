// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// renew has the next login ask the issuer.
func (w *world) renew() { w.pass(2 * time.Hour) }

func TestRefreshTokensFollowEachOther(t *testing.T) {
	w := newWorld(t)
	w.set(w.consented())
	seen := map[string]bool{w.store.refreshToken(t): true}
	for i := range 4 {
		w.mustOpen()
		if got := w.store.refreshToken(t); seen[got] {
			t.Errorf("exchange %d left an old refresh token", i)
		} else {
			seen[got] = true
		}
		w.mustOpen()
		w.renew()
	}
	w.requests(4)
	w.stop()
	// After a restart the stored one is good.
	w.start()
	w.mustOpen()
	w.requests(5)
}

// A document that somebody wrote by hand has no id: it gets one.
func TestAConsentWithoutAnID(t *testing.T) {
	w := newWorld(t)
	w.set(credential(broker.KindOAuth2Refresh, &Document{
		TokenURL: w.issuer.TokenURL(), ClientID: "public-app", RefreshToken: secretOf(w.issuer.Consent("public-app", address)),
	}))
	for range 3 {
		w.mustOpen()
		w.mustOpen()
		w.renew()
	}
	w.requests(3)
}

// An issuer whose refresh tokens stay has nothing stored.
func TestRefreshTokensThatStay(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.store.fail(errors.New("not to be called"), nil, nil)
	w.mustOpen()
}

// Two nodes: the one whose store comes second leaves what the first stored.
func TestStaleCheckAndSet(t *testing.T) {
	w := newWorld(t)
	c := w.consented()
	w.set(c)
	d, err := Parse(c.Kind, c.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	d.RefreshToken = secretOf(w.issuer.Consent("public-app", address)) // the other node's
	theirs := string(d.RefreshToken.Reveal())
	w.store.beforeSet = func() { w.set(credential(c.Kind, d)) }
	w.mustOpen()
	if got := w.store.refreshToken(t); got != theirs {
		t.Error("the other node's refresh token was overwritten")
	}
	w.mustOpen()
	w.requests(1)
	w.renew()
	w.mustOpen() // with the other node's
	w.requests(2)
}

// A token of a credential that was replaced or removed meanwhile serves nobody.
func TestReplacedMeanwhile(t *testing.T) {
	for name, replace := range map[string]func(*world){
		"replaced": func(w *world) { w.set(w.consented()) },
		"password": func(w *world) { w.set(&broker.Credential{Kind: broker.KindPassword, Secret: secretOf("p")}) },
		"removed":  func(w *world) { _ = w.store.DeleteCredential(t.Context(), "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(w.consented())
			w.store.beforeSet = func() { replace(w) }
			wantError(t, w.open(), broker.Unavailable, ReasonChanged)
			if len(w.mail.shown) > 0 {
				t.Error("the mail server was shown a token")
			}
		})
	}
}

// A session that read the credential before another took its place gets none.
func TestReadBeforeTheReplacement(t *testing.T) {
	w := newWorld(t)
	old := w.consented()
	w.set(w.consented())
	_, err := w.OpenIMAP(t.Context(), w.box, old)
	wantError(t, err, broker.Unavailable, ReasonChanged)
	w.requests(0)
}

// Who cannot store does not exchange.
func TestNoExchangeWithoutTheStorage(t *testing.T) {
	down := broker.Errorf(broker.Unavailable, "sealed")
	for name, fail := range map[string]func(*memory){
		"reading": func(s *memory) { s.fail(nil, down, nil) },
		"writing": func(s *memory) { s.fail(down, nil, down) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.consented()
			w.set(c)
			fail(w.store)
			_, err := w.OpenIMAP(t.Context(), w.box, c)
			wantError(t, err, broker.Unavailable, ReasonStore)
			w.requests(0)
			w.store.fail(nil, nil, nil)
			w.pass(longestOwnWait)
			w.mustOpen()
		})
	}
}

// A storage that goes away between answer and store is waited for, by the stop
// of the server too.
func TestTheStorageGoesAwayBeforeTheStore(t *testing.T) {
	w := newWorld(t)
	c := w.consented()
	w.set(c)
	before := w.store.refreshToken(t)
	tried := make(chan struct{})
	w.store.beforeSet = func() {
		w.store.fail(broker.Errorf(broker.Unavailable, "sealed"), nil, nil)
		close(tried)
	}
	opened := make(chan error, 1)
	go func() { opened <- w.open() }()
	<-tried
	stopped := make(chan struct{})
	go func() { w.stop(); close(stopped) }()
	w.store.fail(nil, nil, nil)
	if err := <-opened; err != nil {
		t.Error(err)
	}
	<-stopped
	if w.store.refreshToken(t) == before {
		t.Error("the new refresh token is lost")
	}
}

// What could not be stored in time is kept, and stored before the next
// exchange, in the background, or at the stop.
func TestPending(t *testing.T) {
	for name, later := range map[string]func(*world){
		"next exchange": func(w *world) { w.renew(); w.mustOpen() },
		"background":    func(w *world) { w.storePending(w.t.Context()) },
		"stop":          func(w *world) { w.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.consented()
			w.set(c)
			old := w.store.refreshToken(t)
			want, err := w.want(w.box, c, false)
			if err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			e := w.entry(want)
			next := want.document.clone()
			next.RefreshToken = secretOf(w.issuer.Consent("public-app", address))
			e.pending = &pending{want: want.keep(""), version: 1, encoded: next.Encode(c.Kind)}
			w.mu.Unlock()
			w.sweep()
			later(w)
			if got := w.store.refreshToken(t); got == old {
				t.Error("it is not stored")
			}
			if e.pending != nil {
				t.Error("it is still pending")
			}
		})
	}
}

// A process that dies between the issuer's answer and the store leaves a
// refresh token that was used: where the issuer lets it be used again, all goes
// on; where it does not, the firm is told.
func TestCrashBeforeTheStore(t *testing.T) {
	w := newWorld(t)
	c := w.consented()
	w.set(c)
	d, err := Parse(c.Kind, c.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.issuers.ask(t.Context(), c.Kind, d, address); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.open(), broker.CredentialRefused, broker.ReasonConsent)
}

// Another node exchanged the token and stores a moment later: its refusal here
// is not believed at once.
func TestAnotherNodeWasFaster(t *testing.T) {
	w := newWorld(t)
	c := w.consented()
	w.set(c)
	d, err := Parse(c.Kind, c.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	// The issuer refuses the old one, and knows one that the other node has.
	other := d.clone()
	other.RefreshToken = secretOf(w.issuer.Consent("public-app", address))
	stale := d.clone()
	stale.RefreshToken = secretOf("spent")
	w.set(credential(c.Kind, stale))
	opened := make(chan error, 1)
	go func() { opened <- w.open() }()
	for len(w.issuer.Requests()) == 0 {
		select {
		case err := <-opened:
			t.Fatalf("opened without a request: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	w.set(credential(c.Kind, other))
	if err := <-opened; err != nil {
		t.Error(err)
	}
	w.requests(2)
}

// What is tried before it is stored hands its new refresh token back, and its
// access token serves those who come after the store.
func TestProbeHandsBack(t *testing.T) {
	w := newWorld(t)
	w.set(&broker.Credential{Kind: broker.KindPassword, Secret: secretOf("before")})
	c := w.over(w.consented())
	old := string(c.Secret.Reveal())
	if err := w.Probe(t.Context(), w.box, c); err != nil {
		t.Fatal(err)
	}
	if string(c.Secret.Reveal()) == old {
		t.Fatal("the refresh token is the spent one")
	}
	w.set(c)
	w.mustOpen()
	w.requests(1)
	w.renew()
	w.mustOpen()
	w.requests(2)

	// What is stored is tried with what is known of it.
	stored, err := w.store.Credential(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Probe(t.Context(), w.box, stored); err != nil {
		t.Error(err)
	}
	w.requests(2)
	// Another refresh token under the name of a consent that is known is tried
	// itself.
	d, err := Parse(stored.Kind, stored.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	d.RefreshToken = secretOf("never given")
	wantError(t, w.Probe(t.Context(), w.box, w.over(credential(stored.Kind, d))), broker.CredentialRefused, broker.ReasonConsent)
	w.requests(3)
	w.mustOpen()
	w.requests(3)

	// One that was read before it was exchanged is not shown again: to the
	// strictest issuers that would end the consent.
	w.renew()
	w.mustOpen()
	wantError(t, w.Probe(t.Context(), w.box, stored), broker.Unavailable, ReasonChanged)
	w.requests(4)

	// One that was refused by the mail server and is tried again is not lost.
	again := w.over(w.consented())
	first := *again
	first.Secret = secretOf(string(again.Secret.Reveal()))
	w.mail.refuse(refusedLogin())
	if err := w.Probe(t.Context(), w.box, &first); err == nil {
		t.Error("a probe of a refused login")
	}
	w.mail.refuse(nil)
	if err := w.Probe(t.Context(), w.box, again); err != nil {
		t.Error(err)
	}
	w.set(again)
	w.renew()
	w.mustOpen()
}
