// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
)

var (
	errNotOneAddress = errors.New("it must hold exactly one address, as in Name <address>, without comments or groups")
	errNotOwn        = errors.New("it must be one of this mailbox's own addresses")
	errEncodedWord   = errors.New("its display name is encoded in a way that readers disagree on")
	errDisplayName   = errors.New("its display name shows an address that is not this mailbox's")
)

// parseSender reads the value of From, Sender or Resent-From: one mailbox
// (RFC 5322 §3.4), an own one, whose display name does not pose as another.
// With an error it returns the address too, where there is one.
func parseSender(value string, own func(Address) bool, international bool) (Address, error) {
	a, display, err := parseMailbox(strings.Trim(value, " \t"), international)
	switch {
	case err != nil:
		return Address{}, err
	case !own(a):
		return a, errNotOwn
	}
	return a, checkDisplayName(display, own)
}

// parseMailbox takes "local@domain" or "phrase <local@domain>". Comments,
// groups, routes, and blanks inside an address are RFC 5322's to allow and
// readers' to disagree on: refused.
func parseMailbox(s string, international bool) (a Address, display string, err error) {
	if a, err := ParseAddress(s, international); err == nil {
		return a, "", nil
	}
	var words []string
	for {
		s = strings.TrimLeft(s, " \t")
		switch {
		case s == "":
			return Address{}, "", errNotOneAddress
		case s[0] == '<':
			a, rest, err := scanAddress(s[1:], international)
			if err != nil {
				return Address{}, "", err
			}
			if rest != ">" {
				return Address{}, "", errNotOneAddress
			}
			return a, strings.Join(words, " "), nil
		}
		var word string
		if s[0] == '"' {
			word, s, err = scanQuotedWord(s, international)
		} else {
			word, s, err = scanWord(s, international)
		}
		if err != nil {
			return Address{}, "", err
		}
		words = append(words, word)
	}
}

// scanQuotedWord reads a quoted-string of a phrase (RFC 5322 §3.2.4). Encoded
// words inside are not to be decoded (RFC 2047 §5), but some readers do.
func scanQuotedWord(s string, international bool) (word, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			word, err = decodeWords(b.String())
			return word, s[i+1:], err
		case c == '\\':
			i++
			if i == len(s) || s[i] != '\t' && (s[i] < ' ' || s[i] > '~') {
				return "", "", errNotOneAddress
			}
			b.WriteByte(s[i])
		case c >= utf8.RuneSelf && !international:
			return "", "", errNotASCII
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errNotOneAddress
}

// scanWord reads an atom, or an encoded word, which is made of the same
// letters; dots are taken too (obs-phrase), since names have them.
func scanWord(s string, international bool) (word, rest string, err error) {
	end := 0
	for end < len(s) {
		r, n := utf8.DecodeRuneInString(s[end:])
		if r != '.' && !isAtomRune(r, n) {
			break
		}
		if r >= utf8.RuneSelf && !international {
			return "", "", errNotASCII
		}
		end += n
	}
	if end == 0 || end < len(s) && s[end] != ' ' && s[end] != '\t' && s[end] != '<' && s[end] != '"' {
		return "", "", errNotOneAddress
	}
	word, err = decodeWords(s[:end])
	return word, s[end:], err
}

// decodeWords decodes RFC 2047's encoded words as a lenient reader would. What
// looks like one and cannot be decoded is refused.
func decodeWords(s string) (string, error) {
	if !strings.Contains(s, "=?") {
		return s, nil
	}
	decoder := mime.WordDecoder{CharsetReader: charset.Reader}
	decoded, err := decoder.DecodeHeader(s)
	if err != nil || strings.Contains(decoded, "=?") || !utf8.ValidString(decoded) {
		return "", errEncodedWord
	}
	return decoded, nil
}

// checkDisplayName refuses a name that a reader, or a sloppy parser, could
// take for another's address, and what reverses or breaks the line it is
// shown on.
func checkDisplayName(name string, own func(Address) bool) error {
	if strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsControl(r) && r != '\t' || r == '<' || r == '>' || unicode.Is(unicode.Bidi_Control, r)
	}) {
		return errEncodedWord
	}
	name = strings.ReplaceAll(strings.ReplaceAll(name, "＠", "@"), "﹫", "@")
	for _, word := range strings.FieldsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune(`"'(),;:[]`, r)
	}) {
		local, domain, found := strings.Cut(word, "@")
		if !found || local == "" || !strings.Contains(domain, ".") {
			continue
		}
		a, err := ParseAddress(strings.TrimRight(word, "."), true)
		if err != nil || !own(a) {
			return errDisplayName
		}
	}
	return nil
}
