// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

func TestEachKindOpensTheMailbox(t *testing.T) {
	w := newWorld(t)
	url := w.issuer.TokenURL()
	for name, c := range map[string]*broker.Credential{
		"secret in the body":   w.client(),
		"secret in the header": credential(broker.KindOAuth2Client, &Document{TokenURL: url, ClientID: clientID, ClientSecret: secretOf(marked), ClientAuth: AuthBasic}),
		"certificate":          credential(broker.KindOAuth2Client, &Document{TokenURL: url, ClientID: "key-app", PrivateKey: keyPEM(), Certificate: certificatePEM()}),
		"consent":              w.consented(),
		"service account":      credential(broker.KindGoogleServiceAccount, &Document{TokenURL: url, ClientID: "robot@project.example", PrivateKey: keyPEM(), PrivateKeyID: "key-1"}),
	} {
		t.Run(name, func(t *testing.T) {
			w.set(c)
			before := len(w.issuer.Requests())
			w.mustOpen()
			w.mustOpen()
			stored, err := w.store.Credential(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.OpenSubmission(t.Context(), w.box, stored); err != nil {
				t.Error(err)
			}
			if err := w.Probe(t.Context(), w.box, stored); err != nil {
				t.Error(err)
			}
			if got := len(w.issuer.Requests()) - before; got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
			w.nothingTold(nil, marked)
		})
	}
}

// What is no credential that mints tokens passes as it is.
func TestOtherKindsPass(t *testing.T) {
	w := newWorld(t)
	c := &broker.Credential{Kind: broker.KindAccessToken, Secret: secretOf("own")}
	if _, err := w.OpenIMAP(t.Context(), w.box, c); err != nil || w.mail.shown[0] != "own" {
		t.Errorf("%v, shown %q", err, w.mail.shown)
	}
	w.requests(0)
}

func TestFiftySessionsOnAnExpiredTokenMakeOneRequest(t *testing.T) {
	for name, c := range map[string]func(*world) *broker.Credential{"client": (*world).client, "refresh": (*world).consented} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(c(w))
			w.mustOpen()
			w.pass(2 * time.Hour)
			w.issuer.Hold()
			var sessions sync.WaitGroup
			for range 50 {
				sessions.Go(func() {
					if err := w.open(); err != nil {
						t.Error(err)
					}
				})
			}
			w.issuer.Release()
			sessions.Wait()
			w.requests(2)
		})
	}
}

// A caller that leaves ends nothing for those who wait with him.
func TestACallerThatLeavesEndsNothing(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	w.issuer.Hold()
	gone, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := w.OpenIMAP(gone, w.box, c)
		left <- err
	}()
	stays := make(chan error, 1)
	go func() {
		_, err := w.OpenIMAP(t.Context(), w.box, c)
		stays <- err
	}()
	leave()
	wantError(t, <-left, broker.Unavailable, ReasonEndpoint)
	w.issuer.Release()
	if err := <-stays; err != nil {
		t.Error(err)
	}
	w.requests(1)
}

// Before its end a token is renewed by the way, while it still serves.
func TestRenewedEarly(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.mustOpen()
	w.pass(55 * time.Minute)
	w.issuer.Hold()
	w.mustOpen() // does not wait
	w.issuer.Release()
	w.flights.Wait()
	w.requests(2)
	w.pass(10 * time.Minute) // past the first one's end
	w.mustOpen()
	w.requests(2)
	if w.mail.shown[0] != w.mail.shown[1] || w.mail.shown[2] == w.mail.shown[0] {
		t.Errorf("tokens %q", w.mail.shown)
	}
}

// An issuer that is away while a token is renewed early does no harm.
func TestRenewedEarlyWithoutTheIssuer(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.mustOpen()
	w.issuer.Answer(func(r http.ResponseWriter, _ *http.Request) { r.WriteHeader(http.StatusServiceUnavailable) })
	w.pass(55 * time.Minute)
	w.mustOpen()
	w.flights.Wait()
	w.mustOpen()
	w.requests(2) // it is not asked again at once
	w.pass(10 * time.Minute)
	wantError(t, w.open(), broker.Unavailable, ReasonBusy)
}

// A token that was kept and is refused is replaced once for all who showed it;
// after that the upstream's refusal is believed.
func TestARefusedTokenIsReplacedOnce(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.mustOpen()
	w.mail.refuseShown()
	var sessions sync.WaitGroup
	for range 20 {
		sessions.Go(func() {
			if err := w.open(); err != nil {
				t.Error(err)
			}
		})
	}
	sessions.Wait()
	w.requests(2)

	w.mail.refuse(refusedLogin())
	for range 5 {
		wantError(t, w.open(), broker.CredentialRefused, "refused")
	}
	w.requests(2) // so soon after the last
	w.pass(renewPause)
	wantError(t, w.open(), broker.CredentialRefused, "refused")
	wantError(t, w.open(), broker.CredentialRefused, "refused")
	w.requests(3)
	w.mail.refuse(nil)
	w.mustOpen()
	w.requests(3)
}

// One that has just come is not replaced, and an outage replaces none.
func TestANewTokenIsNotReplaced(t *testing.T) {
	w := newWorld(t)
	w.mail.refuse(refusedLogin())
	_, err := w.OpenIMAP(t.Context(), w.box, w.client())
	wantError(t, err, broker.CredentialRefused, "refused")
	w.requests(1)
	w.mail.refuse(&broker.Error{Code: broker.Unavailable, Reason: "busy"})
	_, err = w.OpenIMAP(t.Context(), w.box, w.client())
	wantError(t, err, broker.Unavailable, "busy")
	w.requests(1)
}

func TestConsentWithdrawn(t *testing.T) {
	for name, withdraw := range map[string]func(w *world) *broker.Credential{
		"refresh token": func(w *world) *broker.Credential {
			c := w.consented()
			w.issuer.Withdraw(address)
			return c
		},
		"domain-wide delegation": func(w *world) *broker.Credential {
			return credential(broker.KindGoogleServiceAccount, &Document{TokenURL: w.issuer.TokenURL(), ClientID: "stranger@project.example", PrivateKey: keyPEM(), PrivateKeyID: "key-1"})
		},
		"application": func(w *world) *broker.Credential {
			return credential(broker.KindOAuth2Client, &Document{TokenURL: w.issuer.TokenURL(), ClientID: "without-permissions", ClientSecret: secretOf(marked)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := withdraw(w)
			w.set(c)
			var sessions sync.WaitGroup
			var mu sync.Mutex
			told := map[string]int{}
			for range 20 {
				sessions.Go(func() {
					err := w.open()
					var e *broker.Error
					if !errors.As(err, &e) || e.Code != broker.CredentialRefused {
						t.Errorf("error %v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					told[e.Reason]++
				})
			}
			sessions.Wait()
			if told[broker.ReasonConsent] != 1 || told[broker.ReasonConsentKnown] != 19 {
				t.Errorf("told %v, want one to whom it is news", told)
			}
			w.requests(1)
			err := w.open()
			wantError(t, err, broker.CredentialRefused, broker.ReasonConsentKnown)
			w.nothingTold(err, marked)
			if len(w.mail.shown) > 0 {
				t.Error("the mail server was asked")
			}
			// The firm consents again: nobody waits for what was remembered.
			w.set(w.consented())
			w.mustOpen()
			w.set(c)
			w.pass(refusalMemory)
			wantError(t, w.open(), broker.CredentialRefused, broker.ReasonConsent)
			w.requests(3)
		})
	}
}

// A withdrawal that is found while a token is renewed early ends what is left
// of it.
func TestConsentWithdrawnEndsTheKeptToken(t *testing.T) {
	w := newWorld(t)
	w.set(w.consented())
	w.mustOpen()
	w.issuer.Withdraw(address)
	w.pass(55 * time.Minute)
	w.mustOpen()
	w.flights.Wait()
	wantError(t, w.open(), broker.CredentialRefused, broker.ReasonConsent)
}

// Nobody is refused by an outage, and no outage is taken for anything else.
func TestOutagesAreNotRefusals(t *testing.T) {
	answer := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		code   broker.Code
		reason string
		wait   time.Duration
	}{
		"busy":                   {answer(429, "Retry-After: 120", `{"error":"invalid_grant"}`), broker.Unavailable, ReasonBusy, 120 * time.Second},
		"busy for too long":      {answer(429, "Retry-After: 86400", ``), broker.Unavailable, ReasonBusy, longestWait},
		"broken":                 {answer(500, "", `{"error":"invalid_grant"}`), broker.Unavailable, ReasonBusy, firstWait},
		"a gateway's page":       {answer(502, "", `<html>`), broker.Unavailable, ReasonBusy, firstWait},
		"a page":                 {answer(403, "", `<html>`), broker.Unavailable, ReasonEndpoint, firstWait},
		"a redirect":             {answer(302, "Location: /elsewhere", `{"error":"invalid_grant"}`), broker.Unavailable, ReasonEndpoint, firstWait},
		"temporarily":            {answer(400, "", `{"error":"temporarily_unavailable"}`), broker.Unavailable, ReasonBusy, firstWait},
		"a wrong scope":          {answer(400, "", `{"error":"invalid_scope"}`), broker.Unavailable, ReasonRequest, firstWait},
		"an unknown error":       {answer(400, "", `{"error":"mArKeD"}`), broker.Unavailable, ReasonRequest, firstWait},
		"no error's name":        {answer(400, "", `{"error":{"code":400}}`), broker.Unavailable, ReasonEndpoint, firstWait},
		"no token":               {answer(200, "", `{"token_type":"Bearer"}`), broker.Unavailable, ReasonEndpoint, firstWait},
		"not a bearer token":     {answer(200, "", `{"access_token":"x","token_type":"mac"}`), broker.Unavailable, ReasonEndpoint, firstWait},
		"a token with a control": {answer(200, "", `{"access_token":"x\u0001auth=","token_type":"Bearer"}`), broker.Unavailable, ReasonEndpoint, firstWait},
		"no JSON":                {answer(200, "", `access_token=x`), broker.Unavailable, ReasonEndpoint, firstWait},
		"without end":            {answer(200, "", `{"access_token":"`+strings.Repeat("x", maxAnswer)), broker.Unavailable, ReasonEndpoint, firstWait},
		"an unknown client":      {answer(401, "", `{"error":"invalid_client"}`), broker.CredentialRefused, ReasonClient, refusalMemory},
		"the grant":              {answer(400, "", `{"error":"invalid_grant"}`), broker.CredentialRefused, broker.ReasonConsent, refusalMemory},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.set(w.client())
			w.issuer.Answer(test.answer)
			err := w.open()
			wantError(t, err, test.code, test.reason)
			w.nothingTold(err, "mArKeD")
			if err := w.open(); broker.CodeOf(err) != test.code {
				t.Errorf("then %v", err)
			}
			w.requests(1)
			w.issuer.Answer(nil)
			w.pass(test.wait / 2)
			if err := w.open(); broker.CodeOf(err) != test.code {
				t.Errorf("after half the wait: %v", err)
			}
			w.pass(test.wait)
			w.mustOpen()
			w.requests(2)
		})
	}
}

// The waits of an outage that lasts grow, and are bounded.
func TestWaitsGrow(t *testing.T) {
	e := &entry{}
	now := time.Now()
	for i := range 100 {
		e.fail(unavailable(ReasonBusy, errors.New("x")), now)
		wait := e.until.Sub(now)
		most := min(firstWait<<min(i, 10), longestOwnWait)
		if wait > most || wait < most*6/10 {
			t.Errorf("wait %d is %v, want at most %v", i, wait, most)
		}
	}
}

// An issuer's clock is not this machine's: it is learnt from its answers.
func TestClockSkew(t *testing.T) {
	for _, ahead := range []time.Duration{-2 * time.Hour, -4 * time.Minute, -20 * time.Second, 0, 4 * time.Minute, 3 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			w := newWorld(t)
			w.issuer.SetClock(ahead)
			for kind, id := range map[broker.CredentialKind]string{broker.KindOAuth2Client: "key-app", broker.KindGoogleServiceAccount: "robot@project.example"} {
				d := &Document{TokenURL: w.issuer.TokenURL(), ClientID: id, PrivateKey: keyPEM()}
				if kind == broker.KindOAuth2Client {
					d.Certificate = certificatePEM()
				} else {
					d.PrivateKeyID = "key-1"
				}
				if _, err := w.OpenIMAP(t.Context(), w.box, credential(kind, d)); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
			if n := len(w.issuer.Requests()); n > 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// Who is not spoken to is not told anything.
func TestIssuersAreVerified(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"unknown CA":  func(c *Config) { c.RootCAs = nil },
		"no networks": func(c *Config) { c.Networks = nil },
		"not in time": func(c *Config) { c.Timeout = minTimeout },
		"certificate expired by our clock": func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change)
			want := ReasonEndpoint
			switch name {
			case "not in time":
				w.issuer.Hold()
			case "no networks":
				want = ReasonAddress
			}
			_, err := w.OpenIMAP(t.Context(), w.box, w.client())
			wantError(t, err, broker.Unavailable, want)
			w.issuer.Release()
			if name != "not in time" {
				w.requests(0)
			}
			w.nothingTold(err, marked)
		})
	}
}

// Tokens are kept by what they were minted from, and are wiped at the end.
func TestNever1TokensAreKeptApart(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	if _, err := w.OpenIMAP(t.Context(), w.box, c); err != nil {
		t.Fatal(err)
	}
	wrong := credential(broker.KindOAuth2Client, &Document{TokenURL: w.issuer.TokenURL(), ClientID: clientID, ClientSecret: secretOf("guessed"), Scope: "x"})
	if _, err := w.OpenIMAP(t.Context(), w.box, wrong); err == nil {
		t.Error("another secret got the first one's token")
	}
	other := *w.box
	other.ID = broker.NewID()
	if _, err := w.OpenIMAP(t.Context(), &other, c); err != nil {
		t.Fatal(err)
	}
	renamed := *w.box
	renamed.Username = "boss@client.example"
	if _, err := w.OpenIMAP(t.Context(), &renamed, c); err != nil {
		t.Fatal(err)
	}
	w.requests(4)
	kept := w.entries
	var tokens []broker.Secret
	for _, e := range kept {
		tokens = append(tokens, e.token)
	}
	w.stop()
	for _, token := range tokens {
		if strings.Trim(string(token.Reveal()), "\x00") != "" {
			t.Error("a token is left")
		}
	}
	if _, err := w.OpenIMAP(t.Context(), w.box, c); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.set(w.client())
	w.mustOpen()
	w.pass(10 * time.Minute)
	w.sweep()
	w.mustOpen()
	w.requests(1)
	w.pass(unusedTime)
	w.sweep()
	if n := len(w.entries); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	w.mustOpen()
	w.requests(2)
}

func TestNewRefusesWrongSettings(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":  {},
		"too slow": {Upstream: &mailServer{}, Credentials: &memory{}, Timeout: time.Hour},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
