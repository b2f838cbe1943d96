// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Parameters of a statement beside the mailbox's names.
const (
	paramHash  = "hash"  // with Dovecot's prefix: {BLF-CRYPT}$2y$…
	paramCrypt = "crypt" // without
)

// statement is an UPDATE whose named parameters have become PostgreSQL's.
type statement struct {
	text   string
	params []string // of $1, $2 …
}

// parseStatement takes one UPDATE with parameters such as :username. Values
// never become a part of the text; what could hide a parameter, or a second
// statement, from this reader is refused.
func parseStatement(text string) (*statement, error) {
	if word, _, _ := strings.Cut(strings.TrimSpace(text), " "); !strings.EqualFold(word, "UPDATE") {
		return nil, errors.New("it must be one UPDATE")
	}
	s := &statement{}
	var b strings.Builder
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ';', c == '$', c == '\\', c == 0, strings.HasPrefix(text[i:], "--"), strings.HasPrefix(text[i:], "/*"):
			return nil, fmt.Errorf("it must not hold %q: no comments, further statements, dollar quotes or numbered parameters", text[i:min(i+2, len(text))])
		case c == '\'' || c == '"':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				return nil, errors.New("a quote is not closed")
			}
			b.WriteString(text[i : i+end+2]) // a doubled quote is two strings side by side
			i += end + 2
		case strings.HasPrefix(text[i:], "::"):
			b.WriteString("::")
			i += 2
		case c == ':':
			name := text[i+1:]
			if end := strings.IndexFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }); end >= 0 {
				name = name[:end]
			}
			if !isMailboxName(name) && name != paramHash && name != paramCrypt {
				return nil, fmt.Errorf(":%s is not known: use :hash or :crypt, and :address, :local, :domain or :username", name)
			}
			n := slices.Index(s.params, name)
			if n < 0 {
				n = len(s.params)
				s.params = append(s.params, name)
			}
			b.WriteString("$" + strconv.Itoa(n+1) + "::text")
			i += 1 + len(name)
		default:
			b.WriteByte(c)
			i++
		}
	}
	if !slices.Contains(s.params, paramHash) && !slices.Contains(s.params, paramCrypt) {
		return nil, errors.New("it sets no password: use :hash or :crypt")
	}
	if !slices.ContainsFunc(s.params, isMailboxName) {
		return nil, errors.New("it names no mailbox: use :address, :local, :domain or :username")
	}
	s.text = b.String()
	return s, nil
}
