// SPDX-License-Identifier: Apache-2.0

package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/credentialstest"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/httpapi/httpapitest"
)

var errMarked = errors.New("a cause that no client may see")

const salesCredential = "/v1/mailboxes/sales@acme.example/credential"

func TestStandInKeepsTheContract(t *testing.T) {
	credentialstest.Run(t, func(*testing.T) broker.Credentials { return httpapitest.NewCredentials() })
}

func TestCredentialIsCheckedThenStored(t *testing.T) {
	c := start(t)
	c.fill()
	c.world.Upstream.Accept(`pass"wörd\ 😀`)
	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")

	c.refused("PUT", salesCredential, `{"kind":"password","secret":"wrong"}`, 422, broker.CredentialRefused)
	if v, err := c.world.Credentials.CredentialVersion(t.Context(), m.FirmID, m.ID); err != nil || v != 0 {
		t.Fatalf("a refused credential was stored: %d, %v", v, err)
	}
	// Escapes in JSON come out as the octets that they stand for.
	for version, body := range []string{
		`{"kind":"password","secret":"pass\"w\u00f6rd\\ \ud83d\ude00","username":"acme-sales"}`,
		`{ "secret" : "pass\"wörd\\ 😀", "kind" : "password" }`,
	} {
		set := ok[httpapi.CredentialSet](c, "PUT", salesCredential, body)
		if set.Version != version+1 || set.Mailbox != "sales@acme.example" {
			t.Errorf("answer %+v", set)
		}
	}
	stored, err := c.world.Credentials.Credential(t.Context(), m.FirmID, m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if string(stored.Secret.Reveal()) != `pass"wörd\ 😀` || stored.Kind != broker.KindPassword || stored.Username != "" {
		t.Errorf("stored %q for %q", stored.Secret.Reveal(), stored.Username)
	}
	shown := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")
	if shown.Credential.State != "stored" || shown.Credential.Version != 2 {
		t.Errorf("shown %+v", shown.Credential)
	}
	events := ok[httpapi.LogPage](c, "GET", "/v1/events?firm=Acme+Pumps&type=credential.set", "")
	if len(events.Items) != 2 {
		t.Errorf("%d credential.set events", len(events.Items))
	}
}

// A document is stored as it came, or as the check left it.
func TestDocumentsAreStored(t *testing.T) {
	c := start(t)
	c.fill()
	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")
	const document, next = `{ "version" : 1, "client_secret" : "a\u0062" }`, `{"version":1,"refresh_token":"next"}`
	for _, want := range []string{document, next} {
		c.world.Upstream.Accept(document)
		ok[httpapi.CredentialSet](c, "PUT", salesCredential, `{"kind":"oauth2-refresh","username":"u","document":`+document+`}`)
		stored, err := c.world.Credentials.Credential(t.Context(), m.FirmID, m.ID)
		if err != nil || string(stored.Secret.Reveal()) != want || stored.Kind != broker.KindOAuth2Refresh || stored.Username != "u" {
			t.Errorf("stored %q, %v", stored.Secret.Reveal(), err)
		}
		c.world.Upstream.HandBack(next)
	}
}

func TestOutageIsNoRefusal(t *testing.T) {
	c := start(t)
	c.fill()
	c.world.Upstream.Fail(broker.Errorf(broker.Unavailable, "imap.acme.example cannot be reached").WithCause(errMarked))
	p := c.refused("PUT", salesCredential, `{"kind":"password","secret":"x"}`, 503, broker.Unavailable)
	if strings.Contains(p.Error(), errMarked.Error()) {
		t.Errorf("the cause is in %v", p)
	}
}

func TestUnfitCredentials(t *testing.T) {
	c := start(t)
	c.fill()
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	for name, test := range map[string]struct{ body, where string }{
		"no secret":              {`{"kind":"password"}`, "#/secret"},
		"null":                   {`{"kind":"password","secret":null}`, ""},
		"NUL":                    {`{"kind":"password","secret":"a\u0000b"}`, "#/secret"},
		"too long":               {`{"kind":"password","secret":` + quoted(strings.Repeat("x", broker.MaxSecret+1)) + `}`, "#/secret"},
		"token":                  {`{"kind":"access-token","secret":"a\u0001auth=b"}`, "#/secret"},
		"kind":                   {`{"kind":"key","secret":"x"}`, "#/kind"},
		"username":               {`{"kind":"password","secret":"x","username":"a\r\nb"}`, "#/username"},
		"skipped":                {`{"kind":"password","secret":"x","skip_check":true}`, ""},
		"no document":            {`{"kind":"oauth2-client","secret":"{}"}`, ""},
		"both":                   {`{"kind":"oauth2-client","secret":"x","document":{}}`, ""},
		"document of a password": {`{"kind":"password","secret":"x","document":{}}`, ""},
		"document alone":         {`{"kind":"password","document":{}}`, ""},
		"document text":          {`{"kind":"oauth2-refresh","document":"x"}`, "#/secret"},
		"document null":          {`{"kind":"oauth2-refresh","document":null}`, ""},
		"secret array":           {`{"kind":"password","secret":["x"]}`, ""},
		"two values":             {`{"kind":"password","secret":"x"} {}`, ""},
	} {
		p := c.refused("PUT", salesCredential, test.body, 422, broker.Invalid)
		where := ""
		if len(p.Errors) > 0 {
			where = p.Errors[0].Pointer
		}
		if where != test.where {
			t.Errorf("%s: fault at %q, want %q", name, where, test.where)
		}
	}
	if probed := c.world.Upstream.Probed(); len(probed) > 0 {
		t.Errorf("an unfit credential was tried at %+v", probed)
	}
}

// TestNever1CredentialStaysOutOfAnswersLogsAndFiles sends a marked secret in
// every way that a client can get wrong, and looks for it in all that leaves
// the server and all that it keeps.
func TestNever1CredentialStaysOutOfAnswersLogsAndFiles(t *testing.T) {
	const secret = `Zk7-mArKeD-sEcReT-9x`
	c := start(t)
	c.fill()
	good := `{"kind":"password","secret":"` + secret + `"}`
	requests := []struct{ method, path, body string }{
		{"PUT", salesCredential, good},
		{"PUT", salesCredential, secret},
		{"PUT", salesCredential, `"` + secret + `"`},
		{"PUT", salesCredential, `{"kind":"password","secret":"` + secret},
		{"PUT", salesCredential, `{"kind":"password","secret":` + secret + `}`},
		{"PUT", salesCredential, `{"kind":"password","secret":["` + secret + `"]}`},
		{"PUT", salesCredential, `{"kind":"password","secret":{"` + secret + `":1}}`},
		{"PUT", salesCredential, `{"kind":"` + secret + `","secret":"x"}`},
		{"PUT", salesCredential, `{"kind":["` + secret + `"],"secret":"x"}`},
		{"PUT", salesCredential, `{"kind":"password","secret":"x","username":"\n` + secret + `"}`},
		{"PUT", salesCredential, `{"kind":"password","secret":"x","username":7,"x":"` + secret + `"}`},
		{"PUT", salesCredential, `{"` + secret + `":"password"}`},
		{"PUT", salesCredential, `{"kind":"access-token","secret":"` + secret + ` "}`},
		{"PUT", salesCredential, `{"kind":"oauth2-client","document":{"client_secret":"` + secret + `"}}`},
		{"PUT", salesCredential, `{"kind":"oauth2-client","document":{"` + secret + `":"x"}}`},
		{"PUT", salesCredential, `{"kind":"oauth2-client","document":"` + secret + `"}`},
		{"PUT", salesCredential, `{"kind":"password","document":{"client_secret":"` + secret + `"}}`},
		{"PUT", salesCredential, `{"kind":"oauth2-client","document":{"client_secret":"` + secret + `"`},
		{"PUT", salesCredential, good + good},
		{"PUT", salesCredential, `{"kind":"password","secret":"` + secret + strings.Repeat("x", httpapi.MaxBodyBytes) + `"}`},
		{"PUT", "/v1/mailboxes/nobody@acme.example/credential", good},
		{"POST", salesCredential, good},
		{"PUT", "/v1/credentials", good},
		{"PATCH", "/v1/mailboxes/sales@acme.example", good},
		{"PATCH", "/v1/mailboxes/sales@acme.example", secret},
		{"PATCH", "/v1/mailboxes/sales@acme.example", `{"max_connections":"` + secret + `"}`},
		{"POST", "/v1/mailboxes", good},
		{"POST", "/v1/firms", `{"name":["` + secret + `"]}`},
	}
	sent := func(what string) {
		for _, r := range requests {
			_, header, answer := c.do(r.method, r.path, r.body)
			wantNoSecret(t, secret, what+": answer to "+r.method+" "+r.path, append(answer, fmt.Sprint(header)...))
		}
	}
	sent("refused upstream")
	c.world.Upstream.Fail(broker.Errorf(broker.Unavailable, "out of reach").WithCause(errMarked))
	sent("upstream down")
	c.world.Upstream.Fail(nil)
	c.world.Upstream.Accept(secret)
	sent("accepted")
	c.world.Credentials.Fail(broker.Errorf(broker.Unavailable, "sealed"))
	sent("storage down")
	c.world.Credentials.Fail(nil)

	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")
	stored, err := c.world.Credentials.Credential(t.Context(), m.FirmID, m.ID)
	if err != nil || string(stored.Secret.Reveal()) != secret {
		t.Fatalf("the marked secret was never stored, so this test looked for nothing: %v", err)
	}
	for _, path := range []string{"/v1/mailboxes", "/v1/mailboxes/sales@acme.example", "/v1/events?firm=Acme+Pumps", "/v1/events"} {
		_, _, answer := c.do("GET", path, "")
		wantNoSecret(t, secret, "GET "+path, answer)
	}
	c.refused("GET", salesCredential, "", http.StatusMethodNotAllowed, broker.Invalid)
	wantNoSecret(t, secret, "log", []byte(c.world.Log.String()))
	files := 0
	err = filepath.WalkDir(c.world.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		wantNoSecret(t, secret, path, content)
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files searched: %v", files, err)
	}
}

func wantNoSecret(t *testing.T, secret, where string, text []byte) {
	t.Helper()
	if form, found := holds(text, secret); found {
		t.Errorf("%s holds the secret (%s)", where, form)
	}
}

// holds looks for the secret, plain, in base64 at any alignment, and in hex.
func holds(text []byte, secret string) (form string, found bool) {
	if strings.Contains(string(text), secret) {
		return "plain", true
	}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
		// The first and last groups depend on what stands around.
		if inner := encoded[4 : len(encoded)-4]; strings.Contains(string(text), inner) {
			return "base64", true
		}
	}
	return "hex", strings.Contains(strings.ToLower(string(text)), fmt.Sprintf("%x", secret))
}

func TestHoldsFinds(t *testing.T) {
	const secret = "Zk7-mArKeD-sEcReT-9x"
	for _, text := range []string{
		"a" + secret + "b", fmt.Sprintf("%x", secret),
		base64.StdEncoding.EncodeToString([]byte("\x00user\x00" + secret)), base64.StdEncoding.EncodeToString([]byte("xx" + secret + "yy")),
	} {
		if _, found := holds([]byte(text), secret); !found {
			t.Errorf("not found in %q", text)
		}
	}
	if form, found := holds([]byte("nothing here"), secret); found {
		t.Errorf("found as %s", form)
	}
}

// TestNever1CredentialGoesToNoOtherEndpoint: who may change a mailbox must not
// be able to have its credential sent to a server of his own.
func TestNever1CredentialGoesToNoOtherEndpoint(t *testing.T) {
	c := start(t)
	c.fill()
	c.world.Upstream.Accept("secret")
	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")
	version := func() int {
		v, err := c.world.Credentials.CredentialVersion(t.Context(), m.FirmID, m.ID)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const path = "/v1/mailboxes/sales@acme.example"
	// Nothing is stored yet: endpoints change freely.
	ok[httpapi.Mailbox](c, "PATCH", path, `{"imap":{"host":"imap1.acme.example"}}`)
	ok[httpapi.CredentialSet](c, "PUT", salesCredential, `{"kind":"password","secret":"secret"}`)
	for _, change := range []string{
		`"imap":{"host":"evil.example"}`, `"imap":{"port":1993}`, `"imap":{"tls":"starttls"}`, `"submission":{"host":"evil.example"}`,
		`"submission":{"tls":"implicit"}`,
	} {
		c.refused("PATCH", path, `{`+change+`}`, 409, broker.Conflict)
	}
	if got := ok[httpapi.Mailbox](c, "GET", path, ""); got.IMAP.Host != "imap1.acme.example" || version() != 1 {
		t.Fatalf("a refused change left %+v, version %d", got, version())
	}
	// What is no endpoint, or is as it was, leaves it alone.
	got := ok[httpapi.Mailbox](c, "PATCH", path, `{"aliases":["info@acme.example"],"username":"acme","max_connections":7,"imap":{"host":"imap1.acme.example"}}`)
	if version() != 1 || len(got.Aliases) != 1 || got.Username != "acme" || got.MaxConnections != 7 {
		t.Errorf("after an update: %+v, version %d", got, version())
	}
	// When it is not known whether one is stored, nothing changes.
	c.world.Credentials.Fail(broker.Errorf(broker.Unavailable, "sealed"))
	c.refused("PATCH", path, `{"imap":{"host":"evil.example"},"remove_credential":true}`, 503, broker.Unavailable)
	c.world.Credentials.Fail(nil)
	got = ok[httpapi.Mailbox](c, "PATCH", path, `{"imap":{"host":"imap2.acme.example","tls":"starttls"},"remove_credential":true}`)
	if got.IMAP.Host != "imap2.acme.example" || got.IMAP.Port != 143 || got.Credential.State != "none" || version() != 0 {
		t.Errorf("after an agreed change: %+v, version %d", got, version())
	}
}

// TestNever1RotationGoesToNoOtherEndpoint: with the credential goes the way of
// rotating it, else the next password would be tried at the other server.
func TestNever1RotationGoesToNoOtherEndpoint(t *testing.T) {
	c := start(t)
	c.fill()
	const path = "/v1/mailboxes/sales@acme.example"
	p := ok[httpapi.Provider](c, "POST", "/v1/providers", `{"firm":"Acme Pumps","name":"panel","driver":"test"}`)
	ok[httpapi.Mailbox](c, "PUT", path+"/rotation", `{"provider":"`+string(p.ID)+`"}`)
	c.refused("PATCH", path, `{"imap":{"host":"evil.example"}}`, 409, broker.Conflict)
	if got := ok[httpapi.Mailbox](c, "PATCH", path, `{"max_connections":7}`); got.Rotation == nil {
		t.Errorf("a change of something else left %+v", got)
	}
	if got := ok[httpapi.Mailbox](c, "PATCH", path, `{"imap":{"host":"imap2.acme.example"},"remove_credential":true}`); got.IMAP.Host != "imap2.acme.example" || got.Rotation != nil {
		t.Errorf("after an agreed change: %+v", got)
	}
	begun := ok[httpapi.List[httpapi.Rotating]](c, "POST", "/v1/rotations", `{"mailboxes":["sales@acme.example"]}`)
	if begun.Items[0].Rotation != nil || begun.Items[0].Refused == "" {
		t.Errorf("begun: %+v", begun.Items[0])
	}
}

// TestNever1KeptPasswordsGoToNoOtherEndpoint: what ended rotations have kept is tried
// before it is destroyed, and so goes with the credential: that of all of them.
func TestNever1KeptPasswordsGoToNoOtherEndpoint(t *testing.T) {
	c := start(t)
	c.fill()
	const path = "/v1/mailboxes/sales@acme.example"
	p := ok[httpapi.Provider](c, "POST", "/v1/providers", `{"firm":"Acme Pumps","name":"panel","driver":"test"}`)
	m := ok[httpapi.Mailbox](c, "PUT", path+"/rotation", `{"provider":"`+string(p.ID)+`"}`)
	var kept []broker.ID
	for _, secret := range []string{"first", "second"} {
		r := ok[httpapi.Rotation](c, "PUT", path+"/rotation/password", `{"kind":"password","secret":"`+secret+`"}`)
		kept = append(kept, c.endRotation(&r).PendingID())
	}
	left := func() (n int) {
		for _, id := range kept {
			v, err := c.world.Credentials.CredentialVersion(t.Context(), m.ID, id)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
		return n
	}
	if left() != 2 {
		t.Fatalf("%d passwords are kept", left())
	}
	ok[httpapi.Mailbox](c, "PATCH", path, `{"imap":{"host":"imap2.acme.example"},"remove_credential":true}`)
	if left() != 0 {
		t.Errorf("%d passwords were not removed", left())
	}
}

func TestRemovingAMailboxRemovesItsCredential(t *testing.T) {
	c := start(t)
	d, _, _ := c.fill()
	c.world.Upstream.Accept("secret")
	ok[httpapi.CredentialSet](c, "PUT", salesCredential, `{"kind":"password","secret":"secret"}`)
	m := ok[httpapi.Mailbox](c, "GET", "/v1/mailboxes/sales@acme.example", "")
	version := func() int {
		v, err := c.world.Credentials.CredentialVersion(t.Context(), m.FirmID, m.ID)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	// While it is delegated it stays, and so does its credential.
	c.refused("DELETE", "/v1/mailboxes/sales@acme.example", "", 409, broker.Conflict)
	if version() != 1 {
		t.Fatal("a mailbox that is in use lost its credential")
	}
	ok[httpapi.Ended](c, "POST", "/v1/delegations/"+string(d.ID)+"/revoke", "")
	if removed := ok[httpapi.MailboxRemoved](c, "DELETE", "/v1/mailboxes/sales@acme.example", ""); removed.Credential.State != "none" || version() != 0 {
		t.Errorf("removed %+v, version %d", removed, version())
	}
}
