// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"encoding/base64"
	"errors"
)

// The transfer encodings of RFC 2045 §6. Readers' decoders skip what they do
// not know, each in its own way: here it is an error.
var (
	errQuotedPrintable  = errors.New("its quoted-printable encoding is malformed")
	errBase64           = errors.New("its base64 encoding is malformed")
	errTransferEncoding = errors.New("its transfer encoding is not one of RFC 2045's")
)

// transferDecoder decodes a part line by line. The slices that it returns are
// valid until its next call.
type transferDecoder interface {
	line(line []byte) ([]byte, error)
	end() error
}

// newTransferDecoder takes the field's value; "" is 7bit.
func newTransferDecoder(encoding string) (transferDecoder, error) {
	switch encoding {
	case "", "7bit", "8bit", "binary":
		return &identityDecoder{}, nil
	case "quoted-printable":
		return &quotedDecoder{}, nil
	case "base64":
		return &base64Decoder{}, nil
	}
	return nil, errTransferEncoding
}

type identityDecoder struct{ out []byte }

func (d *identityDecoder) line(line []byte) ([]byte, error) {
	d.out = append(append(d.out[:0], line...), crlf...)
	return d.out, nil
}

func (d *identityDecoder) end() error { return nil }

// quotedDecoder is for quoted-printable.
type quotedDecoder struct{ out []byte }

func (d *quotedDecoder) line(line []byte) ([]byte, error) {
	line = bytes.TrimRight(line, " \t") // §6.7 (3)
	d.out = d.out[:0]
	for i := 0; i < len(line); i++ {
		if line[i] != '=' {
			d.out = append(d.out, line[i])
			continue
		}
		if i == len(line)-1 { // a soft line break
			return d.out, nil
		}
		if i+2 >= len(line) {
			return nil, errQuotedPrintable
		}
		hi, lo := hexDigit(line[i+1]), hexDigit(line[i+2])
		if hi < 0 || lo < 0 {
			return nil, errQuotedPrintable
		}
		d.out = append(d.out, byte(hi<<4|lo))
		i += 2
	}
	d.out = append(d.out, crlf...)
	return d.out, nil
}

func (d *quotedDecoder) end() error { return nil }

func hexDigit(c byte) int {
	if 'a' <= c && c <= 'f' { // written by some, read by all
		c -= 'a' - 'A'
	}
	return bytes.IndexByte([]byte(upperHex), c)
}

// base64Decoder is for base64.
type base64Decoder struct {
	held  []byte // of a quantum that is not whole
	out   []byte
	ended bool // by padding
}

func (d *base64Decoder) line(line []byte) ([]byte, error) {
	for _, c := range line {
		switch {
		case c == ' ' || c == '\t':
		case d.ended:
			return nil, errBase64
		default:
			d.held = append(d.held, c)
		}
	}
	whole := len(d.held) / 4 * 4
	if whole == 0 {
		return nil, nil
	}
	if need := base64.StdEncoding.DecodedLen(whole); cap(d.out) < need {
		d.out = make([]byte, need)
	}
	d.out = d.out[:cap(d.out)]
	n, err := base64.StdEncoding.Decode(d.out, d.held[:whole])
	if err != nil {
		return nil, errBase64
	}
	d.ended = d.held[whole-1] == '='
	if d.ended && whole < len(d.held) {
		return nil, errBase64
	}
	d.held = append(d.held[:0], d.held[whole:]...)
	return d.out[:n], nil
}

func (d *base64Decoder) end() error {
	if len(d.held) > 0 {
		return errBase64
	}
	return nil
}
