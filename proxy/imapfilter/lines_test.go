// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// Lines and literals come out as they went in, however they come in pieces.
func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 3*smallBuffer)
	in := "a\r\n" + long + "\r\n{5}\r\n\n\r\nab\r\n" + long + "c\r\n\r\nlast"
	for name, src := range map[string]io.Reader{
		"whole": strings.NewReader(in), "by one": iotest.OneByteReader(strings.NewReader(in)),
		"by half": iotest.HalfReader(strings.NewReader(in)), "with the error": iotest.DataErrReader(strings.NewReader(in)),
		"lent": strings.NewReader(in), "lent by one": iotest.OneByteReader(strings.NewReader(in)),
	} {
		r := newLineReader(src)
		if strings.HasPrefix(name, "lent") {
			r.pool = new(bufferPool)
		}
		expect := func(want string) {
			t.Helper()
			if line, err := r.read(8 * smallBuffer); err != nil || string(line) != want {
				t.Fatalf("%s: %.20q, %v, want %.20q", name, line, err, want)
			}
		}
		expect("a\r\n")
		expect(long + "\r\n")
		expect("{5}\r\n")
		literal := make([]byte, 5)
		if err := r.readFull(literal); err != nil || string(literal) != "\n\r\nab" {
			t.Fatalf("%s: %q, %v", name, literal, err)
		}
		expect("\r\n")
		if err := r.discard(int64(len(long))); err != nil {
			t.Fatal(err)
		}
		expect("c\r\n")
		expect("\r\n")
		if line, err := r.read(8 * smallBuffer); err != io.EOF {
			t.Fatalf("%s: %q, %v", name, line, err)
		}
		if err := r.discard(int64(len("last"))); err != nil {
			t.Fatal(err)
		}
		if _, err := r.read(8 * smallBuffer); err != io.EOF || r.big != nil {
			t.Errorf("%s: %v; a reader at rest holds a large buffer: %v", name, err, r.big != nil)
		}
	}
	r := newLineReader(bytes.NewReader(bytes.Repeat([]byte("x"), 1<<20)))
	if _, err := r.read(5000); err == nil || len(r.buf) > 1<<16 {
		t.Fatalf("%v, with %d octets of memory", err, len(r.buf))
	}
}
