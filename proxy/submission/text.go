// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"regexp"
)

// textKind is how a text part is to be read.
type textKind struct {
	charset, encoding string
	html, delsp       bool
	// raw is for what no header describes: it is matched as it stands.
	raw bool
}

func textKindOf(p *part) textKind {
	k := textKind{charset: "us-ascii", encoding: p.encoding}
	if p.kind == nil {
		return k
	}
	if c, ok := p.kind.params["charset"]; ok {
		k.charset = c.value
	}
	k.html = p.kind.kind == "text/html"
	k.delsp = asciiLower(p.kind.params["format"].value) == "flowed" && asciiLower(p.kind.params["delsp"].value) == "yes"
	return k
}

// textPart matches a text: as it was written, as it is seen, and for HTML what
// its attributes say.
type textPart struct {
	found    *findings
	transfer transferDecoder
	charset  *textDecoder // nil: none
	written  scanner
	visible  scanner
	seen     visibleText
	html     *htmlText // nil: it is not HTML
	said     scanner   // its attributes
	cr       bool
	lines    []byte
	out      []byte
}

// embedded are files in a text that many readers offer as attachments:
// uuencode, its base64 kind, yEnc and BinHex.
const embeddedPattern = `(?im)^(?:begin(?:-base64)?[ \t]+[0-7]{3,4}[ \t]+\S|=ybegin |\(This file must be converted with BinHex)`

// armoured is text that its reader decrypts.
const armouredPattern = `(?m)^-----BEGIN PGP MESSAGE`

func newTextPart(found *findings, k textKind) (*textPart, error) {
	t := &textPart{found: found, seen: visibleText{delsp: k.delsp}}
	var err error
	if t.transfer, err = newTransferDecoder(k.encoding); err != nil {
		return nil, err
	}
	if !k.raw {
		if t.charset, err = newTextDecoder(k.charset); err != nil {
			return nil, err
		}
	}
	t.written = scanner{found: found, where: "the text", extra: found.rules.embedded}
	if len(found.rules.rules) == 0 {
		return t, nil
	}
	t.visible = scanner{found: found, where: "the text"}
	if k.html {
		t.said = scanner{found: found, where: "the text"}
		t.html = newHTMLText(t.see, t.said.write)
	}
	return t, nil
}

// see takes what a reader sees.
func (t *textPart) see(text []byte) error {
	t.out = t.seen.append(t.out[:0], text, false)
	return t.visible.write(t.out)
}

// embedded looks for what is not the text that it seems to be.
func (r *contentRules) embedded(window []byte) error {
	if r.noAttachments && r.files.Match(window) {
		return errAttachment{"its text holds a file (uuencode or the like)"}
	}
	if len(r.rules) > 0 && r.armour.Match(window) {
		return errOpaque
	}
	return nil
}

// compileEmbedded makes the expressions of embedded.
func (r *contentRules) compileEmbedded() {
	r.files, r.armour = regexp.MustCompile(embeddedPattern), regexp.MustCompile(armouredPattern)
}

// line takes a line as it is on the wire.
func (t *textPart) line(line []byte) error {
	decoded, err := t.transfer.line(line)
	if err != nil {
		return err
	}
	if t.charset == nil {
		return t.take(decoded)
	}
	return t.charset.write(decoded, false, t.take)
}

// take takes decoded text, whose lines end in LF from here on.
func (t *textPart) take(text []byte) error {
	t.lines = t.lines[:0]
	for _, c := range text {
		if t.cr && c != '\n' {
			t.lines = append(t.lines, '\n')
		}
		if t.cr = c == '\r'; !t.cr {
			t.lines = append(t.lines, c)
		}
	}
	if err := t.written.write(t.lines); err != nil {
		return err
	}
	switch {
	case t.html != nil:
		return t.html.write(t.lines)
	case t.visible.found != nil:
		return t.see(t.lines)
	}
	return nil
}

func (t *textPart) end() error {
	err := t.transfer.end()
	if err == nil && t.charset != nil {
		err = t.charset.write(nil, true, t.take)
	}
	if err == nil {
		err = t.written.end()
	}
	if err != nil {
		t.abandon()
		return err
	}
	if t.html != nil {
		h := t.html
		t.html = nil
		if err := h.end(); err != nil {
			return err
		}
		if err := t.said.end(); err != nil {
			return err
		}
	}
	if t.visible.found == nil {
		return nil
	}
	if err := t.visible.write(t.seen.append(t.out[:0], nil, true)); err != nil {
		return err
	}
	return t.visible.end()
}

// abandon waits for what newTextPart started.
func (t *textPart) abandon() {
	if t.html != nil {
		t.html.abandon()
		t.html = nil
	}
}
