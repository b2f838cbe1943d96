// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"io"
	"sync"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// lineReader reads lines and literals from a client. At rest it holds
// restBuffer octets: TLS keeps the record that a line is read from, so that
// reading it piece by piece costs no system call.
type lineReader struct {
	src        io.Reader
	buf        []byte
	start, end int
	// searched is how much behind start is known to hold no LF: a line that
	// comes octet by octet must not be searched each time as a whole.
	searched int
	// pool lends big for a line that does not fit small; nil: as before login,
	// memory of its own is taken, since a pool would hand on the app password.
	pool  *bufferPool
	big   *[]byte
	small [restBuffer]byte
}

func newLineReader(src io.Reader) *lineReader {
	r := &lineReader{src: src}
	r.buf = r.small[:]
	return r
}

// errLineTooLong is fatal: what follows cannot be told from what was lost.
func errLineTooLong() error {
	return &imapwire.SyntaxError{Text: "the line is too long", Fatal: true}
}

// buffered returns the next line if it was read already, CRLF included; the
// line is valid until the next call.
func (r *lineReader) buffered(limit int) ([]byte, error) {
	i := bytes.IndexByte(r.buf[r.start+r.searched:r.end], '\n')
	if i < 0 {
		if r.searched = r.end - r.start; r.searched >= limit {
			return nil, errLineTooLong()
		}
		return nil, nil
	}
	i += r.searched
	r.searched = 0
	if i >= limit {
		return nil, errLineTooLong()
	}
	line := r.buf[r.start : r.start+i+1]
	r.start += i + 1
	return line, nil
}

// read returns the next line, CRLF included; it is valid until the next call.
// When an error interrupts it, such as a deadline, nothing is lost.
func (r *lineReader) read(limit int) ([]byte, error) {
	for {
		if line, err := r.buffered(limit); line != nil || err != nil {
			return line, err
		}
		r.makeRoom()
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// full reports whether as much is buffered as one line may have.
func (r *lineReader) full() bool { return r.end-r.start >= imapwire.MaxLine }

// ahead reads once, behind what is buffered.
func (r *lineReader) ahead() error {
	r.makeRoom()
	n, err := r.src.Read(r.buf[r.end:])
	if r.end += n; n > 0 {
		return nil
	}
	return err
}

// makeRoom leaves room behind end.
func (r *lineReader) makeRoom() {
	switch {
	case r.start == r.end:
		r.start, r.end = 0, 0
		if r.big != nil {
			r.pool.put(r.big)
			r.big = nil
		}
		r.buf = r.small[:]
	case r.end < len(r.buf):
	case r.start > 0:
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	case r.pool != nil && len(r.buf) < bigBuffer:
		r.big = r.pool.get()
		copy(*r.big, r.buf[:r.end])
		r.buf = *r.big
	default:
		grown := make([]byte, 2*len(r.buf))
		copy(grown, r.buf[:r.end])
		clear(r.buf)
		r.buf = grown
	}
}

// readSome reads up to len(b) octets of a literal.
func (r *lineReader) readSome(b []byte) (int, error) {
	r.searched = 0
	if r.start < r.end {
		n := copy(b, r.buf[r.start:r.end])
		r.start += n
		return n, nil
	}
	return r.src.Read(b)
}

func (r *lineReader) readFull(b []byte) error {
	for len(b) > 0 {
		n, err := r.readSome(b)
		b = b[n:]
		if err != nil && len(b) > 0 {
			return err
		}
	}
	return nil
}

func (r *lineReader) discard(n int64) error {
	var sink [1024]byte
	for n > 0 {
		m, err := r.readSome(sink[:min(n, int64(len(sink)))])
		if n -= int64(m); err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// empty reports whether nothing read is left over.
func (r *lineReader) empty() bool { return r.start == r.end }

// bufferPool lends buffers of bigBuffer octets.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, bigBuffer)
	return &b
}

func (p *bufferPool) put(b *[]byte) { p.pool.Put(b) }
