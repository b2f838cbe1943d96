// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"fmt"
)

// header is what a message's header says about its sender.
type header struct {
	from      Address
	messageID string
	// lookable says that messageID is well formed, so that it can be searched.
	lookable bool
}

// field is one that is looked at; the zero value is any other.
type field uint16

const (
	fieldFrom field = 1 << iota
	fieldSender
	fieldResent // From or Sender
	fieldMessageID
	fieldDate
	fieldReplyTo
	fieldTo
	fieldCc
	fieldBcc
	fieldInReplyTo
	fieldReferences
	fieldSubject
)

// once are the fields that RFC 5322 §3.6 allows at most once. Who repeats one
// lets the reader choose.
const once = ^fieldResent

var fields = map[string]field{
	"from": fieldFrom, "sender": fieldSender, "resent-from": fieldResent, "resent-sender": fieldResent,
	"message-id": fieldMessageID, "date": fieldDate, "reply-to": fieldReplyTo, "to": fieldTo, "cc": fieldCc,
	"bcc": fieldBcc, "in-reply-to": fieldInReplyTo, "references": fieldReferences, "subject": fieldSubject,
}

// fieldOf knows a field by its name, in any case.
func fieldOf(name []byte) field {
	var lower [16]byte // longer than the longest that is looked at
	if len(name) > len(lower) {
		return 0
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return fields[string(lower[:len(name)])]
}

// judgeHeader reads a whole header, without the empty line that ends it, and
// holds it against the own addresses. It accepts less than RFC 5322 does: for
// whatever readers are known to disagree about, the message is refused rather
// than guessed.
func judgeHeader(raw []byte, own func(Address) bool, international bool) (*header, *reply) {
	h := &header{}
	var seen field
	for len(raw) > 0 {
		name, value, rest, refused := nextField(raw)
		if refused != nil {
			return nil, refused
		}
		raw = rest
		f := fieldOf(name)
		if seen&f&once != 0 {
			return nil, malformedHeader("the field %s stands there twice", asciiLower(string(name)))
		}
		seen |= f
		if refused := h.judge(f, name, value, own, international); refused != nil {
			return nil, refused
		}
	}
	if seen&fieldFrom == 0 {
		return nil, refusal(550, "5.7.1", ruleHeaderFrom, "the message has no From field")
	}
	return h, nil
}

// judge looks at one field; what carries no sender's address passes.
func (h *header) judge(f field, name, value []byte, own func(Address) bool, international bool) *reply {
	rule := ""
	switch f {
	case fieldFrom:
		rule = ruleHeaderFrom
	case fieldSender:
		rule = ruleHeaderSender
	case fieldResent:
		rule = ruleHeaderResent
	case fieldMessageID:
		h.messageID, h.lookable = readMessageID(value)
		return nil
	default:
		return nil
	}
	a, err := parseSender(string(unfold(value)), own, international)
	if err != nil {
		r := refusal(550, "5.7.1", rule, fmt.Sprintf("the field %s is refused: %v", asciiLower(string(name)), err))
		r.address = a.String()
		return r
	}
	if f == fieldFrom {
		h.from = a
	}
	return nil
}

// nextField cuts one field with its folded lines off a header.
func nextField(raw []byte) (name, value, rest []byte, refused *reply) {
	colon := -1
	for i, c := range raw {
		if c == ':' {
			colon = i
			break
		}
		// RFC 5322 §3.6.8 ftext: no space before the colon, no mbox "From ",
		// no continuation without a field.
		if c <= ' ' || c > '~' {
			break
		}
	}
	// A name may begin with a dot, by the letter; nobody's does, and it would be
	// one more line to stuff.
	if colon < 1 || raw[0] == '.' {
		return nil, nil, nil, malformedHeader("a line of the header is no field")
	}
	end := 0
	for {
		n := bytes.Index(raw[end:], crlf)
		if n < 0 {
			return nil, nil, nil, malformedHeader("its last line does not end")
		}
		line := raw[end : end+n]
		if n > maxHeaderLine {
			return nil, nil, nil, malformedHeader("a line is longer than %d octets", maxHeaderLine)
		}
		// A line of blanks ends the header for some readers and folds it for
		// others (RFC 5322 §4.2 obs-FWS).
		if end > 0 && len(bytes.Trim(line, " \t")) == 0 {
			return nil, nil, nil, malformedHeader("a line of it is blank")
		}
		if i := bytes.IndexFunc(line, isControl); i >= 0 {
			return nil, nil, nil, malformedHeader("it holds a control character")
		}
		end += n + len(crlf)
		if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
			return raw[:colon], raw[colon+1 : end-len(crlf)], raw[end:], nil
		}
	}
}

var crlf = []byte("\r\n")

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func malformedHeader(format string, args ...any) *reply {
	return refusal(554, "5.6.0", ruleMalformedHeader, "the message's header is malformed: "+fmt.Sprintf(format, args...))
}

// unfold takes out the line breaks; the blank after each of them stays (RFC
// 5322 §2.2.3).
func unfold(value []byte) []byte { return bytes.ReplaceAll(value, crlf, nil) }

// readMessageID returns the field's value for the record, and whether it is a
// msg-id that IMAP can be asked for.
func readMessageID(value []byte) (id string, lookable bool) {
	b := bytes.Trim(unfold(value), " \t")
	if len(b) > maxHeaderLine {
		b = b[:maxHeaderLine]
	}
	id = cleanText(string(b), false)
	if len(b) < 5 || b[0] != '<' || b[len(b)-1] != '>' || !bytes.Contains(b, []byte("@")) {
		return id, false
	}
	for _, c := range b[1 : len(b)-1] {
		if c <= ' ' || c > '~' || c == '<' || c == '>' || c == '"' || c == '\\' {
			return id, false
		}
	}
	return id, true
}
