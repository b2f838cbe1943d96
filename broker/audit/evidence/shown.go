// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxShown is how many characters of one text a reader is shown; the record
	// has all of them.
	maxShown = 240
	// maxMarks is how many combining marks one character may bear: more of them
	// would be painted over other lines.
	maxMarks = 3
)

// shown is a text that a stranger may have written, as a reader can be shown it:
// what is not printed (controls, and what turns the direction of text or hides
// it) stands there by its number, and what is long is cut. It is no HTML yet.
func shown(s string) string {
	var b strings.Builder
	characters, marks := 0, 0
	for i, r := range s {
		if characters == maxShown {
			fmt.Fprintf(&b, "… [%d octets in all]", len(s))
			break
		}
		characters++
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, "⟨%02X⟩", s[i])
		case !unicode.IsPrint(r), marks > maxMarks, r == '⟨', r == '⟩':
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// octets is a number of them, for people.
func octets(n int64) string {
	switch {
	case n < 10_000:
		return strconv.FormatInt(n, 10) + " B"
	case n < 10_000_000:
		return strconv.FormatFloat(float64(n)/1e3, 'f', 1, 64) + " kB"
	case n < 10_000_000_000:
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
	}
	return strconv.FormatFloat(float64(n)/1e9, 'f', 1, 64) + " GB"
}

// plural is a number of things.
func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + one + "s"
}

// number is one with its thousands apart.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
