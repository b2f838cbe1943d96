// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// billing's credential mints access tokens.
const billing = "billing@client.example"

// setMinting stores a consent of billing's, after some that are not taken: the
// issuer repeats in its errors all that it was sent.
func setMinting(t *testing.T, o *outlets, w *e2e.World, issuer *servers.Issuer, client *secret) {
	t.Helper()
	flags := []string{"mailbox", "set-credential", billing, "--kind", "oauth2-refresh", "--client-id", "app", "--token-url", issuer.TokenURL()}
	refresh := func() *secret { return asSecret(billing, issuer.Consent("app", billing)) }
	document := func(refresh string) string {
		return fmt.Sprintf(`{"kind":"oauth2-refresh","document":{"version":1,"id":"c","token_url":%q,"client_id":"app","client_secret":%q,"refresh_token":%q}}`,
			issuer.TokenURL(), client.text, refresh)
	}
	unknown := newSecret(t, billing, "n0-such-")
	lost := refresh()
	o.secrets = append(o.secrets, unknown, lost)
	o.cli(w.Postern, unknown.text+"\n", flags...) // the client proves nothing
	const path = "/v1/mailboxes/" + billing + "/credential"
	for _, body := range []string{
		document(unknown.text),
		strings.Replace(document(lost.text), "token_url", "token_uri", 1),
		strings.Replace(document(lost.text), `"version":1`, `"version":2`, 1),
		strings.Replace(document(lost.text), "document", "secret", 1),
		strings.Replace(document(lost.text), `"client_id":"app"`, `"client_id":["`+client.text+`"]`, 1),
		strings.Replace(document(lost.text), `"id":"c"`, `"`+client.text+`":"`+lost.text+`"`, 1),
		strings.Replace(document(lost.text), issuer.TokenURL(), "https://"+client.mark+".example/"+lost.mark+"#x", 1),
		document(lost.text)[:60+len(client.text)],
	} {
		if status := o.api(w.Postern, http.MethodPut, path, "application/json", body); status < 400 {
			t.Errorf("%.60s… was taken: %d", body, status)
		}
	}
	good := refresh()
	o.secrets = append(o.secrets, good)
	if status := o.api(w.Postern, http.MethodPut, path, "application/json", document(good.text)); status != http.StatusOK {
		t.Fatalf("a consent was not taken: %d", status)
	}
}

// asSecret makes a secret of a token that an issuer made.
func asSecret(user, token string) *secret {
	return &secret{user: user, text: token, mark: token[max(0, len(token)-40):], forms: spellings(user, token)}
}

// in is the same secret in some of its forms.
func (s *secret) in(forms ...string) *secret {
	some := &secret{user: s.user, text: s.text, mark: s.mark, forms: make(map[string][]byte)}
	for _, name := range forms {
		some.forms[name] = s.forms[name]
	}
	return some
}

// issuedTo is the newest token of a kind.
func issuedTo(issuer *servers.Issuer, kind string) *secret {
	var newest string
	for _, token := range issuer.Issued() {
		if strings.HasPrefix(token, servers.TokenMark+kind) {
			newest = token
		}
	}
	return asSecret(billing, newest)
}

// consentWithdrawn: what an agent, the record and the log are told of it.
func consentWithdrawn(t *testing.T, o *outlets, w *e2e.World, s *e2e.Seat, issuer *servers.Issuer) {
	t.Helper()
	issuer.Withdraw(billing)
	issuer.RevokeTokens()
	w.Postern.Restart()
	for range 2 {
		c, answer := tryLogin(t, s)
		wantPrefix(t, "a login", answer, "NO [CONTACTADMIN] The firm's consent ")
		o.client(c)
		m, _ := tryAuth(t, s)
		o.client(m)
	}
	o.checkClients()
}
