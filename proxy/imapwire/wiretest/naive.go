// SPDX-License-Identifier: Apache-2.0

package wiretest

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

var literal = regexp.MustCompile(`^(~?)\{([0-9]+)\+?\}\r\n`)

// Tokens takes one command apart, octet by octet: "A:x" is an atom,
// "S:x" a string however it was written, "B:x" a literal8; spaces and
// parentheses stand for themselves. used is its length; 0: it does not end.
func Tokens(b []byte) (tokens []string, used int) {
	for i := 0; i < len(b); {
		if m := literal.FindSubmatch(b[i:]); m != nil {
			i += len(m[0])
			n, err := strconv.Atoi(string(m[2]))
			if err != nil || n > len(b)-i {
				return nil, 0
			}
			kind := "S:"
			if len(m[1]) > 0 {
				kind = "B:"
			}
			tokens = append(tokens, kind+string(b[i:i+n]))
			i += n
			continue
		}
		switch b[i] {
		case '\r':
			if i+1 < len(b) && b[i+1] == '\n' {
				return tokens, i + 2
			}
			return nil, 0
		case ' ', '(', ')':
			tokens = append(tokens, string(b[i]))
			i++
		case '"':
			value, n := quoted(b[i:])
			if n == 0 {
				return nil, 0
			}
			tokens = append(tokens, "S:"+value)
			i += n
		default:
			n := bytes.IndexAny(b[i+1:], " ()\"{\r")
			if n < 0 {
				return nil, 0
			}
			tokens = append(tokens, "A:"+string(b[i:i+1+n]))
			i += 1 + n
		}
	}
	return nil, 0
}

func quoted(b []byte) (value string, used int) {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return value, i + 1
		case '\\':
			if i++; i == len(b) {
				return "", 0
			}
		}
		value += string(b[i : i+1])
	}
	return "", 0
}

// Announces matches the end of a line that announces a literal.
var Announces = regexp.MustCompile(`~?\{([0-9]+)\+?\}$`)

// Lines splits octets into commands as a server does that looks at nothing but
// the ends of lines: what a line Announces at its end belongs to it, whatever
// stands around. lf lets a bare LF end a line, as many servers do.
func Lines(b []byte, lf bool) (commands [][]byte, whole bool) {
	end := "\r\n"
	if lf {
		end = "\n"
	}
	start := 0
	for i := 0; i < len(b); {
		n := bytes.Index(b[i:], []byte(end))
		if n < 0 {
			return commands, false
		}
		line := bytes.TrimSuffix(b[i:i+n], []byte("\r"))
		i += n + len(end)
		if m := Announces.FindSubmatch(line); m != nil {
			size, err := strconv.Atoi(string(m[1]))
			if err != nil || size > len(b)-i {
				return commands, false
			}
			i += size
			continue
		}
		commands = append(commands, b[start:i])
		start = i
	}
	return commands, start == len(b)
}

// Item is one item of a FETCH response.
type Item struct {
	Name  string
	Str   bool // its value is a string
	Size  int
	Value string // of an atom or a string
}

// Fetch reads what follows FETCH by RFC 9051 §9's grammar, recursively.
// used is 0 for what does not follow it to the letter.
func Fetch(b []byte) (items []Item, used int) {
	r := &fetchReader{b: b, ok: true}
	r.take(" (")
	for r.ok && !r.at(")") {
		if len(items) > 0 {
			r.take(" ")
		}
		item := Item{Name: r.name()}
		r.take(" ")
		switch {
		case r.at("("):
			r.list()
		case r.at(`"`), r.at("{"), r.at("~{"):
			item.Str = true
			item.Value = r.str()
			item.Size = len(item.Value)
		default:
			item.Value = r.atom()
		}
		items = append(items, item)
	}
	r.take(")\r\n")
	if !r.ok || len(items) == 0 {
		return nil, 0
	}
	return items, r.i
}

type fetchReader struct {
	b  []byte
	i  int
	ok bool
}

func (r *fetchReader) at(s string) bool { return bytes.HasPrefix(r.b[r.i:], []byte(s)) }

func (r *fetchReader) take(s string) {
	if r.ok = r.ok && r.at(s); r.ok {
		r.i += len(s)
	}
}

func (r *fetchReader) match(re *regexp.Regexp) string {
	m := re.Find(r.b[r.i:])
	if r.ok = r.ok && len(m) > 0; !r.ok {
		return ""
	}
	r.i += len(m)
	return string(m)
}

var (
	atomChars    = regexp.MustCompile(`^[!#$&'*-Z\\^-z|}~]+`)
	quotedString = regexp.MustCompile(`^"([^"\\\r\n]|\\["\\])*"`)
	itemName     = regexp.MustCompile(`^[A-Za-z0-9.-]+(\[[A-Za-z0-9.]*( \(([A-Za-z0-9-]+|"[^"\\\r\n\]]*")( ([A-Za-z0-9-]+|"[^"\\\r\n\]]*"))*\))?\](<[0-9]+>)?)?`)
)

func (r *fetchReader) name() string { return r.match(itemName) }
func (r *fetchReader) atom() string { return r.match(atomChars) }

func (r *fetchReader) str() string {
	if !r.at(`"`) {
		m := literal.FindSubmatch(r.b[r.i:])
		if m == nil {
			r.ok = false
			return ""
		}
		n, err := strconv.Atoi(string(m[2]))
		if r.i += len(m[0]); err != nil || n > len(r.b)-r.i {
			r.ok = false
			return ""
		}
		r.i += n
		return string(r.b[r.i-n : r.i])
	}
	s := r.match(quotedString)
	if !r.ok {
		return ""
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(s[1 : len(s)-1])
}

// list takes a parenthesised list of anything.
func (r *fetchReader) list() {
	r.take("(")
	for r.ok && !r.at(")") {
		switch {
		case r.at(" "):
			r.i++
		case r.at("("):
			r.list()
		case r.at(`"`), r.at("{"), r.at("~{"):
			r.str()
		default:
			r.atom()
		}
	}
	r.take(")")
}

// EncodeMailbox encodes a name in modified UTF-7 (RFC 3501 §5.1.3).
func EncodeMailbox(name string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,"
	var out, bits strings.Builder
	shift := func() {
		s := bits.String()
		if s == "" {
			return
		}
		bits.Reset()
		out.WriteByte('&')
		for len(s) > 0 {
			n := min(6, len(s))
			v, _ := strconv.ParseUint(s[:n]+strings.Repeat("0", 6-n), 2, 8)
			out.WriteByte(alphabet[v])
			s = s[n:]
		}
		out.WriteByte('-')
	}
	unit := func(u rune) {
		s := strconv.FormatUint(uint64(u), 2)
		bits.WriteString(strings.Repeat("0", 16-len(s)) + s)
	}
	for _, r := range name {
		switch {
		case r >= 0x20 && r < 0x7f:
			shift()
			out.WriteRune(r)
			if r == '&' {
				out.WriteByte('-')
			}
		case r > 0xffff:
			unit(0xd800 + (r-0x10000)>>10)
			unit(0xdc00 + (r-0x10000)&0x3ff)
		default:
			unit(r)
		}
	}
	shift()
	return out.String()
}

// Responses splits a server's octets into responses by RFC 9051 §9: the text
// of a status runs to CRLF and holds no literal, whatever it looks like, nor
// do capabilities. whole is false where the last does not end.
func Responses(b []byte) (responses [][]byte, whole bool) {
	for len(b) > 0 {
		n := bytes.Index(b, []byte("\r\n")) + 2
		if n < 2 {
			return responses, false
		}
		if !Status(b[:n]) && !words.Match(b[:n]) {
			all, _ := Lines(b, false)
			if len(all) == 0 {
				return responses, false
			}
			n = len(all[0])
		}
		responses = append(responses, b[:n])
		b = b[n:]
	}
	return responses, true
}

var status = regexp.MustCompile(`(?i)^([^* ]+ +(OK|NO|BAD)|\* +(OK|NO|BAD|BYE|PREAUTH)|\+)( |\r|$)`)

var words = regexp.MustCompile(`(?i)^\* +(CAPABILITY|ENABLED)[\x00-\x20(]`)

// Status reports whether a response is a status or a continuation request.
func Status(response []byte) bool { return status.Match(response) }
