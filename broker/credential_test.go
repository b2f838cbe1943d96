// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestCredentialsThatNoLoginCanCarry: what would end a field of a SASL message,
// or cannot be part of one, is refused before it is stored or sent.
func TestCredentialsThatNoLoginCanCarry(t *testing.T) {
	const password, token = broker.KindPassword, broker.KindAccessToken
	const client, refresh, google = broker.KindOAuth2Client, broker.KindOAuth2Refresh, broker.KindGoogleServiceAccount
	for _, test := range []struct {
		name             string
		kind             broker.CredentialKind
		username, secret string
		field            string // empty: it is good
	}{
		{"password", password, "", "x", ""},
		{"password of many scripts", password, "jürgen", "pässwörd 密码 😀", ""},
		{"password with line ends and other controls", password, "", "\ta\r\n\x01\x7f", ""},
		{"password that is no UTF-8", password, "", "\xff\xfe", ""},
		{"longest password", password, "", strings.Repeat("x", broker.MaxSecret), ""},
		{"NUL at the start", password, "", "\x00x", "secret"},
		{"NUL at the end", password, "", "x\x00", "secret"},
		{"no password", password, "", "", "secret"},
		{"password too long", password, "", strings.Repeat("x", broker.MaxSecret+1), "secret"},
		{"token", token, "", "eyJhbGciOi.J9-._~+/==!~", ""},
		{"NUL in a token", token, "", "a\x00b", "secret"},
		{"control-A in a token", token, "", "a\x01auth=Bearer b", "secret"},
		{"space in a token", token, "", "a b", "secret"},
		{"line end in a token", token, "", "a\n", "secret"},
		{"DEL in a token", token, "", "a\x7f", "secret"},
		{"a token in other letters", token, "", "tökén", "secret"},
		{"a token that is no UTF-8", token, "", "a\xff", "secret"},
		{"a client's document", client, "", `{"version":1}`, ""},
		{"a consent's document", refresh, "", `{}`, ""},
		{"an account's document", google, "boss@firm.example", `{"a":"b"}`, ""},
		{"no document", client, "", "s3cret", "secret"},
		{"an array", refresh, "", "[]", "secret"},
		{"half a document", google, "", `{"a":`, "secret"},
		{"two documents", client, "", "{}{}", "secret"},
		{"no kind", "", "", "x", "kind"},
		{"unknown kind", "key", "", "x", "kind"},
		{"line end in the login name", password, "a\r\nb", "x", "username"},
		{"NUL in the login name", password, "a\x00b", "x", "username"},
		{"login name that is no UTF-8", password, "\xff", "x", "username"},
		{"login name too long", password, strings.Repeat("u", broker.MaxUsername+1), "x", "username"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &broker.Credential{Kind: test.kind, Username: test.username, Secret: broker.NewSecret([]byte(test.secret))}
			err := c.Validate()
			if test.field == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var e *broker.Error
			if !errors.As(err, &e) || e.Code != broker.Invalid || e.Field != test.field {
				t.Fatalf("error %v, want Invalid of %s", err, test.field)
			}
			if len(test.secret) > 1 && strings.Contains(e.Error(), test.secret) {
				t.Errorf("the secret is in %q", e)
			}
		})
	}
}
