// SPDX-License-Identifier: Apache-2.0

package people

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/postern-mail/postern/broker"
)

// tokenServer is an OpenID Connect issuer.
type tokenServer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenServer{key: key}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, body any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": s.URL, "jwks_uri": s.URL + "/keys", "authorization_endpoint": s.URL + "/authorize", "token_endpoint": s.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

// sign makes a token of good claims, changed.
func (s *tokenServer) sign(t *testing.T, key *ecdsa.PrivateKey, change map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": s.URL, "aud": "postern", "sub": "priya", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// nobody has no method that works.
type nobody interface{ broker.People }

// identities are the people whose identities somebody noted.
type identities struct {
	nobody
	known map[broker.Identity]*broker.Person
}

func (i identities) PersonByIdentity(_ context.Context, identity broker.Identity) (*broker.Person, error) {
	if p := i.known[identity]; p != nil {
		return p, nil
	}
	return nil, broker.Errorf(broker.NotFound, "nobody")
}

func TestIdentityTokens(t *testing.T) {
	s := newTokenServer(t)
	forger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := NewAPITokens(broker.NewSecret(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	firm := broker.NewID()
	a, err := NewAuthenticator(Config{
		Tokens: tokens,
		People: identities{known: map[broker.Identity]*broker.Person{
			{Issuer: s.URL, Subject: "priya"}: {ID: broker.NewID(), FirmID: firm, Name: "Priya", Role: broker.RoleFirmAdmin},
		}},
		Issuers: []Issuer{{
			URL: s.URL, Audience: "postern", Client: s.Client(),
			Roles: []RoleRule{{"groups", "postern-admins", broker.RoleAdmin}, {"team", "audit", broker.RoleAuditor}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token string
		role  broker.Role
		firm  broker.ID
	}{
		"a firm's person":     {s.sign(t, s.key, nil), broker.RoleFirmAdmin, firm},
		"a group's member":    {s.sign(t, s.key, map[string]any{"sub": "ravi", "groups": []string{"staff", "postern-admins"}}), broker.RoleAdmin, ""},
		"a claim's value":     {s.sign(t, s.key, map[string]any{"sub": "ravi", "team": "audit"}), broker.RoleAuditor, ""},
		"a list of audiences": {s.sign(t, s.key, map[string]any{"aud": []string{"other", "postern"}}), broker.RoleFirmAdmin, firm},
	} {
		caller, err := a.Authenticate(t.Context(), test.token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if caller.Person.Role != test.role || caller.Person.FirmID != test.firm || caller.Actor().Name == "" {
			t.Errorf("%s: %+v", name, caller.Person)
		}
	}
	for name, token := range map[string]string{
		"another's key":      s.sign(t, forger, nil),
		"another's audience": s.sign(t, s.key, map[string]any{"aud": "mail"}),
		"expired":            s.sign(t, s.key, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"another's issuer":   s.sign(t, s.key, map[string]any{"iss": "https://id.example"}),
		"nobody":             s.sign(t, s.key, map[string]any{"sub": ""}),
		"no role":            s.sign(t, s.key, map[string]any{"sub": "ravi", "groups": "staff"}),
		"a firm's role":      s.sign(t, s.key, map[string]any{"sub": "ravi", "groups": []string{"firm-admin"}}),
		"unsigned":           "eyJhbGciOiJub25lIn0." + "eyJpc3MiOiJ4In0" + ".",
		"no token":           "a.b.c",
	} {
		if caller, err := a.Authenticate(t.Context(), token); broker.CodeOf(err) != broker.Denied {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
	s.Close()
	down := newTokenServer(t)
	a.issuers[0].URL, a.issuers[0].verifier = down.URL, nil
	down.Close()
	if _, err := a.Authenticate(t.Context(), down.sign(t, down.key, nil)); broker.CodeOf(err) != broker.Unavailable {
		t.Errorf("an issuer that is down: %v", err)
	}
}

// TestNever5NoIssuerMakesAFirmsPeople: the BPO, which configures issuers, could
// speak for a firm through one otherwise.
func TestNever5NoIssuerMakesAFirmsPeople(t *testing.T) {
	for _, role := range []broker.Role{broker.RoleFirmAdmin, broker.RoleFirmAuditor} {
		tokens, err := NewAPITokens(broker.NewSecret(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewAuthenticator(Config{
			Tokens: tokens, People: identities{},
			Issuers: []Issuer{{URL: "https://id.example", Audience: "postern", Roles: []RoleRule{{"groups", "x", role}}}},
		})
		if err == nil {
			t.Errorf("an issuer gives the role %s", role)
		}
	}
}
