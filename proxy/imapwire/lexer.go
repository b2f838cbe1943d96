// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// SyntaxError says why a line is not a command.
type SyntaxError struct {
	// Text is for the client; it quotes nothing of the line.
	Text string
	// Fatal says that it is not certain where the next command begins: the
	// connection must be closed.
	Fatal bool
}

// Error returns the text.
func (e *SyntaxError) Error() string { return e.Text }

func bad(format string, args ...any) error {
	return &SyntaxError{Text: fmt.Sprintf(format, args...)}
}

// Lexer turns lines and literals into commands, one at a time. The zero value
// is ready for use.
type Lexer struct {
	cmd      Command
	depth    int
	buffered int64
	started  bool
	// section says that an atom has opened a '[' that is not closed yet.
	section bool
}

// Reset forgets the command, and gives memory back that a long one took.
func (l *Lexer) Reset() {
	l.cmd.mem = l.cmd.mem[:0]
	l.cmd.tokens = l.cmd.tokens[:0]
	if cap(l.cmd.mem) > keepArena {
		l.cmd.mem = nil
	}
	if cap(l.cmd.tokens) > keepArena/16 {
		l.cmd.tokens = nil
	}
	l.cmd.tag, l.cmd.name = Token{}, Token{}
	l.depth, l.buffered, l.started, l.section = 0, 0, false, false
}

// Command returns what was lexed so far. The tag is there as soon as the
// first line had a valid one, even when Line returned an error: a BAD can then
// bear it. An empty tag calls for "*".
func (l *Lexer) Command() *Command { return &l.cmd }

// Line lexes the next line of a command, CRLF included: the first after a
// Reset, or what follows a literal. It returns true when the command is
// complete, false when the last token is a literal whose octets come next; the
// caller then passes them to AddLiteral, or calls StreamLiteral and lets them
// by. The line's memory is not kept. Errors are *SyntaxError.
func (l *Lexer) Line(line []byte) (done bool, err error) {
	n := len(line)
	if n < 2 || line[n-2] != '\r' || line[n-1] != '\n' {
		return false, &SyntaxError{Text: "lines end in CRLF", Fatal: true}
	}
	body := line[:n-2]
	done, err = l.line(body)
	if err != nil && len(body) > 0 && body[len(body)-1] == '}' {
		// It might be a literal's announcement, with octets to follow.
		err.(*SyntaxError).Fatal = true
	}
	return done, err
}

func (l *Lexer) line(s []byte) (bool, error) {
	if i := bytes.IndexAny(s, "\r\n\x00"); i >= 0 {
		return false, &SyntaxError{Text: "CR, LF or NUL within a line", Fatal: true}
	}
	i := 0
	if !l.started {
		var err error
		if i, err = l.head(s); err != nil {
			return false, err
		}
		l.started = true
	}
	return l.args(s, i)
}

// head lexes tag and name, and returns where the arguments begin.
func (l *Lexer) head(s []byte) (int, error) {
	i := 0
	for i < len(s) && classes[s[i]]&classTag != 0 {
		i++
	}
	if i == 0 || i > MaxTag || i == len(s) || s[i] != ' ' {
		return 0, bad("a command begins with a tag of at most %d characters, and a space", MaxTag)
	}
	l.cmd.tag = l.add(Atom, false, s[:i])
	i++
	start := i
	for i < len(s) && (isAlnum(s[i]) || s[i] == '-' || s[i] == '.') {
		i++
	}
	if i == start || i-start > 32 || (i < len(s) && s[i] != ' ') {
		return 0, bad("a command's name follows the tag")
	}
	l.cmd.name = l.add(Atom, false, s[start:i])
	upper(l.cmd.mem[l.cmd.name.start:l.cmd.name.end])
	return i, nil
}

// args lexes tokens from s[i:], which is what follows a name, or a literal.
func (l *Lexer) args(s []byte, i int) (bool, error) {
	for i < len(s) {
		space := s[i] == ' '
		if space {
			i++
			if i == len(s) {
				return false, bad("a space at the end of the line")
			}
		}
		if err := l.adjacent(s[i], space); err != nil {
			return false, err
		}
		if len(l.cmd.tokens) >= MaxTokens {
			return false, bad("more than %d arguments", MaxTokens)
		}
		switch c := s[i]; {
		case c == '(':
			if l.depth++; l.depth > MaxDepth {
				return false, bad("parentheses nested deeper than %d", MaxDepth)
			}
			l.push(Token{Kind: Open, Space: space})
			i++
		case c == ')':
			if l.depth--; l.depth < 0 {
				return false, bad("a parenthesis closes that was not opened")
			}
			l.push(Token{Kind: Close})
			i++
		case c == '"':
			n, err := l.quoted(s[i:], space)
			if err != nil {
				return false, err
			}
			i += n
		case c == '{' || c == '~' && i+1 < len(s) && s[i+1] == '{':
			return false, l.announce(s[i:], space)
		default:
			n, class := i, uint8(0)
			for n < len(s) && classes[s[n]]&classAtom != 0 {
				class |= classes[s[n]]
				n++
			}
			if n == i {
				return false, bad("a character that must be quoted or sent as a literal")
			}
			t := l.add(Atom, space, s[i:n])
			t.Special = class&classSpecial != 0
			l.push(t)
			if b := bytes.LastIndexAny(s[i:n], "[]"); b >= 0 {
				l.section = s[i+b] == '['
			}
			i = n
		}
	}
	if l.depth != 0 {
		return false, bad("a parenthesis is not closed")
	}
	return true, nil
}

// adjacent checks what may stand next to the last token, given the next
// token's first character.
func (l *Lexer) adjacent(c byte, space bool) error {
	if space {
		if c == ' ' {
			return bad("two spaces in a row")
		}
		if c == ')' || (len(l.cmd.tokens) > 0 && l.cmd.tokens[len(l.cmd.tokens)-1].Kind == Open) {
			return bad("a space inside a parenthesis")
		}
		return nil
	}
	if len(l.cmd.tokens) == 0 {
		return bad("a space is missing")
	}
	last := l.cmd.tokens[len(l.cmd.tokens)-1].Kind
	switch {
	case last == Open:
		return nil
	case c == ')':
		return nil
	case last == Close && c == ']' && l.section:
		return nil // BODY[HEADER.FIELDS (…)]
	}
	return bad("a space is missing between arguments")
}

// quoted lexes a quoted string at the head of s and returns its length.
func (l *Lexer) quoted(s []byte, space bool) (int, error) {
	start := len(l.cmd.mem)
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			if !utf8.Valid(l.cmd.mem[start:]) {
				return 0, bad("a quoted string that is not UTF-8")
			}
			l.push(Token{Kind: Quoted, Space: space, start: uint32(start), end: uint32(len(l.cmd.mem))})
			return i + 1, nil
		case c == '\\':
			i++
			if i == len(s) || (s[i] != '"' && s[i] != '\\') {
				return 0, bad("only \\\" and \\\\ may be escaped")
			}
			l.cmd.mem = append(l.cmd.mem, s[i])
		case classes[c]&classQuoted != 0:
			l.cmd.mem = append(l.cmd.mem, c)
		default:
			return 0, bad("a control character in a quoted string")
		}
	}
	return 0, bad("a quoted string does not end")
}

// announce lexes {n}, {n+}, ~{n} or ~{n+}, which must end the line.
func (l *Lexer) announce(s []byte, space bool) error {
	t := Token{Kind: Stream, Space: space}
	if s[0] == '~' {
		t.Binary = true
		s = s[1:]
	}
	s = s[1:]
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		if t.size = t.size*10 + int64(s[i]-'0'); t.size > MaxLiteral {
			return &SyntaxError{Text: "a literal that is too large", Fatal: true}
		}
		i++
	}
	digits := i
	if i < len(s) && s[i] == '+' {
		t.NonSync = true
		i++
	}
	if digits == 0 || i+1 != len(s) || s[i] != '}' {
		return &SyntaxError{Text: "a malformed literal", Fatal: true}
	}
	l.push(t)
	return nil
}

// Pending returns the literal that Line stopped at.
func (l *Lexer) Pending() Token { return l.cmd.tokens[len(l.cmd.tokens)-1] }

// BufferLiteral makes room for the pending literal's octets in the command
// and returns it for the caller to fill. It is a fatal *SyntaxError when the
// command would hold more than MaxBuffered.
func (l *Lexer) BufferLiteral() ([]byte, error) {
	t := &l.cmd.tokens[len(l.cmd.tokens)-1]
	if l.buffered += t.size; l.buffered > MaxBuffered {
		return nil, &SyntaxError{Text: "literals that are too large for this command", Fatal: true}
	}
	start := len(l.cmd.mem)
	l.cmd.mem = append(l.cmd.mem, make([]byte, t.size)...)
	t.Kind, t.start, t.end = Literal, uint32(start), uint32(len(l.cmd.mem))
	return l.cmd.mem[start:], nil
}

// CheckLiteral is called once the buffered literal was filled: RFC 9051
// allows no NUL in a literal that is not a literal8.
func (l *Lexer) CheckLiteral() error {
	t := l.Pending()
	if !t.Binary && bytes.IndexByte(l.cmd.Value(t), 0) >= 0 {
		return &SyntaxError{Text: "NUL in a literal", Fatal: true}
	}
	return nil
}

func (l *Lexer) push(t Token) { l.cmd.tokens = append(l.cmd.tokens, t) }

func (l *Lexer) add(k Kind, space bool, v []byte) Token {
	start := len(l.cmd.mem)
	l.cmd.mem = append(l.cmd.mem, v...)
	return Token{Kind: k, Space: space, start: uint32(start), end: uint32(len(l.cmd.mem))}
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func upper(s []byte) {
	for i, c := range s {
		if c >= 'a' && c <= 'z' {
			s[i] = c - 32
		}
	}
}
