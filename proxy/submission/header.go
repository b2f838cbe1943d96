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

// once are the fields that RFC 5322 §3.6 allows at most once. Who repeats one
// lets the reader choose.
var once = map[string]bool{
	"date": true, "from": true, "sender": true, "reply-to": true, "to": true, "cc": true, "bcc": true,
	"message-id": true, "in-reply-to": true, "references": true, "subject": true,
}

// judgeHeader reads a whole header, without the empty line that ends it, and
// holds it against the own addresses. It accepts less than RFC 5322 does: for
// whatever readers are known to disagree about, the message is refused rather
// than guessed.
func judgeHeader(raw []byte, own func(Address) bool, international bool) (*header, *reply) {
	h := &header{}
	seen := make(map[string]bool, 16)
	for len(raw) > 0 {
		name, value, rest, refused := nextField(raw)
		if refused != nil {
			return nil, refused
		}
		raw = rest
		if once[name] && seen[name] {
			return nil, malformedHeader("the field %s stands there twice", name)
		}
		seen[name] = true
		if refused := h.judge(name, value, own, international); refused != nil {
			return nil, refused
		}
	}
	if !seen["from"] {
		return nil, refusal(550, "5.7.1", ruleHeaderFrom, "the message has no From field")
	}
	return h, nil
}

// judge looks at one field; what carries no sender's address passes.
func (h *header) judge(name string, value []byte, own func(Address) bool, international bool) *reply {
	rule := ""
	switch name {
	case "from":
		rule = ruleHeaderFrom
	case "sender":
		rule = ruleHeaderSender
	case "resent-from", "resent-sender":
		rule = ruleHeaderResent
	case "message-id":
		h.messageID, h.lookable = readMessageID(value)
		return nil
	default:
		return nil
	}
	a, err := parseSender(string(unfold(value)), own, international)
	if err != nil {
		r := refusal(550, "5.7.1", rule, fmt.Sprintf("the field %s is refused: %v", name, err))
		r.address = a.String()
		return r
	}
	if name == "from" {
		h.from = a
	}
	return nil
}

// nextField cuts one field with its folded lines off a header.
func nextField(raw []byte) (name string, value, rest []byte, refused *reply) {
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
		return "", nil, nil, malformedHeader("a line of the header is no field")
	}
	name = asciiLower(string(raw[:colon]))
	end := 0
	for {
		n := bytes.Index(raw[end:], crlf)
		if n < 0 {
			return "", nil, nil, malformedHeader("its last line does not end")
		}
		line := raw[end : end+n]
		if n > maxHeaderLine {
			return "", nil, nil, malformedHeader("a line is longer than %d octets", maxHeaderLine)
		}
		// A line of blanks ends the header for some readers and folds it for
		// others (RFC 5322 §4.2 obs-FWS).
		if end > 0 && len(bytes.Trim(line, " \t")) == 0 {
			return "", nil, nil, malformedHeader("a line of it is blank")
		}
		if i := bytes.IndexFunc(line, isControl); i >= 0 {
			return "", nil, nil, malformedHeader("it holds a control character")
		}
		end += n + len(crlf)
		if end == len(raw) || raw[end] != ' ' && raw[end] != '\t' {
			return name, raw[colon+1 : end-len(crlf)], raw[end:], nil
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
