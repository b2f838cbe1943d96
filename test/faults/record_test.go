// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
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
var verbs = regexp.MustCompile(`^(EHLO [a-zA-Z0-9.\[\]:-]+|AUTH [A-Z0-9-]+( [A-Za-z0-9+/=]+)?|MAIL FROM:<[^<>]*>( [A-Z0-9]+(=[^ ]+)?)*|RCPT TO:<[^<>]+>( [A-Z]+=[^ ]+)*|DATA|RSET|QUIT|STARTTLS)$`)

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
			return out, fmt.Errorf("%w a message", errUnended)
		}
		m := string(b[:end])
		if bare(m) {
			return out, fmt.Errorf("%w in a message", errLineEnd)
		}
		if strings.HasPrefix(m, ".") {
			m = m[1:]
		}
		out.messages = append(out.messages, strings.ReplaceAll(m, "\r\n.", "\r\n"))
		b = b[end+len(".\r\n"):]
	}
	return out, nil
}

// bare reports whether a CR or an LF stands alone, or there is a NUL.
func bare(m string) bool {
	return strings.ContainsAny(strings.ReplaceAll(m, "\r\n", ""), "\r\n\x00")
}

// said to an IMAP server: one command.
type imapCommand struct {
	tag, name, args string
	literals        []string
}

// parseIMAP reads whole connections, one after the other, by RFC 9051 and RFC
// 7888: every octet belongs to a command with a tag and a name, or to one of
// its literals, or ends an IDLE.
func parseIMAP(b []byte) ([]imapCommand, error) {
	var all []imapCommand
	for len(b) > 0 {
		var c imapCommand
		text := ""
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
			size := literalSize(line)
			if size < 0 {
				break
			}
			if size > len(b) {
				return all, fmt.Errorf("%w a literal of %s", errUnended, line)
			}
			c.literals = append(c.literals, string(b[:size]))
			b = b[size:]
		}
		if text == "DONE" && len(all) > 0 && all[len(all)-1].name == "IDLE" {
			continue
		}
		if len(all) > 0 && all[len(all)-1].name == "AUTHENTICATE" && saslLine.MatchString(text) {
			continue
		}
		m := commandLine.FindStringSubmatch(text)
		if m == nil {
			return all, fmt.Errorf("%w: %q", errUnmeant, text)
		}
		c.tag, c.name, c.args = m[1], m[2], m[3]
		all = append(all, c)
	}
	return all, nil
}

var (
	announced = regexp.MustCompile(`~?\{(\d+)\+?\}$`)
	saslLine  = regexp.MustCompile(`^[A-Za-z0-9+/]+=*$`)
)

func literalSize(line []byte) int {
	m := announced.FindSubmatch(line)
	if m == nil {
		return -1
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return -1
	}
	return n
}

func names(commands []imapCommand) []string {
	var all []string
	for _, c := range commands {
		all = append(all, c.name)
	}
	return all
}

// ofLogin are the commands with which Postern begins a session of its own.
var ofLogin = []string{"CAPABILITY", "AUTHENTICATE", "LOGIN", "LIST"}

// without leaves out what a login says.
func afterLogin(commands []imapCommand) []imapCommand {
	i := slices.IndexFunc(commands, func(c imapCommand) bool { return !slices.Contains(ofLogin, c.name) })
	if i < 0 {
		return nil
	}
	return commands[i:]
}
