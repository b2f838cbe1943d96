// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keyKind says what follows a key's name.
type keyKind int

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
