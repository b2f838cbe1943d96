// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"io"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/transform"
)

var (
	errCharset = errors.New("its charset is not one that can be inspected")
	errOctets  = errors.New("its octets are not of the charset that it declares")
)

// newCharsetDecoder returns what makes UTF-8 of a charset. Charsets in which
// ASCII is not written as ASCII (UTF-16, UTF-7, and those that readers know by
// guessing) are none.
func newCharsetDecoder(charset string) (transform.Transformer, error) {
	switch charset = asciiLower(strings.Trim(charset, " \t")); charset {
	case "us-ascii", "ascii":
		return asciiOnly{}, nil
	case "utf-8", "utf8":
		return encoding.UTF8Validator, nil
	}
	e, err := htmlindex.Get(charset)
	if err != nil {
		return nil, errCharset
	}
	switch name, _ := htmlindex.Name(e); name {
	case "utf-8", "utf-16be", "utf-16le", "replacement", "x-user-defined", "":
		return nil, errCharset
	}
	return e.NewDecoder(), nil
}

// asciiOnly passes ASCII, and nothing else.
type asciiOnly struct{ transform.NopResetter }

func (asciiOnly) Transform(dst, src []byte, _ bool) (nDst, nSrc int, err error) {
	n := min(len(dst), len(src))
	for i := range n {
		if src[i] >= utf8.RuneSelf {
			return i, i, errOctets
		}
		dst[i] = src[i]
	}
	if n < len(src) {
		return n, n, transform.ErrShortDst
	}
	return n, n, nil
}

// textDecoder turns a part's octets into UTF-8, piece by piece. What is not of
// its charset is an error.
type textDecoder struct {
	decoder transform.Transformer
	strange bool // not UTF-8 or ASCII: its decoder writes U+FFFD for an error
	rest    []byte
	out     [2048]byte
}

func newTextDecoder(charset string) (*textDecoder, error) {
	t, err := newCharsetDecoder(charset)
	if err != nil {
		return nil, err
	}
	_, ascii := t.(asciiOnly)
	return &textDecoder{decoder: t, strange: !ascii && t != encoding.UTF8Validator}, nil
}

// write hands the text to emit; last says that nothing follows.
func (d *textDecoder) write(b []byte, last bool, emit func([]byte) error) error {
	if len(d.rest) > 0 {
		b = append(d.rest, b...)
	}
	for {
		n, used, err := d.decoder.Transform(d.out[:], b, last)
		text := d.out[:n]
		if d.strange && strings.ContainsRune(string(text), utf8.RuneError) {
			return errOctets
		}
		if n > 0 {
			if err := emit(text); err != nil {
				return err
			}
		}
		b = b[used:]
		switch {
		case errors.Is(err, transform.ErrShortDst):
			continue
		case errors.Is(err, transform.ErrShortSrc) && !last:
			d.rest = append(d.rest[:0:0], b...)
			return nil
		case err != nil || len(b) > 0:
			return errOctets
		}
		d.rest = d.rest[:0]
		return nil
	}
}

// decodeCharset decodes a short text.
func decodeCharset(charset, s string) (string, error) {
	d, err := newTextDecoder(charset)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = d.write([]byte(s), true, func(text []byte) error {
		b.Write(text)
		return nil
	})
	return b.String(), err
}

// decodeWordsStrictly decodes RFC 2047's encoded words wherever a lenient
// reader would see them, and refuses what looks like one and cannot be decoded.
func decodeWordsStrictly(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", errOctets
	}
	if !strings.Contains(s, "=?") {
		return s, nil
	}
	words := mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
		raw, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		text, err := decodeCharset(charset, string(raw))
		return strings.NewReader(text), err
	}}
	decoded, err := words.DecodeHeader(s)
	if err != nil || strings.Contains(decoded, "=?") || !utf8.ValidString(decoded) {
		return "", errEncodedWord
	}
	return decoded, nil
}
