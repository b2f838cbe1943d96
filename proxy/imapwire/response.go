// SPDX-License-Identifier: Apache-2.0

package imapwire

import "bytes"

// ResponseKind is what kind of response a line begins.
type ResponseKind uint8

// The kinds of responses.
const (
	// ResponseData is untagged data: its lines may end in literals.
	ResponseData ResponseKind = iota
	// ResponseFetch is untagged FETCH.
	ResponseFetch
	// ResponseStatus is untagged OK, NO, BAD, BYE or PREAUTH: text to CRLF,
	// which holds no literal whatever it looks like (RFC 9051 §9, resp-text).
	ResponseStatus
	// ResponseTagged is a tagged OK, NO or BAD.
	ResponseTagged
	// ResponseContinue is a continuation request.
	ResponseContinue
	// ResponseBroken follows no grammar.
	ResponseBroken
)

// Response is the head of a response line.
type Response struct {
	Kind ResponseKind
	// Tag is set for ResponseTagged.
	Tag []byte
	// Keyword is the word that tells what it is: OK, FETCH, CAPABILITY, …; as
	// the server wrote it.
	Keyword []byte
	// Number is the message number or count before the keyword; else 0.
	Number uint32
	// Len is the octets up to the end of the keyword.
	Len int
}

// MaxResponseHead is how many octets suffice for ParseResponse, when no CRLF
// comes before.
const MaxResponseHead = 128

// ParseResponse reads the head of the response at the head of b, which holds
// either a whole line or at least MaxResponseHead octets. What it returns
// points into b. It tolerates several spaces.
func ParseResponse(b []byte) Response {
	if b[0] == '+' {
		return Response{Kind: ResponseContinue, Len: 1}
	}
	i := word(b, 0)
	if i == 0 || i >= len(b) || b[i] != ' ' {
		return Response{Kind: ResponseBroken}
	}
	first := b[:i]
	start := spaces(b, i)
	i = word(b, start)
	if i == start {
		return Response{Kind: ResponseBroken}
	}
	r := Response{Keyword: b[start:i], Len: i}
	if !endsWord(b, i) {
		return Response{Kind: ResponseBroken}
	}
	if len(first) != 1 || first[0] != '*' {
		r.Kind, r.Tag = ResponseTagged, first
		if !r.Is("OK") && !r.Is("NO") && !r.Is("BAD") || opens(b, i) {
			r.Kind = ResponseBroken
		}
		return r
	}
	if n, ok := number(r.Keyword); ok {
		start = spaces(b, i)
		if i = word(b, start); i == start || !endsWord(b, i) {
			return Response{Kind: ResponseBroken}
		}
		r.Number, r.Keyword, r.Len = n, b[start:i], i
		if r.Is("FETCH") {
			r.Kind = ResponseFetch
		}
		return r
	}
	if r.Is("OK") || r.Is("NO") || r.Is("BAD") || r.Is("BYE") || r.Is("PREAUTH") {
		r.Kind = ResponseStatus
		if opens(b, i) {
			r.Kind = ResponseBroken
		}
	}
	return r
}

// opens reports whether a parenthesis stands right behind a word. Behind a
// status it would hide the code that a looser reader may find further on.
func opens(b []byte, i int) bool { return i < len(b) && b[i] == '(' }

// Is compares the keyword, which must be given in upper case.
func (r *Response) Is(keyword string) bool { return equalFold(r.Keyword, keyword) }

func word(b []byte, i int) int {
	for i < len(b) && b[i] > ' ' && b[i] != '(' {
		i++
	}
	return i
}

// endsWord reports whether a keyword may end at b[i]: behind any other control
// character a looser reader could go on where a stricter one does not.
func endsWord(b []byte, i int) bool {
	return i == len(b) || b[i] == ' ' || b[i] == '(' || b[i] == '\r'
}

func spaces(b []byte, i int) int {
	for i < len(b) && b[i] == ' ' {
		i++
	}
	return i
}

func number(b []byte) (uint32, bool) {
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<32 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), len(b) > 0 && n <= 0xffffffff
}

// Code splits the response code from a resp-text: for "[UIDNEXT 5] text" it
// returns "UIDNEXT", "5" and "text". Without a code, name is empty. What begins
// like a code and is none is left out of rest: a reader that is less strict
// could take it for one.
func Code(text []byte) (name, args, rest []byte) {
	i := blanks(text)
	if i == len(text) || text[i] != '[' {
		return nil, nil, text[i:]
	}
	end := codeEnd(text[i:])
	if end < 0 {
		return nil, nil, nil
	}
	// A blank before the name is no grammar, and no disguise.
	inner := bytes.TrimLeft(text[i+1:i+end], " ")
	if len(inner) == 0 {
		return nil, nil, nil
	}
	rest = text[i+end+1:]
	rest = rest[blanks(rest):]
	if sp := bytes.IndexByte(inner, ' '); sp >= 0 {
		return inner[:sp], inner[sp+1:], rest
	}
	return inner, nil, rest
}

// blanks returns how many octets of b a reader might skip before a code.
func blanks(b []byte) int {
	i := 0
	for i < len(b) && b[i] <= ' ' {
		i++
	}
	return i
}

// codeEnd finds the ']' that ends a code: not one within a quoted string.
func codeEnd(b []byte) int {
	quote, escape := false, false
	for i, c := range b {
		switch {
		case escape:
			escape = false
		case quote && c == '\\':
			escape = true
		case c == '"':
			quote = !quote
		case c == ']' && !quote:
			return i
		}
	}
	return -1
}

// TrailingLiteral returns the size of the literal that a line of untagged
// data announces at its end; line has its CRLF. It returns -1 when there is
// none, and more than MaxLiteral when its size is absurd.
func TrailingLiteral(line []byte) int64 {
	n := len(line) - 2
	if n < 3 || line[n-1] != '}' {
		return -1
	}
	i := n - 2
	if line[i] == '+' {
		i--
	}
	var size, scale int64 = 0, 1
	end := i
	for i >= 0 && line[i] >= '0' && line[i] <= '9' {
		if end-i < 16 {
			size += int64(line[i]-'0') * scale
			scale *= 10
		} else {
			size = MaxLiteral + 1
		}
		i--
	}
	if i < 0 && end >= 0 { // the end of a line, and of a number longer than any
		return MaxLiteral + 1
	}
	if i == end || i < 0 || line[i] != '{' {
		return -1
	}
	return size
}
