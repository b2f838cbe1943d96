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

// keyKind says what follows a key's name.
type keyKind int

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

func kindOf(name string) keyKind {
	switch name {
	case "ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN",
		"UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN":
		return bareKey
	case "BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO":
		return textKey
	case "HEADER":
		return headerKey
	case "KEYWORD", "UNKEYWORD":
		return flagKey
	case "BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE":
		return dateKey
	case "LARGER", "SMALLER":
		return sizeKey
	case "NOT":
		return notKey
	case "OR":
		return orKey
	case "RECENT", "NEW", "OLD", "UID", "MODSEQ", "YOUNGER", "OLDER", "CHARSET", "RETURN", "FUZZY", "$":
		return unstableKey
	}
	return unknownKey
}

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

// parse reads a slice of any length, which may hide every message.
func (s Slice) parse() ([]searchKey, error) {
	p := &sliceParser{text: string(s)}
	keys, err := p.keys(0)
	if err == nil && p.at < len(p.text) {
		err = p.errorf("a parenthesis too many")
	}
	return keys, err
}

type sliceParser struct {
	text string
	at   int
}

func (p *sliceParser) errorf(format string, args ...any) error {
	return fmt.Errorf("at octet %d: "+format, append([]any{p.at + 1}, args...)...)
}

// keys reads keys with one space between them, to the end or to a closing
// parenthesis.
func (p *sliceParser) keys(depth int) ([]searchKey, error) {
	var keys []searchKey
	for {
		key, err := p.key(depth)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
		if p.at == len(p.text) || p.text[p.at] == ')' {
			return keys, nil
		}
		if err := p.space(); err != nil {
			return nil, err
		}
	}
}

func (p *sliceParser) space() error {
	if p.at == len(p.text) || p.text[p.at] != ' ' {
		return p.errorf("one space is wanted here")
	}
	p.at++
	return nil
}

func (p *sliceParser) key(depth int) (k searchKey, err error) {
	if depth > MaxSliceDepth {
		return k, p.errorf("nested deeper than %d", MaxSliceDepth)
	}
	if p.at < len(p.text) && p.text[p.at] == '(' {
		p.at++
		k.name = "("
		if k.keys, err = p.keys(depth + 1); err != nil {
			return k, err
		}
		if p.at == len(p.text) {
			return k, p.errorf("a closing parenthesis is missing")
		}
		p.at++
		return k, nil
	}
	began := p.at
	k.name = strings.ToUpper(p.atom())
	kind := kindOf(k.name)
	switch {
	case k.name == "":
		return k, p.errorf("a search key is wanted here")
	case kind == unstableKey || isNumbers(k.name):
		p.at = began
		return k, p.errorf("%s means other messages in each folder, session or view, or another charset: a slice cannot use it", k.name)
	case kind == unknownKey:
		p.at = began
		return k, p.errorf("there is no search key %s", k.name)
	case kind == bareKey:
		return k, nil
	}
	if err := p.space(); err != nil {
		return k, err
	}
	return k, p.argument(&k, kind, depth)
}

// argument reads what follows a key's name and its space.
func (p *sliceParser) argument(k *searchKey, kind keyKind, depth int) (err error) {
	switch kind {
	case textKey:
		k.text, err = p.astring()
	case headerKey:
		if k.field, err = p.astring(); err != nil {
			return err
		}
		if k.field == "" || strings.Trim(strings.ToLower(k.field), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return p.errorf("not the name of a header field")
		}
		if err = p.space(); err == nil {
			k.text, err = p.astring()
		}
	case flagKey:
		if k.text = p.atom(); k.text == "" {
			return p.errorf("a keyword is wanted here; \\Seen and its like have search keys of their own")
		}
	case sizeKey:
		digits := p.atom()
		k.size, err = strconv.ParseUint(digits, 10, 63)
		if err != nil || strings.Trim(digits, "0123456789") != "" {
			return p.errorf("a number of octets is wanted here")
		}
	case dateKey:
		return p.date(k)
	case notKey, orKey:
		n := 1
		if kind == orKey {
			n = 2
		}
		for i := range n {
			if i > 0 {
				if err := p.space(); err != nil {
					return err
				}
			}
			key, err := p.key(depth + 1)
			if err != nil {
				return err
			}
			k.keys = append(k.keys, key)
		}
	}
	return err
}

// date reads 1-Feb-2026, in quotes or not, or @-30d.
func (p *sliceParser) date(k *searchKey) error {
	text, err := p.astring()
	if err != nil {
		return err
	}
	if rest, ok := strings.CutPrefix(text, "@-"); ok {
		digits, ok := strings.CutSuffix(rest, "d")
		days, err := strconv.Atoi(digits)
		if !ok || err != nil || strings.Trim(digits, "0123456789") != "" || days > MaxRelativeDays {
			return p.errorf("a relative date is written @-30d, with at most %d days", MaxRelativeDays)
		}
		k.relative, k.days = true, days
		return nil
	}
	day, err := time.Parse("2-Jan-2006", text)
	// time.Parse takes 01 and, in month names, any case, as RFC 9051 does.
	if err != nil || day.Year() < 1 {
		return p.errorf("a date is wanted here, such as 1-Feb-2026 or @-30d")
	}
	k.date = day
	return nil
}

// atom reads an atom (RFC 9051 §9, ATOM-CHAR), which may be empty.
func (p *sliceParser) atom() string {
	began := p.at
	for p.at < len(p.text) && p.text[p.at] > ' ' && p.text[p.at] < 0x7f && !strings.ContainsRune(`(){%*"\]`, rune(p.text[p.at])) {
		p.at++
	}
	return p.text[began:p.at]
}

// astring reads an atom, in which "]" is allowed, or a quoted string.
func (p *sliceParser) astring() (string, error) {
	if p.at == len(p.text) || p.text[p.at] != '"' {
		began := p.at
		for p.atom() != "" || (p.at < len(p.text) && p.text[p.at] == ']') {
			if p.at < len(p.text) && p.text[p.at] == ']' {
				p.at++
			}
		}
		switch {
		case p.at > began:
			return p.text[began:p.at], nil
		case p.at < len(p.text) && p.text[p.at] == '{':
			return "", p.errorf("a slice holds no literal: put the text in quotes")
		}
		return "", p.errorf("a word or a text in quotes is wanted here, in ASCII")
	}
	p.at++
	var b strings.Builder
	for ; p.at < len(p.text); p.at++ {
		c := p.text[p.at]
		switch {
		case c == '"':
			p.at++
			return b.String(), nil
		case c < ' ' || c >= 0x7f:
			return "", p.errorf("a text in quotes is ASCII, without control characters")
		case c == '\\':
			p.at++
			if p.at == len(p.text) || (p.text[p.at] != '"' && p.text[p.at] != '\\') {
				return "", p.errorf(`only " and \ are quoted by \`)
			}
			c = p.text[p.at]
		}
		b.WriteByte(c)
	}
	return "", p.errorf("a quote is not closed")
}

// isNumbers reports whether a word is a set of message numbers.
func isNumbers(word string) bool { return word != "" && strings.Trim(word, "0123456789,:*") == "" }

// contradiction finds keys that no message fulfils together.
func contradiction(keys []searchKey) error {
	var seen []string
	for i := range keys {
		text, negative := strings.TrimPrefix(keys[i].String(), "NOT "), keys[i].name == "NOT"
		if strings.HasPrefix(text, "UN") {
			text, negative = text[2:], !negative
		}
		this, other := "+"+text, "-"+text
		if negative {
			this, other = other, this
		}
		if text == "ALL" && negative || slices.Contains(seen, other) {
			return fmt.Errorf("hides every message: %s contradicts itself", text)
		}
		seen = append(seen, this)
	}
	return nil
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
