// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// RecipientPatterns choose to whom a message may be sent. The zero value chooses
// everybody.
//
// A pattern is an address in which "*" stands for anything on its side of the
// "@": *@firm.example, *@*.firm.example, anna*@firm.example. Case does not
// count. An international domain is written in its ASCII form (xn--…).
type RecipientPatterns struct {
	// Allow lists who may be written to; empty: everybody.
	Allow []string `json:"allow,omitempty"`
	// Deny lists who may not, whatever Allow says.
	Deny []string `json:"deny,omitempty"`
}

// IsZero reports whether everybody may be written to.
func (r RecipientPatterns) IsZero() bool { return len(r.Allow) == 0 && len(r.Deny) == 0 }

// recipientGlob compares canonical patterns with each other.
func recipientGlob() glob { return glob{} }

// Allowed reports whether the address may be written to. It allocates nothing for
// addresses of at most maxQuick octets.
//
// Patterns describe plain addresses alone. One with a quoted local part, an
// address literal, or a domain that is not ASCII may be another spelling of an
// address that is denied, so it is refused as soon as there are patterns.
func (r RecipientPatterns) Allowed(address string) bool {
	if r.IsZero() {
		return true
	}
	if !plainAddress(address) {
		return false
	}
	var quick [maxQuick]byte
	folded := append(quick[:0], address...)
	for i, c := range folded {
		folded[i] = upper(c)
	}
	matches := func(pattern string) bool { return glob{fold: true}.match(pattern, folded) }
	return (len(r.Allow) == 0 || slices.ContainsFunc(r.Allow, matches)) && !slices.ContainsFunc(r.Deny, matches)
}

// canonicalRecipient is in upper case, for comparing patterns. Only ASCII has
// cases here: to Unicode U+212A is another letter k, and to a mail server not.
func canonicalRecipient(pattern string) string {
	b := []byte(pattern)
	for i, c := range b {
		b[i] = upper(c)
	}
	return string(b)
}

// plainAddress reports whether an address has but one spelling, case aside.
func plainAddress(address string) bool {
	at := strings.IndexByte(address, '@')
	if at < 1 || at == len(address)-1 {
		return false
	}
	for i := range at {
		switch address[i] {
		case '"', '\\', ' ', '(', ')', '<', '>', ',', ';', ':':
			return false
		}
	}
	dot := true // as if there were one before
	for i := at + 1; i < len(address); i++ {
		c := upper(address[i])
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && (c != '.' || dot) {
			return false
		}
		dot = c == '.'
	}
	return !dot
}

// validate returns the first pattern that is wrong, as allow[0], and why.
func (r RecipientPatterns) validate() (field, reason string) {
	for name, list := range lists(r.Allow, r.Deny) {
		if field, reason := validPatterns(name, list, recipientPattern); reason != "" {
			return field, reason
		}
	}
	return deadPattern(r.Allow, r.Deny, recipientGlob(), canonicalRecipient)
}

func recipientPattern(p string) string {
	// A wildcard stands where a letter could.
	if !plainAddress(strings.ReplaceAll(p, "*", "x")) {
		return "matches nothing: write anna@firm.example, *@firm.example or *@*.firm.example, an international domain as xn--"
	}
	return ""
}

func (r RecipientPatterns) equal(other RecipientPatterns) bool {
	return slices.Equal(r.Allow, other.Allow) && slices.Equal(r.Deny, other.Deny)
}

func (r RecipientPatterns) within(inner RecipientPatterns) bool {
	if r.IsZero() || r.equal(inner) {
		return true
	}
	return patternsWithin(r.Allow, inner.Allow, r.Deny, inner.Deny, recipientGlob(), canonicalRecipient)
}

// narrow is as for folders.
func (r RecipientPatterns) narrow(inner RecipientPatterns) (both RecipientPatterns, ok bool) {
	allow, ok := narrowPatterns(r.Allow, inner.Allow, recipientGlob(), canonicalRecipient)
	return RecipientPatterns{Allow: allow, Deny: union(r.Deny, inner.Deny)}, ok
}

func (r RecipientPatterns) clone() RecipientPatterns {
	return RecipientPatterns{Allow: slices.Clone(r.Allow), Deny: slices.Clone(r.Deny)}
}
