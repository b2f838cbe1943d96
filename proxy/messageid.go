// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"errors"
)

// MaxPlainHeader is the longest header that PlainMessageID reads, in octets.
const MaxPlainHeader = 64 << 10

var (
	errPlainHeader = errors.New("its header is longer than is read, or its lines are not header fields that end in CR LF")
	errMessageID   = errors.New("its header has not exactly one well-formed Message-ID")
)

// PlainMessageID returns the Message-ID of a header, which may end with its
// empty line. It takes only what every reader reads alike: fields by the letter
// of RFC 5322 whose lines end in CR LF, and one Message-ID among them. What
// records a message and what looks for it in a record both use it.
func PlainMessageID(header []byte) (id string, err error) {
	if len(header) > MaxPlainHeader {
		return "", errPlainHeader
	}
	for len(header) > 0 && !bytes.Equal(header, []byte("\r\n")) {
		name, value, rest, ok := cutField(header)
		if !ok {
			return "", errPlainHeader
		}
		header = rest
		if !bytes.EqualFold(name, []byte("Message-ID")) {
			continue
		}
		if value = bytes.Trim(value, " \t\r\n"); id != "" || !isMessageID(value) {
			return "", errMessageID
		}
		id = string(value)
	}
	if id == "" {
		return "", errMessageID
	}
	return id, nil
}

// cutField takes a field with its folded lines off the front.
func cutField(header []byte) (name, value, rest []byte, ok bool) {
	for end := 0; ; {
		n := bytes.IndexByte(header[end:], '\n')
		if n < 1 || bytes.IndexByte(header[end:end+n], '\r') != n-1 || bytes.IndexByte(header[end:end+n], 0) >= 0 {
			return nil, nil, nil, false
		}
		if end > 0 && len(bytes.Trim(header[end:end+n-1], " \t")) == 0 {
			return nil, nil, nil, false // a blank line to some, a folded one to others
		}
		end += n + 1
		if end < len(header) && (header[end] == ' ' || header[end] == '\t') {
			continue
		}
		name, value, ok = bytes.Cut(header[:end], []byte(":"))
		for _, c := range name {
			ok = ok && c > ' ' && c <= '~'
		}
		return name, value, header[end:], ok && len(name) > 0
	}
}

// isMessageID reports <left@right> without anything that has two spellings.
func isMessageID(b []byte) bool {
	if len(b) < 5 || len(b) > 900 || b[0] != '<' || b[len(b)-1] != '>' || bytes.Count(b, []byte("@")) != 1 {
		return false
	}
	for _, c := range b[1 : len(b)-1] {
		if c <= ' ' || c > '~' || c == '<' || c == '>' || c == '"' || c == '\\' || c == '(' || c == ')' {
			return false
		}
	}
	return true
}
