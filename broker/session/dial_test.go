// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/broker"
)

// dials are both ways to open the upstream.
func dials() map[string]func(broker.LiveSession, context.Context) error {
	return map[string]func(broker.LiveSession, context.Context) error{
		"imap": func(s broker.LiveSession, ctx context.Context) error {
			c, err := s.DialIMAP(ctx)
			if (c == nil) != (err != nil) {
				panic("both or neither")
			}
			return err
		},
		"submission": func(s broker.LiveSession, ctx context.Context) error {
			c, err := s.DialSubmission(ctx)
			if (c == nil) != (err != nil) {
				panic("both or neither")
			}
			return err
		},
	}
}

// wiped fails if any credential that was handed out still holds its secret.
func (v *fakeVault) wiped(t *testing.T, want int) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.given) != want {
		t.Errorf("%d credentials were read, want %d", len(v.given), want)
	}
	for _, c := range v.given {
		if len(bytes.Trim(c.Secret.Reveal(), "\x00")) > 0 {
			t.Error("a credential was not wiped")
		}
	}
}

func TestDial(t *testing.T) {
	const secret = "correct horse battery"
	coded := func(code broker.Code, cause string) error {
		return &broker.Error{Code: code, Public: "adapter's text", Cause: errors.New(cause)}
	}
	tests := []struct {
		name  string
		vault error
		login error
		code  broker.Code
		text  string
		drift string
		reads int
	}{
		{"opened", nil, nil, "", "", "", 1},
		{"no credential", coded(broker.NotFound, "404"), nil, broker.Unavailable, textNoMailbox + " Ask Priya (desk 4).", "", 0},
		{"Vault sealed", coded(broker.Unavailable, "503"), nil, broker.Unavailable, textVault, "", 0},
		{"credential unreadable", coded(broker.Invalid, "json"), nil, broker.Internal, textInternal + " Ask Priya (desk 4).", "", 0},
		{
			"drift", nil, coded(broker.CredentialRefused, "NO [AUTHENTICATIONFAILED] bad\r\npassword"), broker.CredentialRefused,
			textDrift + " Ask Priya (desk 4).", "NO [AUTHENTICATIONFAILED] bad  password", 1,
		},
		{
			"drift that echoes the credential", nil, coded(broker.CredentialRefused, "NO wrong: "+secret), broker.CredentialRefused,
			textDrift + " Ask Priya (desk 4).", withheld, 1,
		},
		{
			"consent withdrawn", nil, &broker.Error{Code: broker.CredentialRefused, Reason: broker.ReasonConsent, Cause: errors.New("400 invalid_grant")},
			broker.CredentialRefused, textConsent + " Ask Priya (desk 4).", "", 1,
		},
		{
			"consent known to be withdrawn", nil, &broker.Error{Code: broker.CredentialRefused, Reason: broker.ReasonConsentKnown, Cause: errors.New("400 invalid_grant")},
			broker.CredentialRefused, textConsent + " Ask Priya (desk 4).", "", 1,
		},
		{"upstream away", nil, coded(broker.Unavailable, "connection refused"), broker.Unavailable, textUpstream, "", 1},
		{"a fault", nil, errors.New("strange " + secret), broker.Internal, textInternal + " Ask Priya (desk 4).", "", 1},
	}
	for kind, dial := range dials() {
		for _, test := range tests {
			t.Run(kind+" "+test.name, func(t *testing.T) {
				core, logged := observer.New(zapcore.DebugLevel)
				w := newWorld(t, func(c *Config) { c.Logger = zap.New(core) })
				w.run(t)
				s := w.open(t)
				w.vault.err = test.vault
				w.upstream.login = func(_ context.Context, c *broker.Credential) error {
					if string(c.Secret.Reveal()) != secret {
						t.Errorf("logged in with %q", c.Secret.Reveal())
					}
					return test.login
				}
				err := dial(s, t.Context())
				if broker.CodeOf(err) != test.code || (test.code != "" && broker.PublicText(err) != test.text) {
					t.Errorf("error %v", err)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds the credential: %v", err)
				}
				for _, entry := range logged.All() {
					if strings.Contains(fmt.Sprint(entry.Message, entry.ContextMap()), secret) {
						t.Errorf("the log holds the credential: %v", entry)
					}
				}
				w.vault.wiped(t, test.reads)
				withdrawn := w.log.of(broker.EventConsentWithdrawn)
				if news := test.name == "consent withdrawn"; news != (len(withdrawn) == 1) {
					t.Errorf("%d events of a consent withdrawn", len(withdrawn))
				} else if data := (broker.ConsentWithdrawn{Protocol: s.Record().Protocol, Kind: broker.KindPassword, Answer: "400 invalid_grant"}); news && withdrawn[0].Data != data {
					t.Errorf("the event holds %+v", withdrawn[0].Data)
				}
				events := w.log.of(broker.EventDrift)
				switch {
				case test.drift == "" && len(events) != 0:
					t.Errorf("drift without a refusal: %+v", events[0])
				case test.drift != "" && (len(events) != 1 || events[0].Data.(broker.Drift).Answer != test.drift ||
					events[0].FirmID != w.firm.ID || events[0].SessionID != s.Record().ID):
					t.Errorf("drift events %+v", events)
				}
				alive(t, s)
			})
		}
	}
}

// TestNever4DialUnderARevoke: a session that ends while its login is under way
// gets no connection, and the connection is closed.
func TestNever4DialUnderARevoke(t *testing.T) {
	for kind, dial := range dials() {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.run(t)
				s := w.open(t)
				admin := broker.Actor{Kind: "admin", Name: "root"}
				w.upstream.login = func(ctx context.Context, _ *broker.Credential) error {
					if err := w.manager.EndSession(ctx, admin, s.Record().ID); err != nil {
						t.Error(err)
					}
					<-ctx.Done() // the dial is told
					return nil
				}
				if err := dial(s, context.Background()); broker.CodeOf(err) != broker.Refused {
					t.Errorf("dial: %v", err)
				}
				if !w.upstream.conn.closed {
					t.Error("the connection stays open")
				}
				w.vault.wiped(t, 1)
				if err := dial(s, context.Background()); broker.CodeOf(err) != broker.Refused {
					t.Errorf("dial after the end: %v", err)
				}
				w.vault.wiped(t, 1)
			})
		})
	}
}

func TestNever1AnswersAreClearedOfTheCredential(t *testing.T) {
	const user = "info@firm.example"
	b64 := base64.StdEncoding.EncodeToString
	for _, secret := range []string{"pa55word!", "s3cr3t-longer-than-most>>??~~", "ä passphrase", "abcd\xff\xfe1234"} {
		for _, sent := range []string{
			secret, strings.ToUpper(secret), "x" + secret + "y",
			b64([]byte(secret)), b64([]byte("\x00" + user + "\x00" + secret)), b64([]byte(user + "\x00" + user + "\x00" + secret)),
			b64([]byte("user=" + user + "\x01auth=Bearer " + secret + "\x01\x01")), b64([]byte("n,a=" + user + ",\x01auth=Bearer " + secret + "\x01\x01")),
			base64.RawURLEncoding.EncodeToString([]byte("." + secret)), hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		} {
			if got := withhold("535 5.7.8 bad: "+sent+" (try again)", user, []byte(secret)); got != withheld {
				t.Errorf("%q passed as %q", sent, got)
			}
		}
		if got := withhold("535 5.7.8 Authentication failed: UGFzc3dvcmQ6", user, []byte(secret)); !strings.HasPrefix(got, "535") {
			t.Errorf("a harmless answer was withheld: %q", got)
		}
	}
	if got := withhold("535 bad", user, []byte("bad")); got != withheld {
		t.Errorf("with a short secret: %q", got)
	}
	if got := withhold(strings.Repeat("é", 1000), user, []byte("pa55word")); len(got) > maxAnswer {
		t.Errorf("%d octets", len(got))
	}
}

func FuzzWithhold(f *testing.F) {
	f.Add("pass", "before ", " after", byte(0))
	f.Fuzz(func(t *testing.T, secret, before, after string, form byte) {
		if len(secret) < 8 || len(before)+len(secret)+len(after) > maxAnswer/2 {
			return
		}
		sent := before + secret + after
		if form%2 == 1 {
			sent = base64.StdEncoding.EncodeToString([]byte(sent))
		}
		if got := withhold(sent, "user", []byte(secret)); got != withheld {
			t.Errorf("withhold(%q) of %q = %q", sent, secret, got)
		}
	})
}
