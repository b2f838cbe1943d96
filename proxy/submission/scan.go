// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/postern-mail/postern/policy"
)

const (
	// scanWindow is how much of a text is matched at a time, scanOverlap what
	// is matched again with what follows: a longer match may not be found.
	scanWindow  = 128 << 10
	scanOverlap = 32 << 10
	// maxText bounds what of a message is matched, in octets, each reading of a
	// text by itself.
	maxText = 32 << 20
	// maxToken bounds one tag of HTML.
	maxToken = 512 << 10
)

// contentRule is a policy.ContentRule, compiled.
type contentRule struct {
	policy.ContentRule
	expression *regexp.Regexp
}

// contentRules are a session's. Nothing changes them.
type contentRules struct {
	rules         []contentRule
	noAttachments bool
	files, armour *regexp.Regexp // see embedded
}

// newContentRules compiles what a decision says; nil: nothing is to be
// inspected.
func newContentRules(s *policy.Sending) (*contentRules, error) {
	if !s.NoAttachments && len(s.Content) == 0 {
		return nil, nil
	}
	r := &contentRules{noAttachments: s.NoAttachments}
	for _, rule := range s.Content {
		expression, err := regexp.Compile(rule.Pattern)
		if err != nil {
			return nil, err
		}
		r.rules = append(r.rules, contentRule{rule, expression})
	}
	r.compileEmbedded()
	return r, nil
}

// findings are what content rules found in one message. HTML is matched by a
// goroutine of its own.
type findings struct {
	rules *contentRules
	mu    sync.Mutex // guards what follows
	// where is the place in which each rule matched first; "": it did not.
	where   []string
	text    int // octets matched
	blocked *contentRule
}

var errBlocked = errors.New("submission: a content rule blocks the message")

// match holds a text against the rules that have not matched yet.
func (f *findings) match(text []byte, where string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text += len(text); f.text > maxText {
		return errTooMuchText
	}
	for i := range f.rules.rules {
		rule := &f.rules.rules[i]
		if f.where[i] != "" || !rule.expression.Match(text) {
			continue
		}
		f.where[i] = where
		if rule.Block {
			f.blocked = rule
			return errBlocked
		}
	}
	return nil
}

// matchShort is match for a header field or a file name, as it is written and
// as it is seen.
func (f *findings) matchShort(text, where string) error {
	if err := f.match([]byte(text), where); err != nil {
		return err
	}
	var seen visibleText
	if visible := string(seen.append(nil, []byte(text), true)); visible != text {
		return f.match([]byte(visible), where)
	}
	return nil
}

// scanner matches a text that comes in pieces, in windows that overlap.
type scanner struct {
	found *findings
	where string
	held  []byte
	// extra is asked about each window before the rules.
	extra func(window []byte) error
}

func (s *scanner) write(text []byte) error {
	for {
		n := min(len(text), scanWindow-len(s.held))
		s.held = append(s.held, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			return nil
		}
		if err := s.look(); err != nil {
			return err
		}
		s.held = append(s.held[:0], s.held[len(s.held)-scanOverlap:]...)
	}
}

// end matches what is left.
func (s *scanner) end() error {
	err := s.look()
	s.held = s.held[:0]
	return err
}

func (s *scanner) look() error {
	if len(s.held) == 0 {
		return nil
	}
	if s.extra != nil {
		if err := s.extra(s.held); err != nil {
			return err
		}
	}
	return s.found.match(s.held, s.where)
}

var errTooMuchText = errors.New("it holds more text than is inspected")

// visibleText makes of a text what its reader sees: white space, however much
// of it, is one space, and what is invisible is not there.
type visibleText struct {
	delsp bool // format=flowed with delsp=yes (RFC 3676 §4.1)
	space bool // one is due
	flow  bool // the last octet was a space that may end a flowed line
	rest  []byte
}

func (v *visibleText) append(out, text []byte, last bool) []byte {
	if len(v.rest) > 0 {
		text = append(v.rest, text...)
		v.rest = nil
	}
	for len(text) > 0 {
		if !last && !utf8.FullRune(text) {
			v.rest = append(v.rest, text...)
			break
		}
		r, n := utf8.DecodeRune(text)
		piece := text[:n]
		text = text[n:]
		switch {
		case r == '\n' && v.delsp && v.flow:
			v.space, v.flow = false, false
		case unicode.IsSpace(r):
			v.flow = r == ' ' && !v.space
			v.space = true
		case isInvisible(r):
		default:
			if v.space {
				out = append(out, ' ')
			}
			v.space, v.flow = false, false
			out = append(out, piece...)
		}
	}
	return out
}

// isInvisible reports characters that show nothing: joiners, soft hyphens,
// directions, variation selectors.
func isInvisible(r rune) bool {
	return r >= 0x7f && (unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r) ||
		r == '\u034f' || r == '\u115f' || r == '\u1160' || r == '\u3164' || r == '\uffa0') || r < ' ' || r == 0x7f
}

// htmlText reads HTML on a goroutine of its own, as browsers split it into
// tags and text, and hands on what is between the tags, and what attributes say.
type htmlText struct {
	pipe *io.PipeWriter
	done chan error
}

// newHTMLText starts the goroutine; end or abandon waits for it.
func newHTMLText(text, attributes func([]byte) error) *htmlText {
	r, w := io.Pipe()
	h := &htmlText{pipe: w, done: make(chan error, 1)}
	go func() {
		err := errHTML
		defer func() {
			_ = recover() // a panic is HTML that cannot be read
			_ = r.CloseWithError(err)
			h.done <- err
		}()
		err = readHTML(r, text, attributes)
	}()
	return h
}

var errHTML = errors.New("its HTML cannot be read")

func readHTML(r io.Reader, text, attributes func([]byte) error) error {
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxToken)
	for {
		kind := z.Next()
		var err error
		switch kind {
		case html.ErrorToken:
			switch err := z.Err(); {
			case errors.Is(err, io.EOF):
				return nil
			case errors.Is(err, errAbandoned):
				return err
			}
			return errHTML
		case html.TextToken:
			err = text(z.Text())
		case html.CommentToken:
			// Outlook shows what stands in a comment that begins with [if.
			if comment := string(z.Text()); strings.HasPrefix(strings.TrimLeft(comment, " \t\r\n"), "[if") {
				err = readHTML(strings.NewReader(comment[strings.IndexByte(comment, '>')+1:]), text, attributes)
			}
		case html.StartTagToken, html.EndTagToken, html.SelfClosingTagToken:
			name, more := z.TagName()
			if isBlock(string(name)) {
				err = text([]byte(" "))
			}
			for more && err == nil {
				var value []byte
				if _, value, more = z.TagAttr(); len(value) > 0 {
					err = attributes(append(value, '\n'))
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// isBlock reports elements that stand apart from the text around them; others
// do not end a word.
func isBlock(name string) bool {
	switch name {
	case "p", "div", "br", "td", "th", "tr", "table", "thead", "tbody", "tfoot", "caption", "li", "ul", "ol", "dl", "dt", "dd",
		"h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "hr", "body", "head", "html", "title", "style", "script",
		"section", "article", "header", "footer", "main", "nav", "aside", "address", "form", "fieldset", "center",
		"option", "select", "textarea", "button", "figure", "figcaption":
		return true
	}
	return false
}

var errAbandoned = errors.New("submission: the message was abandoned")

func (h *htmlText) write(text []byte) error {
	if _, err := h.pipe.Write(text); err != nil {
		return err
	}
	return nil
}

func (h *htmlText) end() error {
	_ = h.pipe.Close() // never fails
	return <-h.done
}

func (h *htmlText) abandon() {
	_ = h.pipe.CloseWithError(errAbandoned)
	<-h.done
}
