// SPDX-License-Identifier: Apache-2.0

package session

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// mailboxOf returns the address, in lower case, of the mailbox that a client
// asked for.
//
// The user name and the SASL authorization identity (RFC 4422 §3.4.1) are each
// an address, or agent/address. The authorization identity names the mailbox
// when it is there, and the user name may then be empty or the agent's name
// alone. What both name must agree.
//
// A local part may hold a slash and an agent's name an @, so that only the
// token's agent tells them apart: agent is his name, and a text that does not
// begin with it and a slash is an address from its first octet on. So another
// agent's name never matches: it becomes part of an address that nobody has.
func mailboxOf(username, authorizationID, agent string) (address string, ok bool) {
	if !plain(username) || !plain(authorizationID) {
		return "", false
	}
	username, authorizationID, agent = strings.ToLower(username), strings.ToLower(authorizationID), strings.ToLower(agent)
	named := mailboxPart(username, agent)
	if authorizationID == "" {
		return named, named != ""
	}
	address = mailboxPart(authorizationID, agent)
	if username == "" || username == agent || named == address {
		return address, address != ""
	}
	return "", false
}

// agentOf returns the name, in lower case, that a client gives the agent, if it
// names one: what stands before the slash, or the user name where the
// authorization identity names the mailbox. It proves nothing, and may be the
// beginning of an address: whose password it is, is asked afterwards.
func agentOf(username, authorizationID string) string {
	if !plain(username) || !plain(authorizationID) {
		return ""
	}
	named, alone := username, authorizationID != ""
	if username == "" {
		named, alone = authorizationID, false
	}
	name, _, slash := strings.Cut(strings.ToLower(named), "/")
	if !slash && !alone {
		return "" // an address
	}
	return name
}

func mailboxPart(s, agent string) string {
	if before, after, found := strings.Cut(s, "/"); found && agent != "" && before == agent {
		return after
	}
	return s
}

// plain reports whether s could be a name: UTF-8 of a sane length without
// controls.
func plain(s string) bool {
	return len(s) <= maxUsername && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// recordable returns what may be written of a user name: people paste their
// app password into the wrong field.
func recordable(s string) string {
	if _, ok := parseToken([]byte(s)); ok {
		return "[withheld: it has the form of an app password]"
	}
	return oneLine(s, maxUsername)
}

// oneLine makes s a single line of valid UTF-8 of at most limit octets.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
