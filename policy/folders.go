// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Limits of patterns, for folders and for recipients each.
const (
	// MaxPatterns is how many an allow or a deny list holds.
	MaxPatterns = 64
	// MaxPattern is a pattern's length in octets.
	MaxPattern = 255
)

// FolderPatterns choose among a mailbox's folders by their decoded names. The zero
// value chooses all.
//
// A pattern is a name in UTF-8, with "/" for the hierarchy separator whatever
// the server's is. "*" stands for anything, "%" for anything within one level
// (RFC 9051 §6.3.9); neither can be taken literally. Names are compared octet
// for octet, but for a first level that is INBOX in any case. A folder that is
// denied takes all folders below it with it; one that is allowed does not.
type FolderPatterns struct {
	// Allow lists what is visible; empty: everything.
	Allow []string `json:"allow,omitempty"`
	// Deny lists what is not, whatever Allow says.
	Deny []string `json:"deny,omitempty"`
}

// IsZero reports whether all folders are visible.
func (f FolderPatterns) IsZero() bool { return len(f.Allow) == 0 && len(f.Deny) == 0 }

// folderGlob matches names and compares patterns.
func folderGlob() glob { return glob{percent: true} }

// maxQuick is the length of names and addresses that are looked at without an
// allocation.
const maxQuick = 256

// Visible reports whether a folder may be seen. The name is decoded; the
// delimiter is what the server's LIST says, 0 for NIL. It allocates nothing for
// names of at most maxQuick octets.
//
// A name in which "/" is not the separator cannot be told apart from a
// pattern's levels, and is not visible unless all are.
func (f FolderPatterns) Visible(name string, delimiter byte) bool {
	if f.IsZero() {
		return true
	}
	if delimiter != '/' && strings.IndexByte(name, '/') >= 0 {
		return false
	}
	var quick [maxQuick]byte
	n := spell(quick[:0], name, delimiter)
	if len(f.Allow) > 0 && !slices.ContainsFunc(f.Allow, n.matches) {
		return false
	}
	return !slices.ContainsFunc(f.Deny, n.liesIn)
}

// Unmatched returns the patterns that describe none of a mailbox's folders, which
// come with their delimiters: slips, perhaps.
func (f FolderPatterns) Unmatched(folders iter.Seq2[string, byte]) []string {
	allow, deny := slices.Clone(f.Allow), slices.Clone(f.Deny)
	for name, delimiter := range folders {
		if delimiter != '/' && strings.IndexByte(name, '/') >= 0 {
			continue // see Visible
		}
		n := spell(nil, name, delimiter)
		allow = slices.DeleteFunc(allow, n.matches)
		deny = slices.DeleteFunc(deny, n.liesIn)
	}
	return append(allow, deny...)
}

// spelling is a folder's name as patterns have it: with "/" between its levels,
// and INBOX in upper case.
type spelling struct {
	text []byte
	// inbox says that the first level is INBOX.
	inbox bool
}

func spell(dst []byte, name string, delimiter byte) spelling {
	n := spelling{appendLevels(dst, name, delimiter), firstIsInbox(name, delimiter)}
	if n.inbox {
		copy(n.text, inbox)
	}
	return n
}

// appendLevels appends a name with "/" between its levels.
func appendLevels(dst []byte, name string, delimiter byte) []byte {
	dst = append(dst, name...)
	if delimiter != '/' && delimiter != 0 {
		for i, c := range dst {
			if c == delimiter {
				dst[i] = '/'
			}
		}
	}
	return dst
}

// matches reports whether the pattern describes the name.
func (n *spelling) matches(pattern string) bool {
	pattern, text, ok := n.behindInbox(pattern)
	return ok && folderGlob().match(pattern, text)
}

// liesIn reports whether it describes the name or one above it.
func (n *spelling) liesIn(pattern string) bool {
	pattern, text, ok := n.behindInbox(pattern)
	return ok && folderGlob().run(pattern, text, true)
}

// behindInbox takes INBOX, which is of any case, off a pattern that begins with
// it and off the name.
func (n *spelling) behindInbox(pattern string) (rest string, text []byte, ok bool) {
	switch {
	case !firstIsInbox(pattern, '/'):
		return pattern, n.text, true
	case !n.inbox:
		return "", nil, false
	}
	return pattern[len(inbox):], n.text[len(inbox):], true
}

// Creatable reports whether a folder may be made under a name: it would be
// visible, and no spelling of it that a server may take for the same, in other
// letters or another normal form, is denied. So the answer to whoever asks for
// such a name does not depend on what is there.
func (f FolderPatterns) Creatable(name string, delimiter byte) bool {
	if !f.Visible(name, delimiter) {
		return false
	}
	folded := appendLevels(nil, fold(name), delimiter)
	return !slices.ContainsFunc(f.Deny, func(p string) bool { return folderGlob().run(fold(p), folded, true) })
}

// fold gives one form to names that differ in case and normal form alone.
func fold(name string) string { return norm.NFKC.String(strings.ToLower(norm.NFKC.String(name))) }

const inbox = "INBOX"

// firstIsInbox reports whether a name's first level is INBOX; the separator is 0
// where there is none.
func firstIsInbox(name string, separator byte) bool {
	n := len(inbox)
	return len(name) >= n && upper(name[0]) == inbox[0] && strings.EqualFold(name[:n], inbox) &&
		(len(name) == n || name[n] == separator && separator != 0)
}

// canonicalFolder writes INBOX at the first level in upper case.
func canonicalFolder(pattern string) string {
	if firstIsInbox(pattern, '/') {
		return inbox + pattern[len(inbox):]
	}
	return pattern
}

// validate returns the first pattern that is wrong, as allow[0], and why.
func (f FolderPatterns) validate() (field, reason string) {
	for name, list := range lists(f.Allow, f.Deny) {
		if field, reason := validPatterns(name, list, folderPattern); reason != "" {
			return field, reason
		}
	}
	return deadPattern(f.Allow, f.denied(), folderGlob(), canonicalFolder)
}

// lists walks over an allow list and a deny list, with their names.
func lists(allow, deny []string) func(yield func(string, []string) bool) {
	return func(yield func(string, []string) bool) {
		_ = yield("allow", allow) && yield("deny", deny)
	}
}

// validPatterns checks a list's length, each pattern, and that none is there
// twice.
func validPatterns(name string, list []string, check func(string) string) (field, reason string) {
	if len(list) > MaxPatterns {
		return name, fmt.Sprintf("more than %d patterns", MaxPatterns)
	}
	for i, p := range list {
		field := fmt.Sprintf("%s[%d]", name, i)
		switch {
		case p == "":
			return field, "an empty pattern matches nothing"
		case len(p) > MaxPattern:
			return field, fmt.Sprintf("longer than %d octets", MaxPattern)
		case !utf8.ValidString(p):
			return field, "not UTF-8"
		case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return field, "holds a control character"
		case slices.Contains(list[:i], p):
			return field, "is there twice"
		}
		if reason := check(p); reason != "" {
			return field, reason
		}
	}
	return "", ""
}

func folderPattern(p string) string {
	switch {
	case strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/"):
		return `matches nothing: no folder's name begins or ends with the separator, which is written "/"`
	case strings.Contains(p, "//"):
		return "matches nothing: no level of a folder's name is empty"
	}
	return ""
}

// deadPattern finds a pattern that can never have an effect: one that allows
// only what is denied.
func deadPattern(allow, deny []string, g glob, canonical func(string) string) (field, reason string) {
	for i, a := range allow {
		for _, d := range deny {
			if g.covers(canonical(d), canonical(a)) {
				return fmt.Sprintf("allow[%d]", i), "matches nothing: " + d + " is denied"
			}
		}
	}
	return "", ""
}

// denied returns the deny list, spelled out to what lies below.
func (f FolderPatterns) denied() []string {
	all := make([]string, 0, 2*len(f.Deny))
	for _, d := range f.Deny {
		all = append(all, d, d+"/*")
	}
	return all
}

func (f FolderPatterns) equal(other FolderPatterns) bool {
	return slices.Equal(f.Allow, other.Allow) && slices.Equal(f.Deny, other.Deny)
}

// within reports that inner shows nothing that f hides. It may say no though
// it is so.
func (f FolderPatterns) within(inner FolderPatterns) bool {
	if f.IsZero() || f.equal(inner) {
		return true
	}
	return patternsWithin(f.Allow, inner.Allow, f.denied(), inner.denied(), folderGlob(), canonicalFolder)
}

// patternsWithin reports that the inner patterns allow nothing that the outer
// ones do not: each that allows is covered by one that does, and each that
// denies is covered by one that does or meets nothing that is allowed. Lists
// that are very long are compared by equal patterns alone.
func patternsWithin(outerAllow, innerAllow, outerDeny, innerDeny []string, g glob, canonical func(string) string) bool {
	long := (octets(outerAllow)+octets(outerDeny))*(octets(innerAllow)+octets(innerDeny)) > maxComparison
	covered := func(by []string, p string) bool {
		if slices.Contains(by, p) || long {
			return slices.Contains(by, p)
		}
		return slices.ContainsFunc(by, func(q string) bool { return g.covers(canonical(q), canonical(p)) })
	}
	if len(outerAllow) > 0 {
		if len(innerAllow) == 0 {
			return false
		}
		for _, p := range innerAllow {
			if !covered(outerAllow, p) {
				return false
			}
		}
	}
	for _, d := range outerDeny {
		if slices.Contains(innerDeny, d) {
			continue
		}
		meets := len(innerAllow) == 0 || long ||
			slices.ContainsFunc(innerAllow, func(p string) bool { return g.overlap(canonical(d), canonical(p)) })
		if meets && !covered(innerDeny, d) {
			return false
		}
	}
	return true
}

// maxComparison bounds the work of comparing lists of patterns with each other,
// in octets of the one times octets of the other: some milliseconds.
const maxComparison = 4 << 20

func octets(list []string) (n int) {
	for _, p := range list {
		n += len(p)
	}
	return n
}

// narrow returns folders that both show. Where patterns of both lists meet
// without one covering the other, what both allow cannot be written as a
// pattern, and is left out; ok is false when nothing is left.
func (f FolderPatterns) narrow(inner FolderPatterns) (both FolderPatterns, ok bool) {
	allow, ok := narrowPatterns(f.Allow, inner.Allow, folderGlob(), canonicalFolder)
	return FolderPatterns{Allow: allow, Deny: union(f.Deny, inner.Deny)}, ok
}

func narrowPatterns(outer, inner []string, g glob, canonical func(string) string) (both []string, ok bool) {
	switch {
	case len(outer) == 0:
		return slices.Clone(inner), true
	case len(inner) == 0:
		return slices.Clone(outer), true
	}
	for _, p := range inner {
		if slices.ContainsFunc(outer, func(q string) bool { return g.covers(canonical(q), canonical(p)) }) {
			both = append(both, p)
		}
	}
	for _, p := range outer {
		if !slices.Contains(both, p) && slices.ContainsFunc(inner, func(q string) bool { return g.covers(canonical(q), canonical(p)) }) {
			both = append(both, p)
		}
	}
	return both, len(both) > 0
}

// union returns what is in either list, in order.
func union[T comparable](a, b []T) []T {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

func (f FolderPatterns) clone() FolderPatterns {
	return FolderPatterns{Allow: slices.Clone(f.Allow), Deny: slices.Clone(f.Deny)}
}
