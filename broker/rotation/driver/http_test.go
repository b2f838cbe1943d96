// SPDX-License-Identifier: Apache-2.0

package driver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation/driver"
	"github.com/postern-mail/postern/broker/rotation/driver/drivertest"
	"github.com/postern-mail/postern/test/servers"
)

// documented reads settings that are delivered with Postern.
func documented(t testing.TB, product string) json.RawMessage {
	t.Helper()
	b, err := os.ReadFile("../../../deployments/providers/" + product + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// panelChange is a change of a mailbox of its own at a panel.
func panelChange(t testing.TB, p *panel, ca *servers.CA, settings json.RawMessage) *broker.PasswordChange {
	t.Helper()
	c := newChange()
	p.add(c.Mailbox.Address)
	c.Account = &broker.ProviderAccount{Username: "api", Secret: secret(panelSecret)}
	c.Provider = with(t, with(t, settings, "ca", string(ca.PEM)), "url", panelURL(settings, p.port()))
	return c
}

// panelURL keeps the path of the documented one.
func panelURL(settings json.RawMessage, port uint16) string {
	var s struct{ URL string }
	_ = json.Unmarshal(settings, &s)
	_, path, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), "/")
	return strings.TrimSuffix(fmt.Sprintf("https://localhost:%d/%s", port, path), "/")
}

func TestHTTP(t *testing.T) {
	ca := servers.NewCA(t)
	for _, product := range []struct {
		name    string
		serve   func(*panel, http.ResponseWriter, *http.Request)
		atOnce  bool
		noRules bool // about passwords that it would refuse
	}{
		{"mailcow", mailcow, true, false},
		{"cpanel", cpanel, true, false},
		{"migadu", migadu, true, false},
		{"mailu", mailu, true, true},
		{"stalwart", stalwart, false, false},
		{"zimbra", zimbra, false, true},
	} {
		t.Run(product.name, func(t *testing.T) {
			d := newDriver(t, driver.NameHTTP, driver.Config{})
			p := startPanel(t, ca, product.serve)
			settings := documented(t, product.name)
			if err := d.Check(settings, nil); err != nil {
				t.Fatalf("what is delivered: %v", err)
			}
			refusals := map[string]drivertest.Refusal{
				"the account": {Reason: broker.DriverAccountRefused, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.Account.Secret = secret("not-the-5ecret-of-the-panel")
				}},
				"no account": {Reason: broker.DriverMisconfigured, Alter: func(_ *testing.T, c *broker.PasswordChange) { c.Account = nil }},
				"no such mailbox": {Reason: broker.DriverUnknownMailbox, Alter: func(_ *testing.T, c *broker.PasswordChange) {
					m := *c.Mailbox
					m.Address, c.Mailbox = "nobody@firm.example", &m
				}},
				"a name that climbs": {Alter: func(_ *testing.T, c *broker.PasswordChange) {
					m := *c.Mailbox
					m.Address, c.Mailbox = "../"+m.Address, &m
				}},
			}
			if !product.noRules {
				refusals["the password"] = drivertest.Refusal{Reason: broker.DriverPasswordPolicy, Words: "assword", Alter: func(_ *testing.T, c *broker.PasswordChange) {
					c.New = secret("tiny-1")
				}}
			}
			drivertest.Run(t, func(t *testing.T) *drivertest.Provider {
				return &drivertest.Provider{
					Driver: d, CA: ca, AnySettings: true, Refusals: refusals, AskedAtOnce: product.atOnce,
					Mailbox: func(t *testing.T) *broker.PasswordChange { return panelChange(t, p, ca, settings) },
					Opens: func(_ *testing.T, c *broker.PasswordChange, password string) bool {
						return p.opens(c.Mailbox.Address, password)
					},
					InDoubt: func(t *testing.T, c *broker.PasswordChange) error {
						p.mu.Lock()
						p.cut[c.Mailbox.Address] = true
						p.mu.Unlock()
						return d.Set(t.Context(), c)
					},
					At: func(c *broker.PasswordChange, port uint16) {
						c.Provider = with(t, c.Provider, "url", fmt.Sprintf("https://localhost:%d", port))
					},
					Flood: []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[{\"type\":\""),
				}
			})
		})
	}
}

// TestHTTPZimbraSetsWhatItComplainsOf: a message about the rules is no refusal.
func TestHTTPZimbraSetsWhatItComplainsOf(t *testing.T) {
	ca := servers.NewCA(t)
	p := startPanel(t, ca, zimbra)
	c := panelChange(t, p, ca, documented(t, "zimbra"))
	c.New = secret("tiny-1")
	if err := newDriver(t, driver.NameHTTP, driver.Config{}).Set(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !p.opens(c.Mailbox.Address, "tiny-1") {
		t.Error("it was not set")
	}
}

func TestHTTPInspects(t *testing.T) {
	ca := servers.NewCA(t)
	d := newDriver(t, driver.NameHTTP, driver.Config{})
	for product, serve := range map[string]func(*panel, http.ResponseWriter, *http.Request){"mailcow": mailcow, "mailu": mailu} {
		p := startPanel(t, ca, serve)
		c := panelChange(t, p, ca, documented(t, product))
		found, err := d.(broker.Inspector).Inspect(t.Context(), c)
		if err != nil {
			t.Fatalf("%s: %v", product, err)
		}
		got := slices.Concat(found.AppPasswords, found.ForwardingRules)
		if want := map[string][]string{"mailcow": {"phone of " + c.Mailbox.Address, "scanner"}, "mailu": {"out@elsewhere.example"}}[product]; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", product, got, want)
		}
		c.Account.Secret = secret("not-the-5ecret-of-the-panel")
		_, err = d.(broker.Inspector).Inspect(t.Context(), c)
		drivertest.NoSecrets(t, err, c)
		drivertest.WantError(t, err, broker.NotApplied, broker.DriverAccountRefused)
		drivertest.WantError(t, d.(broker.Kicker).Kick(t.Context(), c), broker.NotApplied, broker.DriverMisconfigured)
	}
}

// TestHTTPFollowsNoRedirect: the account's secret would go with it.
func TestHTTPFollowsNoRedirect(t *testing.T) {
	ca := servers.NewCA(t)
	thief := startPanel(t, ca, func(_ *panel, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		p := startPanel(t, ca, func(_ *panel, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.server.URL+r.URL.Path, status)
		})
		c := panelChange(t, p, ca, documented(t, "mailcow"))
		drivertest.WantError(t, newDriver(t, driver.NameHTTP, driver.Config{}).Set(t.Context(), c), broker.OutcomeUnknown, broker.DriverUnavailable)
	}
	if thief.asked > 0 {
		t.Error("the request went on to another host")
	}
}

// TestHTTPEscapes: a name or a password with everything that its place escapes
// arrives as it is.
func TestHTTPEscapes(t *testing.T) {
	ca := servers.NewCA(t)
	const local, password = `a b+c%2f/d?e#f&g="h"\i{new}`, "p \"a\\ss{{&<>=;ü\u2028%00"
	var path, form, body, header string
	p := startPanel(t, ca, func(_ *panel, w http.ResponseWriter, r *http.Request) {
		path, header = r.URL.Path, r.Header.Get("X-Name")
		if r.URL.Path == "/form" {
			form = r.FormValue("password")
		} else {
			var asked map[string]string
			if read(r, &asked) {
				body = asked["k"+local]
			}
		}
		w.WriteHeader(http.StatusNoContent)
	})
	done := []any{object{"status": []int{204}, "means": "done"}}
	c := newChange()
	c.Mailbox.Address, c.New = local+"@firm.example", secret(password)
	c.Provider = encode(t, object{"url": fmt.Sprintf("https://localhost:%d", p.port()), "ca": string(ca.PEM), "steps": []any{
		object{"method": "POST", "path": "/form", "form": object{"password": "{new}"}, "answers": done},
		object{"method": "PUT", "path": "/of/{local}/x", "headers": object{"X-Name": "{local}"}, "json": object{"k{local}": "{{{new}"}, "answers": done},
	}})
	if err := newDriver(t, driver.NameHTTP, driver.Config{}).Set(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if path != "/of/"+local+"/x" || form != password || body != "{"+password || header != local {
		t.Errorf("got %q, %q, %q, %q", path, form, body, header)
	}
}

func TestHTTPSettings(t *testing.T) {
	d := newDriver(t, driver.NameHTTP, driver.Config{})
	step := func(name string, value any) object {
		s := object{"method": "POST", "path": "/x", "json": object{"p": "{new}"}, "answers": []any{object{"status": []int{200}, "means": "done"}}}
		s[name] = value
		return s
	}
	for name, s := range map[string]object{
		"a method":                 step("method", "DELETE"),
		"a path":                   step("path", "x"),
		"a query in the path":      step("path", "/x?y=1"),
		"a secret in the path":     step("path", "/x/{new}"),
		"a secret in the query":    step("query", object{"p": "{account.secret}"}),
		"a name":                   step("json", object{"p": "{nothing}"}),
		"a brace":                  step("json", object{"p": "{new"}),
		"two bodies":               step("form", object{"p": "{new}"}),
		"no answers":               step("answers", []any{}),
		"a meaning":                step("answers", []any{object{"means": "perhaps"}}),
		"an expression":            step("answers", []any{object{"means": "done", "when": []any{object{"at": "/x", "matches": "("}}}}),
		"a secret in a pointer":    step("answers", []any{object{"means": "done", "words": "/{new}"}}),
		"a capture that is a name": step("capture", object{"local": "/x"}),
	} {
		wantField(t, d.Check(encode(t, object{"url": "https://p.example", "steps": []any{s}}), nil), "provider.steps[0]", name)
	}
	for _, u := range []string{"", "http://p.example", "https://", "https://u:p@p.example", "https://p.example/?x", "ftp://p.example"} {
		wantField(t, d.Check(encode(t, object{"url": u, "steps": []any{step("path", "/x")}}), nil), "provider.url", u)
	}
	wantField(t, d.Check(encode(t, object{"url": "https://p.example"}), nil), "provider.steps", "no steps")
}
