// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// verb is a command that goes on to go-smtp, or that is answered here.
type verb string

// The table of commands. What is not in it is 500.
const (
	verbEHLO     verb = "EHLO"
	verbHELO     verb = "HELO"
	verbAUTH     verb = "AUTH"
	verbSTARTTLS verb = "STARTTLS"
	verbMAIL     verb = "MAIL"
	verbRCPT     verb = "RCPT"
	verbDATA     verb = "DATA"
	verbRSET     verb = "RSET"
	verbNOOP     verb = "NOOP"
	verbQUIT     verb = "QUIT"
	verbVRFY     verb = "VRFY"
	verbEXPN     verb = "EXPN"
	verbHELP     verb = "HELP"
	verbBDAT     verb = "BDAT"
)

var verbs = []verb{
	verbEHLO, verbHELO, verbAUTH, verbSTARTTLS, verbMAIL, verbRCPT, verbDATA, verbRSET, verbNOOP, verbQUIT,
	verbVRFY, verbEXPN, verbHELP, verbBDAT,
}

// command is one line of the client's, understood.
type command struct {
	verb verb
	// arg is what follows it: EHLO's name, AUTH's mechanism and response.
	arg  string
	mail mailCommand
	rcpt rcptCommand
}

// mailCommand is MAIL, its parameters as they go upstream.
type mailCommand struct {
	from     Address // zero: the null reverse-path
	size     int64   // octets declared; 0: none were
	body     string  // "", "7BIT" or "8BITMIME"
	smtputf8 bool
	ret      string // "", "FULL" or "HDRS"
	envid    string // xtext
}

// rcptCommand is RCPT.
type rcptCommand struct {
	to     Address
	notify string // canonical list
	orcpt  string // "rfc822;" or "utf-8;" and xtext
}

// dsn reports whether a DSN parameter (RFC 3461) was given.
func (m *mailCommand) dsn() bool { return m.ret != "" || m.envid != "" }
func (r *rcptCommand) dsn() bool { return r.notify != "" || r.orcpt != "" }

// parseCommand reads a line without its CRLF. The grammar is RFC 5321
// §4.1.1's and no more: no tabs, no space around the colon, no path without
// brackets.
func parseCommand(line string) (*command, *reply) {
	line = strings.TrimRight(line, " ") // §4.1.1 asks receivers to tolerate it
	for i := 0; i < len(line); i++ {
		if line[i] < ' ' || line[i] == 0x7f {
			return nil, replyControl
		}
	}
	if !utf8.ValidString(line) {
		return nil, replySyntax
	}
	word, arg, spaced := strings.Cut(line, " ")
	v := verb(strings.ToUpper(word))
	if !slices.Contains(verbs, v) {
		return nil, replyUnknownCommand
	}
	c := &command{verb: v, arg: arg}
	switch v {
	case verbMAIL:
		return c, c.parseMail()
	case verbRCPT:
		return c, c.parseRcpt()
	case verbEHLO, verbHELO:
		if !isHelloName(arg) {
			return nil, replyHelloName
		}
	case verbDATA, verbRSET, verbQUIT, verbSTARTTLS:
		if spaced {
			return nil, replyNoArgument
		}
	case verbAUTH:
		if !isAuthArgument(arg) {
			return nil, replySyntax
		}
	}
	return c, nil
}

func (c *command) parseMail() *reply {
	path, params, refusal := cutPath(c.arg, "FROM:")
	if refusal != nil {
		return refusal
	}
	for key, value := range params {
		if refusal := c.mail.set(key, value); refusal != nil {
			return refusal
		}
	}
	if path == "" {
		return nil
	}
	from, err := ParseAddress(path, c.mail.smtputf8)
	if err != nil {
		return malformed("5.1.7", "the sender's address is refused: "+err.Error())
	}
	c.mail.from = from
	return nil
}

func (m *mailCommand) set(key, value string) *reply {
	switch key {
	case "SIZE":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 || len(value) > 20 || value[0] == '+' {
			return replyBadParameter
		}
		m.size = n
	case "BODY":
		m.body = strings.ToUpper(value)
		if m.body != "7BIT" && m.body != "8BITMIME" {
			return replyUnknownParameter
		}
	case "SMTPUTF8":
		if value != "" {
			return replyBadParameter
		}
		m.smtputf8 = true
	case "RET":
		m.ret = strings.ToUpper(value)
		if m.ret != "FULL" && m.ret != "HDRS" {
			return replyBadParameter
		}
	case "ENVID":
		if value == "" || len(value) > 100 || !isXtext(value) {
			return replyBadParameter
		}
		m.envid = value
	case "AUTH":
		// RFC 4954 §5: who is not trusted to assert an identity is taken to
		// have said <>. Nobody is, so it is read and goes no further.
		if value == "" || len(value) > 500 || !isXtext(value) {
			return replyBadParameter
		}
	default:
		return replyUnknownParameter
	}
	return nil
}

func (c *command) parseRcpt() *reply {
	path, params, refusal := cutPath(c.arg, "TO:")
	if refusal != nil {
		return refusal
	}
	for key, value := range params {
		if refusal := c.rcpt.set(key, value); refusal != nil {
			return refusal
		}
	}
	// Whether SMTPUTF8 was asked for is known with MAIL: see Session.Rcpt.
	to, err := ParseAddress(path, true)
	if err != nil {
		return malformed("5.1.3", "the recipient's address is refused: "+err.Error())
	}
	c.rcpt.to = to
	return nil
}

func (r *rcptCommand) set(key, value string) *reply {
	switch key {
	case "NOTIFY":
		r.notify = strings.ToUpper(value)
		if !isNotify(r.notify) {
			return replyBadParameter
		}
	case "ORCPT":
		kind, address, ok := strings.Cut(value, ";")
		kind = asciiLower(kind)
		if !ok || kind != "rfc822" && kind != "utf-8" || address == "" || len(address) > 500 || !isXtext(address) {
			return replyBadParameter
		}
		r.orcpt = kind + ";" + address
	default:
		return replyUnknownParameter
	}
	return nil
}

// cutPath takes "FROM:<path> KEY=value KEY" apart. The path is not judged
// yet, but its end is found as the grammar has it: a bracket or a space inside
// a quoted local part does not end it.
func cutPath(arg, prefix string) (path string, params map[string]string, refusal *reply) {
	if len(arg) < len(prefix) || !strings.EqualFold(arg[:len(prefix)], prefix) || !strings.HasPrefix(arg[len(prefix):], "<") {
		return "", nil, replyPathSyntax
	}
	arg = arg[len(prefix)+1:]
	end, quoted := -1, false
	for i := 0; i < len(arg) && end < 0; i++ {
		switch {
		case quoted && arg[i] == '\\':
			i++
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '>' && !quoted:
			end = i
		}
	}
	if end < 0 {
		return "", nil, replyPathSyntax
	}
	path, arg = arg[:end], arg[end+1:]
	if arg == "" {
		return path, nil, nil
	}
	if arg[0] != ' ' {
		return "", nil, replyPathSyntax
	}
	params = make(map[string]string)
	for param := range strings.FieldsSeq(arg) {
		key, value, equals := strings.Cut(param, "=")
		key = strings.ToUpper(key)
		if _, twice := params[key]; twice || key == "" || equals && value == "" {
			return "", nil, replyBadParameter
		}
		params[key] = value
	}
	return path, params, nil
}

// isNotify checks RFC 3461 §4.1's list.
func isNotify(list string) bool {
	if list == "NEVER" {
		return true
	}
	seen := map[string]bool{}
	for item := range strings.SplitSeq(list, ",") {
		if item != "SUCCESS" && item != "FAILURE" && item != "DELAY" || seen[item] {
			return false
		}
		seen[item] = true
	}
	return true
}

// isXtext checks RFC 3461 §4: printable ASCII without + and =, and +XX for
// anything else, of which only what is printable is taken: decoded, it goes
// into reports that people and programs read.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			if i+2 >= len(s) {
				return false
			}
			hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			if hi < 0 || lo < 0 || hi<<4|lo < ' ' || hi<<4|lo > '~' {
				return false
			}
			i += 2
		case c <= ' ' || c > '~' || c == '=':
			return false
		}
	}
	return true
}

const upperHex = "0123456789ABCDEF"

// isHelloName takes a domain or an address literal, loosely: clients say
// what they like, and nothing depends on it.
func isHelloName(s string) bool {
	if s == "" || len(s) > maxDomain {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isAuthArgument checks "MECHANISM [initial-response]" (RFC 4954 §4).
func isAuthArgument(s string) bool {
	mechanism, response, given := strings.Cut(s, " ")
	if mechanism == "" || len(mechanism) > 20 || given && !isSASLResponse(response) {
		return false
	}
	for i := 0; i < len(mechanism); i++ {
		c := mechanism[i] | 0x20
		if (c < 'a' || c > 'z') && (mechanism[i] < '0' || mechanism[i] > '9') && mechanism[i] != '-' && mechanism[i] != '_' {
			return false
		}
	}
	return true
}

// isSASLResponse reports canonical base64, or "=" for an empty response.
func isSASLResponse(s string) bool {
	if s == "=" {
		return true
	}
	body := strings.TrimRight(s, "=")
	if s == "" || len(s)%4 != 0 || len(s)-len(body) > 2 {
		return false
	}
	for i := 0; i < len(body); i++ {
		c := body[i]
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' {
			return false
		}
	}
	return true
}
