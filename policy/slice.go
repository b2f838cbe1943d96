// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a slice.
const (
	// MaxSlice is a slice's length in octets.
	MaxSlice = 1000
	// MaxSliceDepth is how deep NOT, OR and parentheses nest.
	MaxSliceDepth = 16
	// MaxRelativeDays is how far back a relative date reaches.
	MaxRelativeDays = 36500
)

// Slice is a search program of IMAP (RFC 9051 §6.4.4) that chooses which
// messages are visible; empty: all. In the place of a date "@-30d" stands for
// the date thirty days ago.
//
// It holds no literal, no charset, and nothing that means another message in
// another folder, session or view: no message numbers, UIDs, "$" or MODSEQ, and
// none of RECENT, NEW and OLD.
type Slice string

// Program is a slice that was parsed. It is immutable.
type Program struct{ keys []searchKey }

// searchKey is a node of a program.
type searchKey struct {
	// name in upper case; "(" for keys in parentheses.
	name string
	// field and text are a header's field and a string or flag to look for.
	field, text string
	// size is LARGER's and SMALLER's.
	size uint64
	// date is the day of a date; days, when relative, is how long ago it is.
	date     time.Time
	relative bool
	days     int
	// keys are NOT's one, OR's two, or all in the parentheses.
	keys []searchKey
}

const (
	unknownKey keyKind = iota
	bareKey
	textKey
	headerKey
	flagKey
	dateKey
	sizeKey
	notKey
	orKey
	unstableKey
)

// Parse reads a slice. An error says what is wrong and at which octet,
// counted from 1.
func (s Slice) Parse() (*Program, error) {
	if len(s) > MaxSlice {
		return nil, fmt.Errorf("longer than %d octets", MaxSlice)
	}
	keys, err := s.parse()
	if err == nil {
		err = contradiction(keys)
	}
	if err != nil {
		return nil, err
	}
	return &Program{keys}, nil
}

// String returns the key as a slice has it.
func (k *searchKey) String() string {
	return string(k.append(nil, func(k *searchKey) string { return "@-" + strconv.Itoa(k.days) + "d" }))
}

// append writes the key; relative gives the text of a relative date.
func (k *searchKey) append(b []byte, relative func(*searchKey) string) []byte {
	if k.name == "(" {
		return append(appendKeys(append(b, '('), k.keys, relative), ')')
	}
	b = append(b, k.name...)
	switch kindOf(k.name) {
	case textKey:
		b = appendQuoted(append(b, ' '), k.text)
	case headerKey:
		b = appendQuoted(append(appendQuoted(append(b, ' '), k.field), ' '), k.text)
	case flagKey:
		b = append(append(b, ' '), k.text...)
	case sizeKey:
		b = strconv.AppendUint(append(b, ' '), k.size, 10)
	case dateKey:
		b = append(b, ' ')
		if k.relative {
			b = append(b, relative(k)...)
		} else {
			b = append(b, imapDate(k.date)...)
		}
	case notKey, orKey:
		b = appendKeys(append(b, ' '), k.keys, relative)
	}
	return b
}

func appendKeys(b []byte, keys []searchKey, relative func(*searchKey) string) []byte {
	for i := range keys {
		if i > 0 {
			b = append(b, ' ')
		}
		b = keys[i].append(b, relative)
	}
	return b
}

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

func imapDate(t time.Time) string { return t.Format("2-Jan-2006") }

// Keys returns the search keys to send upstream on a day; the day is the date
// that it has in its own location.
func (p *Program) Keys(day time.Time) string {
	year, month, date := day.Date()
	return string(appendKeys(nil, p.keys, func(k *searchKey) string {
		return imapDate(time.Date(year, month, date-k.days, 0, 0, 0, 0, time.UTC))
	}))
}

// String returns the program as a slice.
func (p *Program) String() string {
	return string(appendKeys(nil, p.keys, func(k *searchKey) string { return "@-" + strconv.Itoa(k.days) + "d" }))
}

// Relative reports whether the keys change from day to day.
func (p *Program) Relative() bool {
	return contains(p.keys, func(k *searchKey) bool { return k.relative })
}

// Flags returns the flags and keywords that the program looks at, each once:
// whoever can change them can choose what he sees.
func (p *Program) Flags() []string {
	var flags []string
	contains(p.keys, func(k *searchKey) bool {
		flag := ""
		switch name := strings.TrimPrefix(k.name, "UN"); name {
		case "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN":
			flag = `\` + name[:1] + strings.ToLower(name[1:])
		case "KEYWORD":
			flag = k.text
		}
		if flag != "" && !slices.ContainsFunc(flags, func(f string) bool { return strings.EqualFold(f, flag) }) {
			flags = append(flags, flag)
		}
		return false
	})
	return flags
}

// contains walks over the keys until f finds one.
func contains(keys []searchKey, f func(*searchKey) bool) bool {
	return slices.ContainsFunc(keys, func(k searchKey) bool { return f(&k) || contains(k.keys, f) })
}

func (s Slice) equal(other Slice) bool { return s == other }

// within reports that inner hides whatever s does: the keys of s stand among
// its own. An empty inner hides nothing.
func (s Slice) within(inner Slice) bool {
	if s == "" || s == inner {
		return true
	}
	outerKeys, err := s.parse()
	if err != nil {
		return false
	}
	innerKeys, err := inner.parse()
	if err != nil {
		return false
	}
	for i := range outerKeys {
		k := &outerKeys[i]
		if !slices.ContainsFunc(innerKeys, func(other searchKey) bool { return k.tighter(&other) }) {
			return false
		}
	}
	return true
}

// tighter reports that other chooses nothing that k does not.
func (k *searchKey) tighter(other *searchKey) bool {
	if k.name == other.name {
		switch {
		case k.name == "SINCE" || k.name == "SENTSINCE":
			if k.relative && other.relative {
				return other.days <= k.days
			}
			if !k.relative && !other.relative {
				return !other.date.Before(k.date)
			}
		case k.name == "SMALLER":
			return other.size <= k.size
		case k.name == "LARGER":
			return other.size >= k.size
		}
	}
	return k.String() == other.String()
}

// and returns a slice that shows what both show.
func (s Slice) and(inner Slice) Slice {
	switch {
	case s == "" || s.within(inner):
		return inner
	case inner == "" || inner.within(s):
		return s
	}
	return s + " " + inner
}
