// SPDX-License-Identifier: Apache-2.0

package policy

import "bytes"

// glob says what the octets of a kind of pattern stand for. "*" stands for any
// octets, or none.
type glob struct {
	// percent says that "%" stands for any octets but "/", or none.
	percent bool
	// fold says that the pattern's letters count as upper-case ones.
	fold bool
}

// match reports whether the pattern describes the whole of s. It allocates
// nothing.
func (g glob) match(pattern string, s []byte) bool {
	// Most patterns that do not fit do not end as s does.
	for n := 1; n <= len(pattern); n++ {
		switch c := g.octet(pattern, len(pattern)-n); {
		case g.wild(c):
			return (n == len(pattern) && c == '*') || g.run(pattern, s, false)
		case n > len(s) || s[len(s)-n] != c:
			return false
		}
	}
	return len(s) == len(pattern)
}

// run matches from the beginning: the whole of s or, when below, a beginning
// that "/" follows. When something does not fit, the last wildcard takes one
// octet more: the last "%" until a "/" stops it, then the last "*". Wildcards
// before those need not be tried again, since what they found first leaves the
// most to what follows.
func (g glob) run(pattern string, s []byte, below bool) bool {
	const none = -1
	p, i := 0, 0
	starP, starI := none, 0
	percentP, percentI := none, 0
	for {
		if p < len(pattern) {
			switch c := g.octet(pattern, p); {
			case c == '*':
				p++
				starP, starI = p, i
				percentP = none
				continue
			case c == '%' && g.percent:
				p++
				percentP, percentI = p, i
				continue
			case i < len(s) && s[i] == c:
				p, i = p+1, i+1
				continue
			}
		} else if i == len(s) || (below && s[i] == '/') {
			return true
		}
		switch {
		case percentP != none && percentI < len(s) && s[percentI] != '/':
			percentI++
			p, i = percentP, percentI
		case starP != none && starI < len(s):
			starI++
			if starP < len(pattern) {
				if c := g.octet(pattern, starP); !g.wild(c) {
					skipped := bytes.IndexByte(s[starI:], c)
					if skipped < 0 {
						return false
					}
					starI += skipped
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

// octet is what text is compared with.
func (g glob) octet(pattern string, i int) byte {
	if g.fold {
		return upper(pattern[i])
	}
	return pattern[i]
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
