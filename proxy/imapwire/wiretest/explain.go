// SPDX-License-Identifier: Apache-2.0

package wiretest

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ownTag is that of a command of Postern's own.
var ownTag = regexp.MustCompile(`^A:pn.{10}-[0-9]+$`)

// Unexplained says which of the commands that an upstream got a client did not
// mean that gave these octets; it returns "" where each is one of the client's,
// in its order, none twice, with its own arguments. Postern's own and DONE are
// left out. A command that the upstream refused ends with the announcement of
// the literal that it refused.
func Unexplained(given []byte, got [][]byte) string {
	var want []wanted
	for _, c := range got {
		if strings.EqualFold(string(c), "DONE\r\n") {
			continue
		}
		w := wanted{refused: Announces.Match(bytes.TrimSuffix(c, []byte("\r\n")))}
		if w.refused {
			c = append(Announces.ReplaceAll(bytes.TrimSuffix(c, []byte("\r\n")), []byte("x")), "\r\n"...)
		}
		tokens, used := Tokens(c)
		if used != len(c) || len(tokens) < 3 || tokens[1] != " " {
			return fmt.Sprintf("%q is no command", c)
		}
		if w.refused {
			tokens = tokens[:len(tokens)-1]
		}
		if w.tokens = tokens; !ownTag.MatchString(tokens[0]) {
			want = append(want, w)
		}
	}
	e := explainer{given: given, want: want, been: make(map[[2]int]bool)}
	if !e.from(0, 0) {
		return fmt.Sprintf("the client did not mean all of %q", got)
	}
	return ""
}

// wanted is a command that is to be explained, without the literal that was
// refused.
type wanted struct {
	tokens  []string
	refused bool
}

// explainer reads what a client gave in each way in which it can be read:
// whoever announces a synchronising literal may or may not have sent it.
type explainer struct {
	given []byte
	want  []wanted
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
func sameArguments(given []byte, want wanted) bool {
	got := want.tokens
	tokens, used := Tokens(given)
	if used != len(given) || len(tokens) < 3 || len(got) < 3 || tokens[0] != got[0] {
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
			return same(withoutPeek(a[2:]), withoutPeek(b[2:]), want.refused)
		}
	case "A:FETCH":
		return same(withoutPeek(a), withoutPeek(b), want.refused)
	}
	return same(a, b, want.refused)
}

// same compares arguments; of a refused command only the first came.
func same(given, got []string, refused bool) bool {
	if refused && len(given) > len(got) {
		given = given[:len(got)]
	}
	return slices.Equal(given, got)
}

// withoutPeek leaves out what Postern may have put into FETCH: PEEK, UID, and
// parentheses.
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
