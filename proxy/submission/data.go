// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// errLineBreak is a bare CR, a bare LF or a NUL in a message. Servers differ
// in what they take for the end of data when they meet one, and the rest of
// the message becomes commands: SMTP smuggling (RFC 5321 §2.3.8).
var errLineBreak = errors.New("submission: bare CR, bare LF or NUL in the message")

// dataReader takes a message off the wire: it undoes dot-stuffing and ends
// at CR LF . CR LF and at nothing else.
type dataReader struct {
	wire  *wire
	state dataState
	until time.Time // the message must be here by then
	// octets of the message so far, without stuffed dots.
	octets int64
	// ended says that the end was seen: then the client is in step.
	ended bool
}

type dataState int

const (
	lineStart dataState = iota // a dot here is stuffed, or the end
	lineDot                    // its dot was taken off; what follows is as it is
	lineRest
)

// next returns a run of the message's octets, valid until the next call, and
// whether it begins a line; no line but the run's first begins with a dot.
// The error is io.EOF at the end, errLineBreak, or the connection's.
func (d *dataReader) next() (run []byte, startsLine bool, err error) {
	if d.ended {
		return nil, false, io.EOF
	}
	for {
		if done, err := d.dot(); done || err != nil {
			return nil, false, err
		}
		run, state, err := scanRun(d.wire.buffered(), d.state)
		if err != nil {
			return nil, false, err
		}
		if len(run) > 0 {
			startsLine = d.state != lineRest
			d.state = state
			d.wire.consume(len(run))
			d.octets += int64(len(run))
			return run, startsLine, nil
		}
		if err := d.wire.fillData(d.until); err != nil {
			return nil, false, err
		}
	}
}

// dot handles a dot at the start of a line; done with io.EOF is the end.
func (d *dataReader) dot() (done bool, err error) {
	if d.state != lineStart {
		return false, nil
	}
	for {
		in := d.wire.buffered()
		switch {
		case len(in) > 0 && in[0] != '.':
			return false, nil
		case len(in) >= 2 && in[1] != '\r':
			d.wire.consume(1)
			d.state = lineDot
			return false, nil
		case len(in) >= 3 && in[2] == '\n':
			d.wire.consume(3)
			d.ended = true
			return true, io.EOF
		case len(in) >= 3:
			return false, errLineBreak
		}
		if err := d.wire.fillData(d.until); err != nil {
			return false, err
		}
	}
}

// scanRun returns the longest front of in that is message, and the state
// after it. It stops before a line that begins with a dot, and before a CR
// whose LF is not there yet.
func scanRun(in []byte, state dataState) (run []byte, after dataState, err error) {
	n := 0
	for n < len(in) {
		if n > 0 && state == lineStart && in[n] == '.' {
			break
		}
		cr := bytes.IndexByte(in[n:], '\r')
		line := in[n:]
		if cr >= 0 {
			line = line[:cr]
		}
		if bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, 0) >= 0 {
			return nil, 0, errLineBreak
		}
		n += len(line)
		if len(line) > 0 {
			state = lineRest
		}
		if cr < 0 || n+1 == len(in) {
			break
		}
		if in[n+1] != '\n' {
			return nil, 0, errLineBreak
		}
		n += 2
		state = lineStart
	}
	return in[:n], state, nil
}

// readHeader collects a message's front until its header is whole, and
// returns both, valid until the next call of next: the header without its empty
// line, and everything that was read, which ends somewhere in the body. It is
// all of a message that is ever held in memory. No line of either but a
// header's begins with a dot.
func (d *dataReader) readHeader(into []byte) (header, front []byte, err error) {
	held := into[:0]
	for {
		run, _, err := d.next()
		if err != nil {
			return nil, held, err
		}
		from := max(0, len(held)-len(crlfcrlf)+1)
		if front = run; len(held) > 0 { // mostly a header comes in one run
			held = append(held, run...)
			front = held
		}
		if bytes.HasPrefix(front, crlf) { // the header is empty
			return nil, front, nil
		}
		end := bytes.Index(front[from:], crlfcrlf)
		switch {
		case end >= 0 && from+end <= maxHeader:
			return front[:from+end+len(crlf)], front, nil
		case end >= 0, len(front) > maxHeader:
			return nil, front, errHeaderTooLong
		case len(held) == 0:
			held = append(held, run...)
		}
	}
}

var (
	crlfcrlf         = []byte("\r\n\r\n")
	errHeaderTooLong = errors.New("submission: the header is too long")
)
