// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/proxy/imapwire/wiretest"
)

var ownTag = regexp.MustCompile(`^pn.{10}-[0-9]+$`)

// unexplained says what of the upstream's octets a client did not mean that
// gave these: each command of them must be one of the client's, in the order
// of the client's, and none twice. Postern's own are left out.
func unexplained(given, got []byte) string {
	commands, _ := wiretest.Lines(got, false)
	var want [][]string
	for _, c := range commands {
		tokens, used := wiretest.Tokens(c)
		switch {
		case strings.EqualFold(string(c), "DONE\r\n"):
		case used != len(c) || len(tokens) < 3 || tokens[1] != " ":
			return fmt.Sprintf("%q is no command", c)
		case ownTag.MatchString(strings.TrimPrefix(tokens[0], "A:")):
		default:
			want = append(want, tokens)
		}
	}
	e := explainer{given: given, want: want, been: make(map[[2]int]bool)}
	if !e.from(0, 0) {
		return fmt.Sprintf("the client did not mean all of %q", want)
	}
	return ""
}

// explainer reads what a client gave in each way in which it can be read:
// whoever announces a synchronising literal may or may not have sent it.
type explainer struct {
	given []byte
	want  [][]string
	been  map[[2]int]bool
}

// from reports whether the commands wanted from k on can be those that the
// client gave from octet i on.
func (e *explainer) from(i, k int) bool {
	if k == len(e.want) {
		return true
	}
	if e.been[[2]int{i, k}] {
		return false
	}
	e.been[[2]int{i, k}] = true
	return e.reads(i, i, k)
}

var announcement = regexp.MustCompile(`\{([0-9]{1,9})(\+?)\}$`)

// reads goes on with the line at octet i of the command that began at start.
func (e *explainer) reads(start, i, k int) bool {
	n := bytes.IndexByte(e.given[i:], '\n')
	if n < 1 || e.given[i+n-1] != '\r' {
		return false
	}
	line, end := e.given[i:i+n-1], i+n+1
	m := announcement.FindSubmatch(line)
	if m == nil {
		next := k
		if sameArguments(e.given[start:end], e.want[k]) {
			next++
		}
		return e.from(end, next) || e.from(end, k)
	}
	size, _ := strconv.Atoi(string(m[1]))
	if size <= len(e.given)-end && e.reads(start, end+size, k) {
		return true
	}
	return len(m[2]) == 0 && e.from(end, k) // it was refused and never sent
}

// sameArguments compares a command of the client's with one that the upstream
// got. Where Postern rewrites arguments, the rest must be the same.
func sameArguments(given []byte, got []string) bool {
	tokens, used := wiretest.Tokens(given)
	if used != len(given) || len(tokens) < 3 || tokens[0] != got[0] {
		return false
	}
	name := strings.ToUpper(tokens[2])
	if name == "A:CLOSE" && got[2] == "A:UNSELECT" {
		return len(tokens) == 3 && len(got) == 3
	}
	if name != got[2] {
		return false
	}
	a, b := tokens[3:], got[3:]
	switch name {
	case "A:ENABLE", "A:NOTIFY":
		return true // which words are left is the table's to say
	case "A:UID":
		if len(a) < 2 || len(b) < 2 || a[1] != b[1] {
			return false
		}
		if strings.EqualFold(a[1], "A:FETCH") {
			return sameFetch(a[2:], b[2:])
		}
	case "A:FETCH":
		return sameFetch(a, b)
	}
	return slices.Equal(a, b)
}

// sameFetch: of FETCH, PEEK and UID may have been put in, and parentheses.
func sameFetch(a, b []string) bool {
	return slices.Equal(withoutPeek(a), withoutPeek(b))
}

func withoutPeek(tokens []string) []string {
	var all []string
	for _, t := range tokens {
		switch t = strings.ToUpper(t); t {
		case " ", "(", ")", "A:UID":
		default:
			all = append(all, strings.Replace(t, ".PEEK[", "[", 1))
		}
	}
	return all
}

func TestExplains(t *testing.T) {
	for _, tc := range []struct {
		given, got string
		ok         bool
	}{
		{"a NOOP\r\nb NOOP\r\n", "a NOOP\r\nb NOOP\r\n", true},
		{"a NOOP\r\nb NOOP\r\n", "b NOOP\r\n", true},
		{"a NOOP\r\nb NOOP\r\n", "b NOOP\r\na NOOP\r\n", false},
		{"a NOOP\r\n", "a NOOP\r\na NOOP\r\n", false},
		{"a SEARCH SUBJECT {8+}\r\nb NOOP\r\n\r\n", "b NOOP\r\n", false},
		{"a SEARCH SUBJECT {8}\r\nb NOOP\r\n\r\n", "b NOOP\r\n", true}, // the client may not have waited
		{"a SEARCH SUBJECT {1+}\r\nx\r\n", "a SEARCH SUBJECT \"x\"\r\n", true},
		{"a SEARCH SUBJECT {1+}\r\nx\r\n", "a SEARCH SUBJECT \"y\"\r\n", false},
		{"a FETCH 1 BODY[]\r\n", "a FETCH 1 (UID BODY.PEEK[])\r\n", true},
		{"a FETCH 1 BODY[]\r\n", "a FETCH 1 BODY[1]\r\n", false},
		{"a NOOP\nb NOOP\r\n", "b NOOP\r\n", false},
		{"a NOOP\r\n", "pn0123456789-1 IDLE\r\nDONE\r\na NOOP\r\n", true},
	} {
		if fault := unexplained([]byte(tc.given), []byte(tc.got)); (fault == "") != tc.ok {
			t.Errorf("%q and %q: %q", tc.given, tc.got, fault)
		}
	}
}
