// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// ShortestEcho is the length from which a part of a secret is cut out, so
	// that one cut short does not slip through. A secret that is shorter is cut
	// out whole.
	ShortestEcho = 5
	// Mark stands where something was cut out.
	Mark = "[redacted]"
	// considered bounds what is searched; what is quoted is far less.
	considered = 1 << 10
)

// Words returns words without the forms, whole or in part, without control
// characters, and as at most limit octets of UTF-8.
func Words(words []byte, limit int, forms [][]byte) string {
	words = words[:min(len(words), considered)]
	var b strings.Builder
	for i := 0; i < len(words) && b.Len() <= limit; {
		if n := longestEcho(words[i:], forms); n > 0 {
			b.WriteString(Mark)
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
	return cut(b.String(), limit)
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
		n := min(ShortestEcho, len(form))
		if n == 0 || len(words) < n || !bytes.Contains(form, words[:n]) {
			continue
		}
		for n < len(words) && bytes.Contains(form, words[:n+1]) {
			n++
		}
		longest = max(longest, n)
	}
	return longest
}

// Forms returns a secret as somebody who was told it may write it: raw, in hex,
// in base64 of its own and at each of the alignments that some other message
// would give it, percent-encoded, and in a JSON string. They are copies, which
// the caller wipes.
func Forms(secret []byte) [][]byte {
	if len(secret) == 0 {
		return nil
	}
	inHex := hex.AppendEncode(make([]byte, 0, 2*len(secret)), secret)
	forms := [][]byte{bytes.Clone(secret), inHex, bytes.ToUpper(inHex), encoded(secret)}
	for shift := 1; shift <= 2; shift++ {
		message := append(make([]byte, shift, shift+len(secret)), secret...)
		shifted := encoded(message)
		clear(message)
		// The first group and the last hold bits of what stands beside it.
		first, last := 4, len(shifted)-4
		if last-first >= ShortestEcho {
			forms = append(forms, shifted[first:last])
		} else {
			clear(shifted)
		}
	}
	for _, escape := range []func([]byte, byte) []byte{percent, jsonString} {
		escaped := make([]byte, 0, 6*len(secret))
		for _, octet := range secret {
			escaped = escape(escaped, octet)
		}
		if bytes.Equal(escaped, secret) {
			clear(escaped)
			continue
		}
		forms = append(forms, escaped)
	}
	return forms
}

func encoded(b []byte) []byte {
	return base64.StdEncoding.AppendEncode(make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))), b)
}

// percent escapes all but the unreserved characters (RFC 3986 §2.3).
func percent(b []byte, octet byte) []byte {
	if octet >= 'a' && octet <= 'z' || octet >= 'A' && octet <= 'Z' || octet >= '0' && octet <= '9' || strings.IndexByte("-._~", octet) >= 0 {
		return append(b, octet)
	}
	return fmt.Appendf(b, "%%%02X", octet)
}

// jsonString escapes what a JSON string cannot hold as it is (RFC 8259 §7).
func jsonString(b []byte, octet byte) []byte {
	switch {
	case octet == '"', octet == '\\':
		return append(b, '\\', octet)
	case octet < ' ':
		return fmt.Appendf(b, "\\u%04x", octet)
	}
	return append(b, octet)
}
