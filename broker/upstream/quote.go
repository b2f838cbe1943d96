// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// shortestEcho is the length from which a part of the credential is cut
	// out of a server's words, so that one cut short does not slip through.
	shortestEcho = 5
	// consideredWords bounds what is searched; what is quoted is far less.
	consideredWords = 1 << 10
	cutOut          = "[redacted]"
)

// quote returns a server's words fit for a log: without the credential, raw or
// in any form in which it was sent, without control characters, and at most
// maxWords octets of UTF-8.
func (c *credentials) quote(words []byte) string {
	words = words[:min(len(words), consideredWords)]
	forms := c.forms()
	defer func() {
		for _, f := range forms {
			clear(f)
		}
	}()
	var b strings.Builder
	for i := 0; i < len(words) && b.Len() <= maxWords; {
		if n := longestEcho(words[i:], forms); n > 0 {
			b.WriteString(cutOut)
			i += n
			continue
		}
		r, size := utf8.DecodeRune(words[i:])
		switch {
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r), echoWithin(words[i:], size, forms):
			b.WriteByte('?')
			size = 1 // the octets behind may begin an echo
		default:
			b.WriteRune(r)
		}
		i += size
	}
	return cut(b.String(), maxWords)
}

// cut shortens s to n octets, at a rune's border.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// echoWithin reports whether an echo begins behind the first octet of a rune
// that words begin with: a secret need be no UTF-8, and what stands before it
// may make a rune of its first octets.
func echoWithin(words []byte, size int, forms [][]byte) bool {
	for i := 1; i < size; i++ {
		if longestEcho(words[i:], forms) > 0 {
			return true
		}
	}
	return false
}

// longestEcho returns how many octets at the start of words are a part of one
// of the forms, if those are enough to matter, or the whole of one.
func longestEcho(words []byte, forms [][]byte) int {
	longest := 0
	for _, form := range forms {
		n := min(shortestEcho, len(form))
		if len(words) < n || !bytes.Contains(form, words[:n]) {
			continue
		}
		for n < len(words) && bytes.Contains(form, words[:n+1]) {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}

// forms returns the secret as a server may have seen it, or may write it: raw,
// quoted as in an IMAP string, in base64 of its own, within the SASL messages,
// in base64 at each of the three alignments that some other message would give
// it, and in hex. They are copies, which the caller wipes.
func (c *credentials) forms() [][]byte {
	secret := c.secret.Reveal()
	forms := [][]byte{bytes.Clone(secret), appendQuoted(make([]byte, 0, 2*len(secret)+2), secret)}
	// Without the quotes around it.
	forms[1] = forms[1][1 : len(forms[1])-1]
	inHex := hex.AppendEncode(make([]byte, 0, 2*len(secret)), secret)
	forms = append(forms, inHex, bytes.ToUpper(inHex))
	for _, message := range [][]byte{bytes.Clone(secret), c.plain(), c.oauthBearer(), c.xoauth2()} {
		forms = append(forms, encode(message))
	}
	for shift := 1; shift <= 2; shift++ {
		shifted := encode(append(make([]byte, shift, shift+len(secret)), secret...))
		// The first group and the last hold bits of what stands beside it.
		first, last := 4, len(shifted)-4
		if last-first >= shortestEcho {
			forms = append(forms, shifted[first:last])
		} else {
			clear(shifted)
		}
	}
	return forms
}

// appendQuoted appends s as an IMAP quoted string (RFC 9051 §4.3).
func appendQuoted(b, s []byte) []byte {
	b = append(b, '"')
	for _, octet := range s {
		if octet == '"' || octet == '\\' {
			b = append(b, '\\')
		}
		b = append(b, octet)
	}
	return append(b, '"')
}
