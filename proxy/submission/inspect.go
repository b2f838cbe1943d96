// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// Limits of a message's structure.
const (
	maxDepth     = 20 // multiparts within each other
	maxMultipart = 50 // in all
	maxParts     = 1000
	maxBoundary  = 70 // RFC 2046 §5.1.1
)

// inspector follows a message's structure (RFC 2045, RFC 2046) while it
// streams by, and holds headers, texts and file names against the terms' rules.
// It holds a line, a header and a few windows of text, whatever the message's
// size.
//
// A reader that is more lenient must not see another message than the
// inspector did. So it accepts what all readers understand alike, and what is
// not that cannot be inspected: the message is refused.
type inspector struct {
	found findings

	line []byte // begun and not ended
	mode inspectMode
	head []byte // of the part under way, line by line
	text *textPart

	// open are the multiparts that the part under way is in, outermost first;
	// boundaries those of all that the message has had.
	open       []multipart
	boundaries []string
	parts      int
	// asMessage says that a part without a Content-Type is a message.
	asMessage bool
}

type multipart struct {
	boundary string
	digest   bool
	begun    bool // it has a part
	closed   bool // its last delimiter was seen
}

type inspectMode int

const (
	inHeader inspectMode = iota
	inText
	inOther   // octets that are not inspected
	inOutside // what stands before and after a multipart's parts
)

// errAttachment is a part that a reader offers as a file.
type errAttachment struct{ what string }

func (e errAttachment) Error() string { return e.what }

var (
	errLongLine       = fmt.Errorf("a line is longer than %d octets", maxHeaderLine)
	errLongHeader     = errors.New("a part's header is too long")
	errPartHeader     = errors.New("the header of a part has no end")
	errBoundary       = errors.New("a multipart's boundary is missing or malformed")
	errBoundaryAlike  = errors.New("two multiparts' boundaries begin alike")
	errBoundaryLine   = errors.New("a line begins with a multipart's boundary and is no delimiter, or not where one may stand")
	errUnclosed       = errors.New("a multipart has no end")
	errTooManyParts   = errors.New("it has too many parts")
	errHeaderTwice    = errors.New("a field of a part's header stands there twice")
	errMultipartCoded = errors.New("a multipart or a message in it has a transfer encoding")
	errOpaque         = errors.New("a part is encrypted, or made so that readers unpack it")
)

func newInspector(rules *contentRules) *inspector {
	return &inspector{found: findings{rules: rules, where: make([]string, len(rules.rules))}}
}

// write looks at octets of the message; an error refuses it.
func (i *inspector) write(run []byte) error {
	for {
		n := bytes.IndexByte(run, '\n')
		if n < 0 {
			i.line = append(i.line, run...)
			if len(i.line) > maxHeaderLine+1 { // with a CR
				return errLongLine
			}
			return nil
		}
		line := run[:n]
		if len(i.line) > 0 {
			i.line = append(i.line, line...)
			line = i.line
		}
		line = bytes.TrimSuffix(line, []byte("\r")) // the wire let no LF by without it
		if len(line) > maxHeaderLine {
			return errLongLine
		}
		if err := i.take(line); err != nil {
			return err
		}
		i.line, run = i.line[:0], run[n+1:]
	}
}

// end is called at the end of the message.
func (i *inspector) end() error {
	switch {
	case len(i.line) > 0:
		return errLongLine
	case i.mode == inHeader:
		return errPartHeader
	}
	if err := i.endPart(); err != nil {
		return err
	}
	for _, m := range i.open {
		if !m.closed {
			return errUnclosed
		}
	}
	return nil
}

// abandon ends what write started.
func (i *inspector) abandon() {
	if i.text != nil {
		i.text.abandon()
		i.text = nil
	}
}

// take looks at one line without its CRLF.
func (i *inspector) take(line []byte) error {
	if bytes.HasPrefix(line, []byte("--")) && len(i.boundaries) > 0 {
		if delimits, err := i.delimiter(line[2:]); delimits || err != nil {
			return err
		}
	}
	switch i.mode {
	case inHeader:
		if len(line) == 0 {
			return i.endHeader()
		}
		if len(i.head)+len(line) > maxHeader {
			return errLongHeader
		}
		i.head = append(append(i.head, line...), crlf...)
	case inText, inOutside:
		return i.text.line(line)
	}
	return nil
}

// delimiter handles a line that begins with the boundary of a multipart, of
// one that is over too. RFC 2046 §5.1.1 has readers compare the beginning of a
// line alone, and they do not agree on the rest.
func (i *inspector) delimiter(line []byte) (delimits bool, err error) {
	for _, b := range i.boundaries {
		rest, found := bytes.CutPrefix(line, []byte(b))
		if !found {
			continue
		}
		last := false
		if rest = bytes.TrimRight(rest, " \t"); bytes.Equal(rest, []byte("--")) {
			last, rest = true, nil
		}
		if len(rest) > 0 {
			return false, errBoundaryLine
		}
		return true, i.turn(b, last)
	}
	return false, nil
}

// turn ends a part at a delimiter, and begins the next.
func (i *inspector) turn(boundary string, last bool) error {
	at := len(i.open) - 1
	for at >= 0 && i.open[at].boundary != boundary && i.open[at].closed {
		at--
	}
	switch {
	case at < 0 || i.open[at].boundary != boundary || i.open[at].closed || last && !i.open[at].begun:
		return errBoundaryLine
	case i.mode == inHeader:
		return errPartHeader
	}
	if err := i.endPart(); err != nil {
		return err
	}
	i.open = i.open[:at+1]
	m := &i.open[at]
	if last {
		m.closed = true
		return i.outside()
	}
	m.begun = true
	return i.begin(m.digest)
}

// begin begins a part's header.
func (i *inspector) begin(asMessage bool) error {
	if i.parts++; i.parts > maxParts {
		return errTooManyParts
	}
	i.mode, i.head, i.asMessage = inHeader, i.head[:0], asMessage
	return nil
}

// outside begins what stands before or after parts: to a reader without MIME
// it is text.
func (i *inspector) outside() (err error) {
	i.mode = inOutside
	i.text, err = newTextPart(&i.found, textKind{raw: true})
	return err
}

func (i *inspector) endPart() error {
	if i.text == nil {
		return nil
	}
	err := i.text.end()
	i.text = nil
	return err
}

// part is what a header says of its part.
type part struct {
	kind        *mediaValue // nil: the field is missing
	disposition *mediaValue
	encoding    string // in lower case; "": missing
}

// endHeader judges a header, and decides how the body is to be read.
func (i *inspector) endHeader() error {
	p, err := i.readHeader()
	if err != nil {
		return err
	}
	kind := "text/plain"
	if i.asMessage {
		kind = "message/rfc822"
	}
	if p.kind != nil {
		kind = p.kind.kind
	}
	main, _, _ := strings.Cut(kind, "/")
	identity := p.encoding == "" || p.encoding == "7bit" || p.encoding == "8bit" || p.encoding == "binary"
	noAttachments := i.found.rules.noAttachments
	switch {
	case main == "multipart":
		if !identity {
			return errMultipartCoded
		}
		if kind == "multipart/encrypted" && len(i.found.rules.rules) > 0 {
			return errOpaque
		}
		return i.enter(p.kind)
	case noAttachments && (kind != "text/plain" && kind != "text/html" || p.named() || p.disposition != nil && p.disposition.kind != "inline"):
		return errAttachment{"it has a part of type " + kind + " that is not plain text or HTML, or is a file"}
	case kind == "message/rfc822" || kind == "message/global" || kind == "message/news":
		if !identity {
			return errMultipartCoded
		}
		return i.begin(false)
	case kind == "message/partial" || kind == "message/external-body":
		return errOpaque
	case main == "text" || main == "message":
		i.mode = inText
		i.text, err = newTextPart(&i.found, textKindOf(p))
		return err
	}
	switch kind {
	case "application/pkcs7-mime", "application/x-pkcs7-mime", "application/ms-tnef", "application/vnd.ms-tnef", "application/pgp-encrypted":
		return errOpaque
	}
	i.mode = inOther
	_, err = newTransferDecoder(p.encoding)
	return err
}

// named reports whether the part has a file name.
func (p *part) named() bool { return p.kind.has("name") || p.disposition.has("filename") }

// readHeader reads a part's header, and matches it and the file names in it.
func (i *inspector) readHeader() (*part, error) {
	p, seen := &part{}, make(map[string]bool)
	for raw := i.head; len(raw) > 0; {
		written, value, rest, refused := nextField(raw)
		if refused != nil {
			return nil, errors.New(refused.text)
		}
		name := asciiLower(string(written))
		text := string(unfold(value))
		decoded, err := decodeWordsStrictly(text)
		if err != nil {
			return nil, fmt.Errorf("the field %s cannot be decoded", name)
		}
		raw = rest
		if strings.HasPrefix(name, "content-") || name == "mime-version" {
			if seen[name] {
				return nil, errHeaderTwice
			}
			seen[name] = true
		}
		for _, reading := range []string{text, decoded} {
			if err := i.found.matchShort(string(written)+":"+reading, "the header field "+name); err != nil {
				return nil, err
			}
			if decoded == text {
				break
			}
		}
		switch name {
		case "content-type":
			if p.kind, err = parseMediaValue(text, true); err != nil {
				return nil, fmt.Errorf("a Content-Type cannot be read: %w", err)
			}
		case "content-disposition":
			if p.disposition, err = parseMediaValue(text, false); err != nil {
				return nil, fmt.Errorf("a Content-Disposition cannot be read: %w", err)
			}
		case "content-transfer-encoding":
			p.encoding = asciiLower(strings.Trim(text, " \t"))
			if _, err := newTransferDecoder(p.encoding); err != nil || p.encoding == "" {
				return nil, errTransferEncoding
			}
		}
	}
	return p, i.matchNames(p)
}

// matchNames matches every name that a reader could give the file.
func (i *inspector) matchNames(p *part) error {
	for _, from := range []struct {
		value *mediaValue
		base  string
	}{{p.kind, "name"}, {p.disposition, "filename"}} {
		names, err := from.value.fileNames(from.base)
		if err != nil {
			return fmt.Errorf("a file name cannot be read: %w", err)
		}
		for _, name := range names {
			if err := i.found.matchShort(name, "a file name"); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter begins a multipart.
func (i *inspector) enter(kind *mediaValue) error {
	p, ok := kind.params["boundary"]
	if !ok || p.escaped || !isBoundary(p.value) {
		return errBoundary
	}
	for _, other := range i.boundaries {
		if strings.HasPrefix(other, p.value) || strings.HasPrefix(p.value, other) {
			return errBoundaryAlike
		}
	}
	if len(i.open) == maxDepth || len(i.boundaries) == maxMultipart {
		return errTooManyParts
	}
	i.open = append(i.open, multipart{boundary: p.value, digest: kind.kind == "multipart/digest"})
	i.boundaries = append(i.boundaries, p.value)
	return i.outside()
}

// isBoundary checks RFC 2046 §5.1.1's bchars.
func isBoundary(s string) bool {
	if s == "" || len(s) > maxBoundary || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("'()+_,-./:=? ", c) < 0 {
			return false
		}
	}
	return true
}
