// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// FuzzDecodeCredential: whatever the body, the answer is a credential that may
// be stored, as encoding/json reads it, or one of a few texts without a cause.
func FuzzDecodeCredential(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"password","secret":"x"}`, `{"kind":"access-token","secret":"x.y","username":"u"}`,
		`{"kind":"password","secret":"\ud83d\ude00\u0000"}`, `{"kind":"password","secret":null}`, `{"Kind":"password","SECRET":"x"}`,
		`{"kind":"password","secret":"a","secret":"b"}`, `[]`, `null`, `"`, `{"secret":"\ud800"}`,
		`{"kind":"password","secret":"x","username":"u","username":null}`,
		`{"kind":"oauth2-client","document":{"version":1,"client_secret":"\u0041"}}`, `{"kind":"oauth2-refresh","document":{},"secret":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	// decodeCredential's texts: none is made from the body.
	texts := map[string]bool{}
	for _, body := range []string{
		``, `{"kind":"x","secret":"x"}`, `{"kind":"password"}`, `{"kind":"password","secret":"\u0000"}`,
		`{"kind":"access-token","secret":" "}`, `{"kind":"password","secret":"x","username":"\n"}`, `{"kind":"oauth2-client","document":[]}`,
	} {
		_, err := decodeCredential([]byte(body))
		texts[broker.PublicText(err)] = true
	}
	texts[broker.PublicText((&broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret(make([]byte, broker.MaxSecret+1))}).Validate())] = true
	f.Fuzz(func(t *testing.T, body []byte) {
		var reference struct {
			Kind     broker.CredentialKind `json:"kind"`
			Username string                `json:"username"`
			Secret   string                `json:"secret"`
			Document json.RawMessage       `json:"document"`
		}
		referenceErr := json.Unmarshal(body, &reference)
		c, err := decodeCredential(body)
		if err != nil {
			var e *broker.Error
			if !errors.As(err, &e) || e.Code != broker.Invalid || e.Cause != nil || !texts[e.Public] {
				t.Fatalf("error %#v", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		if reference.Document != nil {
			reference.Secret += string(reference.Document) // there is but one
		}
		if referenceErr != nil || c.Kind.MintsTokens() != (reference.Document != nil) || string(c.Secret.Reveal()) != reference.Secret || c.Kind != reference.Kind || c.Username != reference.Username {
			t.Fatalf("decoded %s %q %q, encoding/json has %+v, %v", c.Kind, c.Username, c.Secret.Reveal(), reference, referenceErr)
		}
	})
}
