// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// expression is a pattern as a regular expression.
func (g glob) expression(pattern string) *regexp.Regexp {
	var b strings.Builder
	for i := range len(pattern) {
		switch c := pattern[i]; {
		case c == '*':
			b.WriteString(`.*`)
		case c == '%' && g.percent:
			b.WriteString(`[^/]*`)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.MustCompile(`^(?s:` + b.String() + `)$`)
}

func drawText(t *rapid.T, letters, label string) string {
	return string(rapid.SliceOfN(rapid.SampledFrom([]byte(letters)), 0, 8).Draw(t, label))
}

func TestGlobMatchesAsARegularExpressionDoes(t *testing.T) {
	for _, g := range []glob{{}, {percent: true}} {
		rapid.Check(t, func(t *rapid.T) {
			pattern, text := drawText(t, "ab/*%", "pattern"), drawText(t, "ab/", "text")
			if got, want := g.match(pattern, []byte(text)), g.expression(pattern).MatchString(text); got != want {
				t.Fatalf("match(%q, %q) = %v", pattern, text, got)
			}
			below := g.match(pattern, []byte(text))
			for i := range len(text) {
				below = below || (text[i] == '/' && g.match(pattern, []byte(text[:i])))
			}
			if got := g.run(pattern, []byte(text), true); got != below {
				t.Fatalf("run(%q, %q) = %v", pattern, text, got)
			}
		})
	}
}

func TestGlobComparesPatternsByWhatTheyMatch(t *testing.T) {
	g := glob{percent: true}
	covered, met := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		a, b, text := drawText(t, "ab/*%", "a"), drawText(t, "ab/*%", "b"), drawText(t, "ab/", "text")
		if rapid.Bool().Draw(t, "wider") { // else they would seldom meet
			b = a + "*"
		}
		if rapid.Bool().Draw(t, "matching") {
			text = strings.NewReplacer("*", "", "%", "").Replace(a)
		}
		if g.covers(a, b) {
			covered++
			if g.match(b, []byte(text)) && !g.match(a, []byte(text)) {
				t.Fatalf("%q is said to cover %q, which alone matches %q", a, b, text)
			}
		}
		if g.match(a, []byte(text)) && g.match(b, []byte(text)) {
			met++
			if !g.overlap(a, b) {
				t.Fatalf("%q and %q both match %q, and are said not to overlap", a, b, text)
			}
		}
		if !g.covers(a, a) || !g.covers("*", a) || !g.overlap(a, a) {
			t.Fatalf("%q against itself", a)
		}
	})
	if covered == 0 || met == 0 {
		t.Errorf("%d covered, %d met: nothing was tried", covered, met)
	}
	for _, p := range [][2]string{{"a/*", "b/*"}, {"a%", "a/b"}, {"%", "a/b"}, {"a", "b"}, {"*a", "*b"}, {"a/%", "a/b/*"}} {
		if g.overlap(p[0], p[1]) || g.overlap(p[1], p[0]) {
			t.Errorf("%q and %q are said to overlap", p[0], p[1])
		}
	}
	for _, p := range [][2]string{{"a/*", "a/b"}, {"a/*", "a/%"}, {"a/*", "a/b/*"}, {"*", "a"}, {"a%", "abc"}} {
		if !g.covers(p[0], p[1]) {
			t.Errorf("%q is not said to cover %q", p[0], p[1])
		}
	}
}
