// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The limits of RFC 5321 §4.5.3.1, in octets: a path is 256 with its brackets.
const (
	maxLocalPart = 64
	maxDomain    = 255
	maxAddress   = 254
)

// Address is a mailbox (RFC 5321 §4.1.2) in one canonical spelling: the
// local part is quoted when it must be and not otherwise, so that two
// spellings of one address are equal and what is written on a wire means to
// its reader what was judged here. The zero value is no address.
type Address struct {
	wire string // as it goes on the wire
	utf8 bool   // SMTPUTF8 is needed
}

// String returns the canonical spelling, without angle brackets.
func (a Address) String() string { return a.wire }

// IsZero reports whether there is no address.
func (a Address) IsZero() bool { return a.wire == "" }

// Key is what own addresses are compared by: ASCII letters in lower case,
// and those alone, since Unicode's lower case of U+212A is the letter k.
func (a Address) Key() string { return asciiLower(a.wire) }

func asciiLower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

var (
	errLocalPart = errors.New("the local part is malformed")
	errDomain    = errors.New("the domain is malformed")
	errTooLong   = errors.New("the address is too long")
	errNotASCII  = errors.New("the address is not ASCII, and SMTPUTF8 was not asked for")
)

// ParseAddress accepts exactly one mailbox and nothing around it: no source
// route, no comment, no folding. International addresses (RFC 6531) are
// accepted when international is set.
func ParseAddress(s string, international bool) (Address, error) {
	a, rest, err := scanAddress(s, international)
	if err == nil && rest != "" {
		err = errDomain
	}
	if err != nil {
		return Address{}, err
	}
	return a, nil
}

// scanAddress reads a mailbox from the front of s, up to the first octet that
// cannot belong to it.
func scanAddress(s string, international bool) (Address, string, error) {
	local, rest, err := scanLocalPart(s)
	if err != nil {
		return Address{}, "", err
	}
	if rest == "" || rest[0] != '@' {
		return Address{}, "", errLocalPart
	}
	domain, rest, err := scanDomain(rest[1:])
	if err != nil {
		return Address{}, "", err
	}
	wire := quoteLocalPart(local) + "@" + domain
	if len(local) > maxLocalPart || len(domain) > maxDomain || len(wire) > maxAddress {
		return Address{}, "", errTooLong
	}
	a := Address{wire: wire, utf8: !isASCII(wire)}
	if a.utf8 && !international {
		return Address{}, "", errNotASCII
	}
	return a, rest, nil
}

// scanLocalPart returns the local part without its quoting.
func scanLocalPart(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		return scanQuotedString(s)
	}
	end := 0
	for end < len(s) {
		r, n := utf8.DecodeRuneInString(s[end:])
		if r != '.' && !isAtomRune(r, n) {
			break
		}
		end += n
	}
	local = s[:end]
	if !isDotString(local) {
		return "", "", errLocalPart
	}
	return local, s[end:], nil
}

// scanQuotedString reads RFC 5321's Quoted-string: no control characters and
// no folding, inside or escaped.
func scanQuotedString(s string) (content, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"':
			if b.Len() == 0 {
				return "", "", errLocalPart
			}
			return b.String(), s[i+1:], nil
		case r == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return "", "", errLocalPart
			}
			b.WriteByte(s[i])
			i++
			continue
		case r < ' ' || r == 0x7f || r >= 0x80 && !isTextRune(r, n):
			return "", "", errLocalPart
		}
		b.WriteString(s[i : i+n])
		i += n
	}
	return "", "", errLocalPart
}

// quoteLocalPart writes a local part as RFC 5321 §4.1.2 wants it: as a
// Dot-string where it is one, else quoted with the least escaping.
func quoteLocalPart(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if local[i] == '"' || local[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString reports whether s is atoms joined by single dots.
func isDotString(s string) bool {
	atom := false
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '.':
			if !atom {
				return false
			}
			atom = false
		case isAtomRune(r, n):
			atom = true
		default:
			return false
		}
		i += n
	}
	return atom
}

// scanDomain reads a domain name or an address literal.
func scanDomain(s string) (domain, rest string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || !isAddressLiteral(s[1:end]) {
			return "", "", errDomain
		}
		return s[:end+1], s[end+1:], nil
	}
	end := 0
	for end < len(s) {
		r, n := utf8.DecodeRuneInString(s[end:])
		if r != '.' && r != '-' && !isLabelRune(r, n) {
			break
		}
		end += n
	}
	for label := range strings.SplitSeq(s[:end], ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", "", errDomain
		}
	}
	return s[:end], s[end:], nil
}

// isAddressLiteral takes IPv4 and IPv6 (RFC 5321 §4.1.3); no other tag is
// registered.
func isAddressLiteral(s string) bool {
	const tag = "IPv6:"
	if len(s) > len(tag) && strings.EqualFold(s[:len(tag)], tag) {
		ip, err := netip.ParseAddr(s[len(tag):])
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	ip, err := netip.ParseAddr(s)
	return err == nil && ip.Is4()
}

// isAtomRune reports RFC 5321's atext, or RFC 6531's addition to it. n is the
// rune's length: 1 with RuneError is a broken octet.
func isAtomRune(r rune, n int) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	case r < 0x80:
		return r > ' ' && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", byte(r)) >= 0
	}
	return isTextRune(r, n)
}

// isLabelRune takes letters and digits of ASCII, and U-labels' (RFC 5890).
func isLabelRune(r rune, n int) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return true
	case r < 0x80:
		return false
	}
	return isTextRune(r, n) && (unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r))
}

// isTextRune takes what is outside ASCII and visible: no controls, no line
// separators, no direction marks, no spaces, no broken octets.
func isTextRune(r rune, n int) bool {
	if r == utf8.RuneError && n == 1 {
		return false
	}
	return r >= 0x80 && unicode.IsGraphic(r) && !unicode.IsSpace(r)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
