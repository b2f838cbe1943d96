// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

func TestParse(t *testing.T) {
	key, certificate := string(keyPEM().Reveal()), certificatePEM()
	quote := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const client, refresh, google = broker.KindOAuth2Client, broker.KindOAuth2Refresh, broker.KindGoogleServiceAccount
	const url = `"version":1,"token_url":"https://issuer.example/token"`
	for _, test := range []struct {
		name  string
		kind  broker.CredentialKind
		text  string
		field string // "": it is good
	}{
		{"secret", client, `{` + url + `,"client_id":"a","client_secret":"s"}`, ""},
		{"key", client, `{` + url + `,"client_id":"a","private_key":` + quote(key) + `,"certificate":` + quote(certificate) + `}`, ""},
		{"public client", refresh, `{` + url + `,"client_id":"a","refresh_token":"r"}`, ""},
		{"refresh with all", refresh, `{` + url + `,"id":"i","client_id":"a","refresh_token":"r","client_secret":"s","client_auth":"basic","scope":"a b"}`, ""},
		{"google", google, `{` + url + `,"client_email":"a@b.example","private_key":` + quote(key) + `,"private_key_id":"k","scope":"x"}`, ""},

		{"not JSON", client, `{`, "document"},
		{"an array", client, `[]`, "document"},
		{"null", client, `null`, "document"},
		{"not UTF-8", client, "{" + url + ",\"client_id\":\"a\",\"client_secret\":\"\xff\"}", "document"},
		{"no version", client, `{"token_url":"https://issuer.example/token","client_id":"a","client_secret":"s"}`, "version"},
		{"newer", client, `{"version":2,"token_url":"https://issuer.example/token","client_id":"a","client_secret":"s"}`, "version"},
		{"unknown member", client, `{` + url + `,"client_id":"a","client_secret":"s","more":1}`, "document"},
		{"another kind's", client, `{` + url + `,"client_id":"a","client_secret":"s","refresh_token":"r"}`, "document"},
		{"other case", client, `{` + url + `,"client_id":"a","Client_Secret":"s"}`, "document"},
		{"a number", client, `{` + url + `,"client_id":"a","client_secret":5}`, "client_secret"},
		{"a null", client, `{` + url + `,"client_id":"a","client_secret":null}`, "client_secret"},
		{"no proof", client, `{` + url + `,"client_id":"a"}`, "client_secret"},
		{"two proofs", client, `{` + url + `,"client_id":"a","client_secret":"s","private_key":` + quote(key) + `,"certificate":` + quote(certificate) + `}`, "client_secret"},
		{"key alone", client, `{` + url + `,"client_id":"a","private_key":` + quote(key) + `}`, "certificate"},
		{"certificate alone", client, `{` + url + `,"client_id":"a","certificate":` + quote(certificate) + `}`, "client_secret"},
		{"another's certificate", client, `{` + url + `,"client_id":"a","private_key":` + quote(key) + `,"certificate":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"}`, "certificate"},
		{"no key", google, `{` + url + `,"client_email":"a","private_key":"x"}`, "private_key"},
		{"no client", client, `{` + url + `,"client_secret":"s"}`, "client_id"},
		{"empty client", client, `{` + url + `,"client_id":"","client_secret":"s"}`, "client_id"},
		{"control in the scope", client, `{` + url + `,"client_id":"a","client_secret":"s","scope":"a\nb"}`, "scope"},
		{"secret that is no ASCII", client, `{` + url + `,"client_id":"a","client_secret":"ä"}`, "client_secret"},
		{"no refresh token", refresh, `{` + url + `,"client_id":"a"}`, "refresh_token"},
		{"empty refresh token", refresh, `{` + url + `,"client_id":"a","refresh_token":""}`, "refresh_token"},
		{"strange auth", refresh, `{` + url + `,"client_id":"a","refresh_token":"r","client_auth":"x"}`, "client_auth"},
		{"http", client, `{"version":1,"token_url":"http://issuer.example/token","client_id":"a","client_secret":"s"}`, "token_url"},
		{"file", client, `{"version":1,"token_url":"file:///etc/passwd","client_id":"a","client_secret":"s"}`, "token_url"},
		{"user in the URL", client, `{"version":1,"token_url":"https://a:b@issuer.example/","client_id":"a","client_secret":"s"}`, "token_url"},
		{"fragment", client, `{"version":1,"token_url":"https://issuer.example/#a","client_id":"a","client_secret":"s"}`, "token_url"},
		{"no host", client, `{"version":1,"token_url":"https:///token","client_id":"a","client_secret":"s"}`, "token_url"},
		{"space in the URL", client, `{"version":1,"token_url":"https://issuer.example/a b","client_id":"a","client_secret":"s"}`, "token_url"},
		{"a password", broker.KindPassword, `{"version":1}`, "document"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := Parse(test.kind, []byte(test.text))
			if test.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				encoded := d.Encode(test.kind)
				again, err := Parse(test.kind, encoded)
				if err != nil {
					t.Fatalf("%s: %v", encoded, err)
				}
				if !bytes.Equal(again.Encode(test.kind), encoded) {
					t.Error("it changed on its way")
				}
				return
			}
			var e *broker.Error
			if !errors.As(err, &e) || e.Code != broker.Invalid || e.Field != test.field {
				t.Fatalf("error %v, want one about %s", err, test.field)
			}
			if strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), `"s"`) {
				t.Errorf("it quotes: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, kind := range []broker.CredentialKind{broker.KindOAuth2Client, broker.KindOAuth2Refresh, broker.KindGoogleServiceAccount} {
		f.Add(string(kind), []byte(`{"version":1,"token_url":"https://issuer.example/t","client_id":"a","client_secret":"s\u0041","refresh_token":"r"}`))
	}
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		k := broker.CredentialKind(kind)
		d, err := Parse(k, text)
		if err != nil {
			return
		}
		encoded := d.Encode(k)
		again, err := Parse(k, encoded)
		if err != nil || !bytes.Equal(again.Encode(k), encoded) {
			t.Errorf("%q became %q: %v", text, encoded, err)
		}
	})
}

// The refresh token alone does not tell documents of one consent apart.
func TestFingerprint(t *testing.T) {
	key := []byte("key")
	base := Document{ID: "i", TokenURL: "https://a.example", ClientID: "c", Scope: "s", RefreshToken: secretOf("r1")}
	print := func(change func(*Document), subject string) print {
		d := base
		change(&d)
		return d.fingerprint(key, broker.KindOAuth2Refresh, subject)
	}
	same := func(*Document) {}
	if print(same, "x") != print(func(d *Document) { d.RefreshToken = secretOf("r2") }, "x") {
		t.Error("another refresh token of the consent is another credential")
	}
	anonymous := func(r string) func(*Document) {
		return func(d *Document) { d.ID, d.RefreshToken = "", secretOf(r) }
	}
	seen := map[[32]byte]string{}
	for name, p := range map[string][32]byte{
		"same": print(same, "x"), "subject": print(same, "y"),
		"id":       print(func(d *Document) { d.ID = "j" }, "x"),
		"issuer":   print(func(d *Document) { d.TokenURL = "https://b.example" }, "x"),
		"secret":   print(func(d *Document) { d.ClientSecret = secretOf("s") }, "x"),
		"scope":    print(func(d *Document) { d.Scope = "t" }, "x"),
		"no id, 1": print(anonymous("r1"), "x"), "no id, 2": print(anonymous("r2"), "x"),
	} {
		if other, taken := seen[p]; taken {
			t.Errorf("%s is %s", name, other)
		}
		seen[p] = name
	}
}

func TestAllowed(t *testing.T) {
	lab := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}
	for to, want := range map[string]bool{
		"20.190.128.1:443": true, "[2603:1006::1]:443": true, "142.250.1.95:443": true,
		"20.190.128.1:80": false, "20.190.128.1:8443": false,
		"127.0.0.1:443": false, "127.8.8.8:443": false, "[::1]:443": false, "0.0.0.0:443": false, "[::]:443": false, "0.1.2.3:443": false,
		"10.0.0.1:443": false, "172.16.0.1:443": false, "192.168.1.1:443": false, "[fd12::1]:443": false, "[fc00::1]:443": false,
		"169.254.169.254:443": false, "[fe80::1%eth0]:443": false, "100.64.0.1:443": false, "224.0.0.1:443": false, "[ff02::1]:443": false,
		"[::ffff:127.0.0.1]:443": false, "[::ffff:10.0.0.1]:443": false, "[::ffff:20.190.128.1]:443": true,
		"[64:ff9b::7f00:1]:443": false, "[2002:7f00:1::]:443": false, "255.255.255.255:443": false, "198.18.0.1:443": false,
		"10.1.2.3:8443": true, "[::ffff:10.1.2.3]:443": true, "[fd00:1::5]:9000": true, "10.2.0.1:443": false,
	} {
		if got := allowed(netip.MustParseAddrPort(to), lab); got != want {
			t.Errorf("%s: %t, want %t", to, got, want)
		}
	}
}
