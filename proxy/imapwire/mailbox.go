// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// DecodeMailbox returns a folder's name as readable UTF-8: modified UTF-7 (RFC
// 3501 §5.1.3) is decoded where it is well-formed, what is not stays as it is,
// and invalid UTF-8 is replaced.
func DecodeMailbox(name []byte) string {
	s, _ := ParseMailbox(name)
	return s
}

// ParseMailbox is DecodeMailbox, and tells whether the name was well-formed:
// in modified UTF-7, or in UTF-8 (RFC 6855).
func ParseMailbox(name []byte) (string, bool) {
	s := strings.ToValidUTF8(string(name), "\uFFFD")
	if s != string(name) {
		return s, false
	}
	if strings.IndexByte(s, '&') < 0 || strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return s, true
	}
	var out strings.Builder
	for rest := s; ; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			out.WriteString(rest)
			return out.String(), true
		}
		out.WriteString(rest[:i])
		end := strings.IndexByte(rest[i:], '-')
		if end < 0 {
			return s, false
		}
		encoded := rest[i+1 : i+end]
		rest = rest[i+end+1:]
		if encoded == "" {
			out.WriteByte('&')
			continue
		}
		decoded, ok := decodeUTF16(encoded)
		if !ok {
			return s, false
		}
		out.WriteString(decoded)
		if strings.HasPrefix(rest, "&") && !strings.HasPrefix(rest, "&-") {
			return s, false // one shift would have done
		}
	}
}

// utf7Alphabet is base64's with ',' in the place of '/'.
const utf7Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"

func decodeUTF16(s string) (string, bool) {
	b, err := base64.NewEncoding(utf7Alphabet).WithPadding(base64.NoPadding).Strict().DecodeString(s)
	if err != nil || len(b)%2 != 0 || len(b) == 0 {
		return "", false
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i])<<8 | uint16(b[2*i+1])
	}
	var out strings.Builder
	for _, r := range utf16.Decode(units) {
		if r == utf8.RuneError || (r >= 0x20 && r < 0x7f) { // ASCII must stand for itself
			return "", false
		}
		out.WriteRune(r)
	}
	return out.String(), true
}
