// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"io"
	"strings"
)

// headerSniffer finds the Message-ID in a message's header as it passes by. It
// looks at the first octets of each line only, and allocates nothing until it
// has found one.
type headerSniffer struct {
	// active says that what is written is a header.
	active bool
	state  sniffState
	seen   int
	n      int
	name   [len(messageIDField)]byte
	value  []byte
	id     string
}

var _ io.Writer = (*headerSniffer)(nil)

const messageIDField = "message-id:"

type sniffState uint8

const (
	sniffName  sniffState = iota // in the first octets of a line
	sniffSkip                    // in a line that is something else
	sniffValue                   // in the value
	sniffFold                    // behind the value's line: folded or over
	sniffDone
)

func (s *headerSniffer) reset() {
	value := s.value[:0]
	if cap(value) > 1024 {
		value = nil
	}
	*s = headerSniffer{value: value}
}

// found returns the Message-ID if it has passed as a whole; what is still
// passing goes on.
func (s *headerSniffer) found() string { return s.id }

// messageID ends the search and returns what was found, at most 998 octets,
// without white space around it.
func (s *headerSniffer) messageID() string {
	if s.state == sniffValue || s.state == sniffFold {
		s.finish()
	}
	return s.id
}

// finish ends the search: what was found is unfolded.
func (s *headerSniffer) finish() {
	s.state = sniffDone
	v := s.value[:0]
	for _, c := range s.value {
		if c == ' ' || (c >= '\t' && c <= '\r') {
			if len(v) > 0 && v[len(v)-1] != ' ' {
				v = append(v, ' ')
			}
			continue
		}
		v = append(v, c)
	}
	s.id = strings.ToValidUTF8(string(bytes.TrimSuffix(v, []byte(" "))), "\uFFFD")
	s.value = s.value[:0]
}

// Write looks at the next octets.
func (s *headerSniffer) Write(b []byte) (int, error) {
	n := len(b)
	if !s.active || s.state == sniffDone {
		return n, nil
	}
	// How the octets come in pieces must not matter.
	b = b[:min(n, maxHeaderSniff-s.seen)]
	s.seen += len(b)
	for len(b) > 0 && s.state != sniffDone {
		b = b[s.step(b):]
	}
	return n, nil
}

// step consumes at least one octet, unless it is over.
func (s *headerSniffer) step(b []byte) int {
	switch s.state {
	case sniffName:
		c := b[0]
		switch {
		case c == '\n':
			if s.n == 0 || (s.n == 1 && s.name[0] == '\r') {
				s.state = sniffDone
			}
			s.n = 0
			return 1
		case s.n == 0 && c != 'M' && c != 'm' && c != '\r':
			s.state = sniffSkip
			return 1
		}
		s.name[s.n] = c
		if s.n++; s.n == len(s.name) {
			s.n = 0
			s.state = sniffSkip
			if bytes.EqualFold(s.name[:], []byte(messageIDField)) {
				s.state = sniffValue
			}
		}
		return 1
	case sniffSkip:
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return len(b)
		}
		s.state, s.n = sniffName, 0
		return i + 1
	case sniffValue:
		i := bytes.IndexByte(b, '\n')
		used := i + 1
		if i < 0 {
			i, used = len(b), len(b)
		} else {
			s.state = sniffFold
		}
		s.value = append(s.value, b[:min(i, max(0, 998-len(s.value)))]...)
		return used
	case sniffFold:
		if b[0] == ' ' || b[0] == '\t' {
			s.state = sniffValue
			return 1
		}
		s.finish()
	}
	return len(b)
}
