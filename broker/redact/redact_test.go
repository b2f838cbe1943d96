// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// secret has something that each way of writing escapes.
const secret = "pa55 \"w\\rd<ü>&x"

func TestWordsHoldNoSecretInAnyForm(t *testing.T) {
	inJSON, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(strings.Trim(string(inJSON), `"`))
	for name, form := range map[string]string{
		"raw":             secret,
		"hex":             hex.EncodeToString([]byte(secret)),
		"upper hex":       strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"percent-encoded": strings.ReplaceAll(url.QueryEscape(secret), "+", "%20"),
		"JSON":            plain,
	} {
		t.Run(name, func(t *testing.T) {
			if got := Words([]byte("not "+form+" here"), 200, Forms([]byte(secret))); got != "not "+Mark+" here" {
				t.Errorf("got %q", got)
			}
			if got := Words([]byte("not "+form[:len(form)-3]), 200, Forms([]byte(secret))); got != "not "+Mark {
				t.Errorf("cut short: got %q", got)
			}
		})
	}
}

// TestWordsWithinBasic: the secret as a part of something that was encoded
// whole, such as HTTP's Basic credentials.
func TestWordsWithinBasic(t *testing.T) {
	for _, user := range []string{"a", "ab", "abc", "someone@firm.example"} {
		basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
		got := Words([]byte(basic), 200, Forms([]byte(secret)))
		if !strings.Contains(got, Mark) || strings.Contains(got, base64.StdEncoding.EncodeToString([]byte(secret[3:9]))) {
			t.Errorf("%s: got %q", user, got)
		}
	}
}

func TestNoSecretNoForms(t *testing.T) {
	if got := Words([]byte("as it is"), 200, Forms(nil)); got != "as it is" {
		t.Errorf("got %q", got)
	}
}

func FuzzWords(f *testing.F) {
	f.Add(secret, "not here", uint8(0))
	f.Add("a\x00b\x01cdef", "\xff", uint8(3))
	f.Fuzz(func(t *testing.T, secret, words string, form uint8) {
		if len(secret) < ShortestEcho || strings.Contains(secret, "?") {
			return
		}
		forms := Forms([]byte(secret))
		words += string(forms[int(form)%len(forms)])
		got := Words([]byte(words), 200, forms)
		if len(got) > 200 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%d octets: %q", len(got), got)
		}
		if rest := strings.ReplaceAll(got, Mark, "\n"); strings.Contains(rest, secret) {
			t.Fatalf("%q holds %q", got, secret)
		}
	})
}
