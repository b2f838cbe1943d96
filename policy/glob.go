// SPDX-License-Identifier: Apache-2.0

package policy

// glob says what the wildcards of a kind of pattern stand for. "*" stands for
// any octets, or none.
type glob struct {
	// percent says that "%" stands for any octets but the separator, or none.
	percent bool
	// separator is what a pattern's "/" stands for, and no other octet is;
	// 0: "/" is an octet like any other.
	separator byte
	// upperPattern and upperText are how many octets at the beginning are taken
	// for upper-case letters.
	upperPattern, upperText int
}

// match reports whether the pattern describes the whole of s. It allocates
// nothing.
func (g glob) match(pattern, s string) bool {
	// Most patterns that do not fit do not end as s does.
	for n := 1; n <= len(pattern); n++ {
		switch c := pattern[len(pattern)-n]; {
		case g.wild(c):
			return (n == len(pattern) && c == '*') || g.run(pattern, s, false)
		case n > len(s) || !g.same(pattern, len(pattern)-n, s, len(s)-n):
			return false
		}
	}
	return len(s) == len(pattern)
}

// run matches from the beginning: the whole of s or, when below, a beginning
// that a separator follows. When something does not fit, the last wildcard
// takes one octet more: the last "%" until a separator stops it, then the last
// "*". Wildcards before those need not be tried again, since what they found
// first leaves the most to what follows.
func (g glob) run(pattern, s string, below bool) bool {
	const none = -1
	p, i := 0, 0
	starP, starI := none, 0
	percentP, percentI := none, 0
	for {
		if p < len(pattern) {
			switch c := pattern[p]; {
			case c == '*':
				p++
				starP, starI = p, i
				percentP = none
				continue
			case c == '%' && g.percent:
				p++
				percentP, percentI = p, i
				continue
			case i < len(s) && g.same(pattern, p, s, i):
				p, i = p+1, i+1
				continue
			}
		} else if i == len(s) || (below && g.separates(s[i])) {
			return true
		}
		switch {
		case percentP != none && percentI < len(s) && !g.separates(s[percentI]):
			percentI++
			p, i = percentP, percentI
		case starP != none && starI < len(s):
			starI++
			if starP < len(pattern) && !g.wild(pattern[starP]) {
				for starI < len(s) && !g.same(pattern, starP, s, starI) {
					starI++
				}
			}
			p, i = starP, starI
			percentP = none
		default:
			return false
		}
	}
}

func (g glob) wild(c byte) bool { return c == '*' || (c == '%' && g.percent) }

func (g glob) separates(c byte) bool { return g.separator != 0 && c == g.separator }

// same compares one octet of each.
func (g glob) same(pattern string, p int, text string, i int) bool {
	want, got := pattern[p], text[i]
	if want == got && want != '/' && !g.separates(got) {
		return true
	}
	return g.sameByRule(p < g.upperPattern, want, i < g.upperText, got)
}

func (g glob) sameByRule(upperWant bool, want byte, upperGot bool, got byte) bool {
	if want == '/' && g.separator != 0 {
		return g.separates(got)
	}
	if upperWant {
		want = upper(want)
	}
	if upperGot {
		got = upper(got)
	}
	return want == got && !g.separates(got)
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

// covers reports that outer describes whatever inner does. It may say no
// though it does: "a*" and "%" are never said to cover "*".
func (g glob) covers(outer, inner string) bool {
	if outer == inner {
		return true
	}
	// fits[j] says that outer[:i] covers inner[:j].
	fits, next := make([]bool, len(inner)+1), make([]bool, len(inner)+1)
	fits[0] = true
	for i := range len(outer) {
		c := outer[i]
		for j := range next {
			switch {
			case c == '*':
				next[j] = fits[j] || (j > 0 && next[j-1])
			case c == '%' && g.percent:
				next[j] = fits[j] || (j > 0 && next[j-1] && inner[j-1] != '*' && inner[j-1] != '/')
			default:
				next[j] = j > 0 && fits[j-1] && inner[j-1] == c
			}
		}
		fits, next = next, fits
	}
	return fits[len(inner)]
}

// overlap reports whether any text is described by both patterns.
func (g glob) overlap(a, b string) bool {
	// takes reports whether a wildcard can stand for some of the other's next.
	takes := func(wildcard, c byte) bool { return wildcard == '*' || c != '/' }
	fits, next := make([]bool, len(b)+1), make([]bool, len(b)+1)
	for i := 0; i <= len(a); i++ {
		for j := 0; j <= len(b); j++ {
			ok := i == 0 && j == 0
			if !ok && i > 0 && j > 0 && !g.wild(a[i-1]) && a[i-1] == b[j-1] {
				ok = fits[j-1]
			}
			if !ok && i > 0 && g.wild(a[i-1]) {
				ok = fits[j] || (j > 0 && takes(a[i-1], b[j-1]) && next[j-1])
			}
			if !ok && j > 0 && g.wild(b[j-1]) {
				ok = next[j-1] || (i > 0 && takes(b[j-1], a[i-1]) && fits[j])
			}
			next[j] = ok
		}
		fits, next = next, fits
	}
	return fits[len(b)]
}
