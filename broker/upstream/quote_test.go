// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

func testCredentials(secret string) *credentials {
	return &credentials{kind: broker.KindPassword, user: address, secret: broker.NewSecret([]byte(secret)), host: "mail.example", port: 993}
}

func TestQuoteCutsOutTheCredential(t *testing.T) {
	login := plainPayload(marked)
	tests := []struct {
		name, secret, words, want string
	}{
		{"nothing to cut", marked, "wrong password", "wrong password"},
		{"raw", marked, "no " + marked + " here", "no [redacted] here"},
		{"quoted", marked, `LOGIN x "mArKeD-p4ss \"w\\qd"`, `LOGIN x "[redacted]"`},
		{"base64", marked, "got " + encoded(marked), "got [redacted]"},
		{"SASL PLAIN", marked, "got " + login + " from you", "got [redacted] from you"},
		{"SASL PLAIN cut short", marked, "got " + login[:len(login)-7], "got [redacted]"},
		{"the end of SASL PLAIN", marked, "got ..." + login[len(login)-20:], "got ...[redacted]"},
		{"hex", marked, "got " + hex.EncodeToString([]byte(marked)), "got [redacted]"},
		{"upper hex", marked, "got " + strings.ToUpper(hex.EncodeToString([]byte(marked))), "got [redacted]"},
		{"twice", marked, marked + marked, "[redacted][redacted]"},
		{"cut short", marked, "no mArKeD-p4", "no [redacted]"},
		{"a short one", "abc", "xabcx", "x[redacted]x"},
		{"controls", marked, "a\x07b\x1b[2Jc\x7f\xffd", "a?b?[2Jc??d"},
		{"line separators", marked, "a\u2028b", "a???b"},
		{"within a rune", "\x84\x84\"q\\", "no \xe6\x84\x84\"q\\ here", "no ?[redacted] here"},
		{"behind half a rune", "\x80\x80secret", "\xe2\x80\x80secret", "?[redacted]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := testCredentials(test.secret).quote([]byte(test.words)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestQuoteIsShort(t *testing.T) {
	got := testCredentials(marked).quote([]byte(strings.Repeat("ü", 5000)))
	if len(got) > maxWords || !utf8.ValidString(got) {
		t.Errorf("%d octets: %q", len(got), got)
	}
}

// An upstream that repeats the password must not get it into our logs.
func TestUpstreamEchoingThePasswordIsSilenced(t *testing.T) {
	echoes := []string{marked, encoded(marked), plainPayload(marked), "x " + plainPayload(marked)[:50]}
	for _, echo := range echoes {
		_, err := openIMAP(t, broker.TLSNone, password(marked), plainOffer+
			"C: TAG AUTHENTICATE PLAIN "+plainPayload(marked)+"\nS: TAG NO [AUTHENTICATIONFAILED] not "+echo)
		wantError(t, err, broker.CredentialRefused, ReasonRefused, marked)
		_, err = openSubmission(t, broker.TLSNone, password(marked), smtpPlainOffer+
			"C: AUTH PLAIN "+plainPayload(marked)+"\nS: 535 not "+echo)
		wantError(t, err, broker.CredentialRefused, ReasonRefused, marked)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("secret", "no secret here", uint8(0))
	f.Add("se\x00cret", "no \xffsecret", uint8(3))
	f.Add(`q"q\`, `"q\"q\\"`, uint8(2))
	f.Fuzz(func(t *testing.T, secret, words string, form uint8) {
		if len(secret) < redact.ShortestEcho {
			return
		}
		c := testCredentials(secret)
		switch form % 4 {
		case 1:
			words += base64.StdEncoding.EncodeToString([]byte(secret))
		case 2:
			words += string(encode(c.plain()))
		case 3:
			words += secret
		}
		got := c.quote([]byte(words))
		if len(got) > maxWords || !utf8.ValidString(got) {
			t.Fatalf("%d octets: %q", len(got), got)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("not printable: %q", got)
		}
		// What is printed in place of something could itself be the secret.
		rest := strings.ReplaceAll(got, redact.Mark, "\n")
		if !strings.Contains(secret, "?") && strings.Contains(rest, secret) {
			t.Fatalf("%q holds %q", got, secret)
		}
	})
}
