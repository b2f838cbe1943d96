// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

const withheld = "[withheld]"

// minSecret is the length in octets below which a secret cannot be looked for:
// it would be found everywhere.
const minSecret = 4

// withhold returns a server's answer on one line without the credential, in
// case the server repeats what it was sent: the secret as it is, in hex, and in
// base64 at any of its three alignments, so that SASL forms (PLAIN, LOGIN,
// XOAUTH2, OAUTHBEARER) are found with whatever is around the secret in them.
// broker/upstream does this as well; here it is done once more, where the
// answer becomes a record.
func withhold(answer, username string, secret []byte) string {
	if len(secret) < minSecret {
		return withheld
	}
	octets, runes := lowerASCII(answer), strings.ToLower(answer)
	for _, form := range secretForms(username, secret) {
		if strings.Contains(octets, lowerASCII(form)) || strings.Contains(runes, strings.ToLower(form)) {
			// Nothing of an answer that holds it is worth the risk.
			return withheld
		}
	}
	return oneLine(answer, maxAnswer)
}

// lowerASCII leaves octets that are not ASCII as they are: neither a secret
// nor an answer need be UTF-8, and strings.ToLower changes what is not.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func secretForms(username string, secret []byte) []string {
	forms := []string{string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + string(secret)))}
	for shift := range 3 {
		// Octets before the secret change the first symbols, those after it
		// the last: what lies between is the same whatever they are.
		padded := append(bytes.Repeat([]byte{0}, shift), secret...)
		whole := len(padded) / 3 * 4
		symbols := base64.RawStdEncoding.EncodeToString(padded)[:whole]
		if first := (shift*8 + 5) / 6; whole-first >= minSecret {
			forms = append(forms, symbols[first:], strings.NewReplacer("+", "-", "/", "_").Replace(symbols[first:]))
		}
	}
	return forms
}
