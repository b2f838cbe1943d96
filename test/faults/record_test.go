// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/test/servers"
)

// said is what was said to a server since an offset of a Tap's record.
func said(tap *servers.Tap, from int) []byte { return tap.Seen(servers.ToServer)[from:] }

// submitted is what one stretch of SMTP consists of.
type submitted struct {
	commands []string // each line, without CRLF
	messages []string // as they were before dots were stuffed
}

// verbs are all that Postern has to say to a submission server.
var verbs = regexp.MustCompile(`^(EHLO [a-zA-Z0-9.\[\]:-]+|AUTH [A-Z0-9-]+( [A-Za-z0-9+/=]+)?|MAIL FROM:<[^<>]*>( [A-Z0-9]+(=[^ ]+)?)*|RCPT TO:<([^<>"]+|"([^"\\]|\\.)+"@[^<>"]+)>( [A-Z]+=[^ ]+)*|DATA|RSET|QUIT|STARTTLS)$`)

var (
	errLineEnd  = errors.New("a bare CR, a bare LF or a NUL")
	errUnmeant  = errors.New("no command of Postern's")
	errUnended  = errors.New("the record ends within")
	commandLine = regexp.MustCompile(`^([!-)+-z|~]+) ((?:UID )?[A-Z]+)((?: .*)?)$`)
)

// parseSMTP reads whole connections, one after the other, by RFC 5321: every
// octet belongs to a command that Postern means or to a message.
func parseSMTP(b []byte) (*submitted, error) {
	out := &submitted{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok {
			return out, fmt.Errorf("%w a line: %q", errUnended, b)
		}
		if bytes.ContainsAny(line, "\r\n\x00") {
			return out, fmt.Errorf("%w: %q", errLineEnd, line)
		}
		if !verbs.Match(line) {
			return out, fmt.Errorf("%w: %q", errUnmeant, line)
		}
		out.commands = append(out.commands, string(line))
		b = rest
		if string(line) != "DATA" {
			continue
		}
		end := bytes.Index(append([]byte("\r\n"), b...), []byte("\r\n.\r\n"))
		if end < 0 {
			if bare(strings.TrimSuffix(string(b), "\r")) {
				return out, fmt.Errorf("%w in half a message", errLineEnd)
			}
			return out, fmt.Errorf("%w a message", errUnended)
		}
		m := string(b[:end])
		if bare(m) {
			return out, fmt.Errorf("%w in a message", errLineEnd)
		}
		m = strings.TrimPrefix(m, ".")
		out.messages = append(out.messages, strings.ReplaceAll(m, "\r\n.", "\r\n"))
		b = b[end+len(".\r\n"):]
	}
	return out, nil
}

// bare reports whether a CR or an LF stands alone, or there is a NUL.
func bare(m string) bool {
	return strings.ContainsAny(strings.ReplaceAll(m, "\r\n", ""), "\r\n\x00")
}

// imapCommand is one command that was said to an IMAP server.
type imapCommand struct {
	tag, name, args string
	literals        []string
	octets          []byte // all of it
}

// imapRecord is a place in the record of an IMAP server's Tap.
type imapRecord struct {
	tap  *servers.Tap
	from [2]int
}

func recordFrom(tap *servers.Tap) imapRecord {
	return imapRecord{tap, [2]int{len(tap.Seen(servers.ToServer)), len(tap.Seen(servers.ToClient))}}
}

// commands reads what was said since.
func (r imapRecord) commands() ([]imapCommand, error) {
	return parseIMAP(said(r.tap, r.from[0]), r.tap.Seen(servers.ToClient)[r.from[1]:])
}

// answers are the lines of a server, in which it gives leave for literals.
type answers struct{ rest []byte }

// granted reports whether the server said "+" before it answered a command.
func (a *answers) granted(tag string) bool {
	for len(a.rest) > 0 {
		var line []byte
		line, a.rest, _ = bytes.Cut(a.rest, []byte("\r\n"))
		switch {
		case bytes.HasPrefix(line, []byte("+")):
			return true
		case bytes.HasPrefix(line, []byte(tag+" ")):
			return false
		}
	}
	return false
}

// parseIMAP reads whole connections, one after the other, by RFC 9051 and RFC
// 7888: every octet belongs to a command with a tag and a name, or to one of
// its literals, or ends an IDLE. Of a literal that the server gave no leave
// for, none may come.
func parseIMAP(b, answered []byte) ([]imapCommand, error) {
	var all []imapCommand
	server := &answers{answered}
	for len(b) > 0 {
		var c imapCommand
		text, start := "", b
		for {
			line, rest, ok := bytes.Cut(b, []byte("\r\n"))
			if !ok {
				return all, fmt.Errorf("%w a line: %q", errUnended, b)
			}
			if bytes.ContainsAny(line, "\r\n\x00") {
				return all, fmt.Errorf("%w: %q", errLineEnd, line)
			}
			b = rest
			text += string(line)
			size, waits := literalSize(line)
			if tag, _, _ := strings.Cut(text, " "); size < 0 || waits && !server.granted(tag) {
				break
			}
			if size > len(b) {
				return all, fmt.Errorf("%w a literal of %s", errUnended, line)
			}
			c.literals = append(c.literals, string(b[:size]))
			b = b[size:]
		}
		last := ""
		if len(all) > 0 {
			last = all[len(all)-1].name
		}
		if text == "DONE" && last == "IDLE" || last == "AUTHENTICATE" && saslLine.MatchString(text) {
			continue
		}
		m := commandLine.FindStringSubmatch(text)
		if m == nil {
			return all, fmt.Errorf("%w: %q", errUnmeant, text)
		}
		c.tag, c.name, c.args = m[1], m[2], m[3]
		c.octets = start[:len(start)-len(b)]
		if c.name == "IDLE" {
			server.granted(c.tag)
		}
		all = append(all, c)
	}
	return all, nil
}

var (
	announced = regexp.MustCompile(`~?\{(\d+)(\+?)\}$`)
	saslLine  = regexp.MustCompile(`^[A-Za-z0-9+/]+=*$`)
)

// literalSize returns the literal that a line announces, and whether it waits
// for leave; -1: it announces none.
func literalSize(line []byte) (size int, waits bool) {
	m := announced.FindSubmatch(line)
	if m == nil {
		return -1, false
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return -1, false
	}
	return n, len(m[2]) == 0
}

func names(commands []imapCommand) []string {
	var all []string
	for _, c := range commands {
		all = append(all, c.name)
	}
	return all
}
