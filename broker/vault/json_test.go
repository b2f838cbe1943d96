// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// FuzzOctets: a JSON string decodes to the octets that encoding/json makes of
// it, and what is no string is an error that does not quote it.
func FuzzOctets(f *testing.F) {
	for _, s := range []string{
		`"plain"`, `""`, `null`, `5`, `{"a":"b"}`, `["x"]`, `true`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\u20AC"`, `"\ud83d\ude00"`,
		`"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ude00\ud83d"`, `"\ud83d\ud83d\ude00"`, "\"\xff\xfe\"", "\"\xed\xa0\x80\"",
		"\"" + strings.Repeat("\xff", 100) + "\"", "\"" + strings.Repeat(`\u0001`, 50) + "\"", `"\u0000"`, ` "x" `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var got octets
		err := json.Unmarshal(in, &got)
		var want *string
		wantErr := json.Unmarshal(in, &want)
		switch {
		case (err == nil) != (wantErr == nil):
			t.Fatalf("%q: error %v, encoding/json: %v", in, err, wantErr)
		case err == nil && (want == nil) != (got == nil):
			t.Fatalf("%q: got %q, want %v", in, got, want)
		case err == nil && want != nil && string(got) != *want:
			t.Fatalf("%q: got %q, want %q", in, got, *want)
		}
	})
}

// FuzzDecodeCredential: no answer makes it panic, or return both a credential
// and an error, or a credential that could not have been stored.
func FuzzDecodeCredential(f *testing.F) {
	for _, s := range []string{
		`{"data":{"data":{"kind":"password","secret":"p"},"metadata":{"version":3}}}`,
		`{"data":{"data":{"kind":"access-token","username":"u","secret_base64":"/w=="},"metadata":{"version":3}}}`,
		`{"data":{"data":null}}`, `{"data":null}`, `{}`, `{"data":{"data":{"secret":5}}}`, `{"data":{"data":{"SECRET":"a","secret":"b"}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := decodeCredential(bytes.Clone(in))
		if (c == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", in, c, err)
		}
		if c != nil && c.Validate() != nil {
			t.Fatalf("%q: an unfit credential: %v", in, c.Validate())
		}
		if err != nil && broker.CodeOf(err) == broker.Internal {
			t.Fatalf("%q: %v", in, err)
		}
	})
}

// TestEncodeDecode: the body of a write is JSON that KV version 2 would store
// such that it can be read again; and no buffer was outgrown on the way.
func TestEncodeDecode(t *testing.T) {
	for _, secret := range []string{"x", "\x01\r\n\xff\"\\", strings.Repeat("s", broker.MaxSecret)} {
		c := &broker.Credential{Kind: broker.KindPassword, Username: "a\"b<é>", Secret: broker.NewSecret([]byte(secret))}
		body, err := encodeCredential(c, 7, "the-marker")
		if err != nil {
			t.Fatal(err)
		}
		if len(body) != cap(body) && cap(body)-len(body) > 8 {
			t.Errorf("%d octets in a buffer of %d", len(body), cap(body))
		}
		var wrote struct {
			Options struct{ CAS int }
			Data    json.RawMessage
		}
		if err := json.Unmarshal(body, &wrote); err != nil || wrote.Options.CAS != 7 {
			t.Fatalf("%v: %.100s", err, body)
		}
		got, err := decodeCredential(fmt.Appendf(nil, `{"data":{"data":%s,"metadata":{"version":8}}}`, wrote.Data))
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != c.Kind || got.Username != c.Username || string(got.Secret.Reveal()) != secret || got.Version != 8 {
			t.Errorf("got %+v", got)
		}
	}
}

// TestAnswersAreWiped: what decodeCredential returns shares nothing with the
// answer, so that the answer can be wiped.
func TestAnswersAreWiped(t *testing.T) {
	for _, answer := range []string{
		`{"data":{"data":{"secret":"kept"},"metadata":{"version":1}}}`,
		`{"data":{"data":{"secret_base64":"a2VwdA=="},"metadata":{"version":1}}}`,
	} {
		b := []byte(answer)
		c, err := decodeCredential(b)
		if err != nil {
			t.Fatal(err)
		}
		clear(b)
		if got := c.Secret.Reveal(); string(got) != "kept" {
			t.Errorf("got %q after the answer was wiped", got)
		}
	}
}
