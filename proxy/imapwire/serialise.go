// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"bytes"
	"strconv"
)

// Writer serialises commands into memory that it reuses.
type Writer struct {
	buf    []byte
	breaks []int
}

// Bytes returns what was written and not yet reset.
func (w *Writer) Bytes() []byte { return w.buf }

// Breaks returns the offsets in Bytes after which the sender must wait for a
// continuation request before it goes on: behind each buffered literal's
// announcement. Behind a Stream's, which ends what Args writes, it must as well.
func (w *Writer) Breaks() []int { return w.breaks }

// Reset forgets what was written, and gives memory back that a long command
// took.
func (w *Writer) Reset() {
	if cap(w.buf) > keepArena {
		w.buf = nil
	}
	w.buf, w.breaks = w.buf[:0], w.breaks[:0]
}

// Raw appends octets as they are: Postern's own commands, never a client's.
func (w *Writer) Raw(s string) { w.buf = append(w.buf, s...) }

// Head writes tag and name.
func (w *Writer) Head(tag, name []byte) {
	w.buf = append(w.buf, tag...)
	w.buf = append(w.buf, ' ')
	w.buf = append(w.buf, name...)
}

// Args writes the command's tokens from index from on, up to and including
// the announcement of the next Stream literal, or to the end and CRLF. It
// returns the index of the token after.
//
// Buffered literals that hold only what a quoted string may are written as
// quoted strings: the same value, without a round trip. All others are
// announced as synchronising ones, however the client announced them: a server
// that refuses a command for what stands before a literal, and does not know
// or does not heed that the octets come all the same, would take them for its
// next command.
func (w *Writer) Args(c *Command, from int) int {
	for i := from; i < len(c.tokens); i++ {
		t := c.tokens[i]
		if t.Space {
			w.buf = append(w.buf, ' ')
		}
		switch t.Kind {
		case Atom:
			w.buf = append(w.buf, c.Value(t)...)
		case Quoted:
			w.quoted(c.Value(t))
		case Literal:
			v := c.Value(t)
			if !t.Binary && quotable(v) {
				w.quoted(v)
				continue
			}
			w.announce(t)
			w.breaks = append(w.breaks, len(w.buf))
			w.buf = append(w.buf, v...)
		case Stream:
			w.announce(t)
			return i + 1
		case Open:
			w.buf = append(w.buf, '(')
		case Close:
			w.buf = append(w.buf, ')')
		}
	}
	w.buf = append(w.buf, '\r', '\n')
	return len(c.tokens)
}

func (w *Writer) announce(t Token) {
	if t.Binary {
		w.buf = append(w.buf, '~')
	}
	w.buf = append(w.buf, '{')
	w.buf = strconv.AppendInt(w.buf, t.size, 10)
	w.buf = append(w.buf, '}', '\r', '\n')
}

func (w *Writer) quoted(v []byte) {
	w.buf = append(w.buf, '"')
	if bytes.IndexByte(v, '"') < 0 && bytes.IndexByte(v, '\\') < 0 {
		w.buf = append(w.buf, v...)
	} else {
		for _, b := range v {
			if b == '"' || b == '\\' {
				w.buf = append(w.buf, '\\')
			}
			w.buf = append(w.buf, b)
		}
	}
	w.buf = append(w.buf, '"')
}

// quotable reports whether a literal's value may be sent as a quoted string:
// printable ASCII and at most 1,000 octets.
func quotable(v []byte) bool {
	if len(v) > 1000 {
		return false
	}
	for _, b := range v {
		if b < 0x20 || b > 0x7e {
			return false
		}
	}
	return true
}
