// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mediaValue is the value of Content-Type or Content-Disposition (RFC 2045
// §5.1, RFC 2183), read more strictly than readers do: what two of them could
// read differently is an error.
type mediaValue struct {
	kind   string // in lower case, such as text/plain or attachment
	params map[string]mediaParam
}

type mediaParam struct {
	value   string
	escaped bool // a backslash stood in it
}

var (
	errMediaSyntax = errors.New("its syntax is not that of RFC 2045")
	errMediaTwice  = errors.New("a parameter stands there twice")
	errMediaParts  = errors.New("a parameter in pieces or in a charset (RFC 2231) is malformed, or must not be one")
)

// parseMediaValue reads an unfolded value; typed wants type/subtype. Comments
// are refused: many readers do not know them here.
func parseMediaValue(s string, typed bool) (*mediaValue, error) {
	s = strings.Trim(s, " \t")
	kind, s := cutToken(s)
	if typed {
		var sub string
		if !strings.HasPrefix(s, "/") {
			return nil, errMediaSyntax
		}
		if sub, s = cutToken(s[1:]); sub == "" {
			return nil, errMediaSyntax
		}
		kind += "/" + sub
	}
	if kind == "" || kind[0] == '/' {
		return nil, errMediaSyntax
	}
	v := &mediaValue{kind: asciiLower(kind), params: make(map[string]mediaParam)}
	for {
		if s = strings.TrimLeft(s, " \t"); s == "" {
			break
		}
		if s[0] != ';' {
			return nil, errMediaSyntax
		}
		if s = strings.TrimLeft(s[1:], " \t"); s == "" {
			break // a last semicolon that means nothing
		}
		var name string
		if name, s = cutToken(s); name == "" || !strings.HasPrefix(s, "=") {
			return nil, errMediaSyntax
		}
		p, rest, ok := cutParam(s[1:])
		if !ok {
			return nil, errMediaSyntax
		}
		name, s = asciiLower(name), rest
		if _, twice := v.params[name]; twice {
			return nil, errMediaTwice
		}
		v.params[name] = p
	}
	// What decides how a part is read must have one spelling.
	for name := range v.params {
		if base, _, pieces := strings.Cut(name, "*"); pieces && (base == "boundary" || base == "charset" || base == "format" || base == "delsp") {
			return nil, errMediaParts
		}
	}
	return v, nil
}

// cutToken takes a token (RFC 2045 §5.1) off the front.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && s[n] > ' ' && s[n] <= '~' && strings.IndexByte(`()<>@,;:\"/[]?=`, s[n]) < 0 {
		n++
	}
	return s[:n], s[n:]
}

// cutParam takes a parameter's value off the front.
func cutParam(s string) (p mediaParam, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		p.value, rest = cutToken(s)
		return p, rest, p.value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			p.value = b.String()
			return p, s[i+1:], utf8.ValidString(p.value)
		case s[i] == '\\':
			if i++; i == len(s) {
				return p, "", false
			}
			p.escaped = true
		}
		b.WriteByte(s[i])
	}
	return p, "", false
}

// fileNames returns every name that a reader could give the part by the
// parameter, which is name or filename: as it stands, as encoded words, which
// some write there, and in the ways of RFC 2231.
func (v *mediaValue) fileNames(base string) (names []string, err error) {
	if v == nil {
		return nil, nil
	}
	if p, ok := v.params[base]; ok {
		names = append(names, p.value)
		decoded, err := decodeWordsStrictly(p.value)
		if err != nil {
			return nil, err
		}
		if decoded != p.value {
			names = append(names, decoded)
		}
	}
	if p, ok := v.params[base+"*"]; ok {
		name, err := decodeExtended(p.value)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	pieces := make(map[int]string)
	for _, key := range slices.Sorted(maps.Keys(v.params)) {
		piece, ok := strings.CutPrefix(key, base+"*")
		if !ok || piece == "" {
			continue
		}
		digits, extended := strings.CutSuffix(piece, "*")
		n, err := strconv.Atoi(digits)
		if err != nil || strconv.Itoa(n) != digits || n < 0 {
			return nil, errMediaParts
		}
		if _, twice := pieces[n]; twice {
			return nil, errMediaTwice
		}
		value := v.params[key].value
		if !extended { // as if it were, so that all are decoded together
			value = strings.ReplaceAll(url.PathEscape(value), "'", "%27")
		}
		if n == 0 && !extended {
			value = "utf-8''" + value
		}
		pieces[n] = value
	}
	if len(pieces) == 0 {
		return names, nil
	}
	var all strings.Builder
	for n := range len(pieces) {
		piece, ok := pieces[n]
		if !ok {
			return nil, errMediaParts
		}
		all.WriteString(piece)
	}
	name, err := decodeExtended(all.String())
	if err != nil {
		return nil, err
	}
	return append(names, name), nil
}

// has reports whether the parameter is there in any spelling.
func (v *mediaValue) has(base string) bool {
	if v == nil {
		return false
	}
	for key := range v.params {
		if key == base || strings.HasPrefix(key, base+"*") {
			return true
		}
	}
	return false
}

// decodeExtended decodes charset'language'percent-encoded (RFC 2231 §4).
func decodeExtended(s string) (string, error) {
	charset, rest, ok := strings.Cut(s, "'")
	_, encoded, ok2 := strings.Cut(rest, "'")
	if !ok || !ok2 || strings.Contains(encoded, "'") {
		return "", errMediaParts
	}
	raw, err := url.PathUnescape(encoded)
	if err != nil {
		return "", errMediaParts
	}
	return decodeCharset(charset, raw)
}
