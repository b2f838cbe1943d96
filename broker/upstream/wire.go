// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/postern-mail/postern/broker"
)

// wire is a connection while it logs in: lines in, commands out.
type wire struct {
	conn   net.Conn
	config *tls.Config // nil: plain text
	r      *bufio.Reader
	left   int // octets that the server may still send before its answer
}

func newWire(conn net.Conn, config *tls.Config) *wire {
	return &wire{conn: conn, config: config, r: bufio.NewReaderSize(conn, readBuffer), left: maxAnswer}
}

// obey puts the connection under ctx, its deadline and its cancellation, until
// done is called; done fails when ctx ended meanwhile, and otherwise clears
// the deadline.
func (w *wire) obey(ctx context.Context) (done func() error) {
	raw := w.conn
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	return func() error {
		if !stop() {
			return unavailable(ReasonTimeout, publicTimeout, context.Cause(ctx))
		}
		// TLS has no deadline of its own: w.conn passes it to raw.
		return raw.SetDeadline(time.Time{})
	}
}

// begin starts TLS where it is implicit.
func (w *wire) begin(e *broker.Endpoint) error {
	if e.TLS != broker.TLSImplicit {
		return nil
	}
	return w.handshake()
}

// handshake starts TLS. Octets that were read already came in plain text: an
// attacker could have put them there to be taken for the server's.
func (w *wire) handshake() error {
	if w.r.Buffered() > 0 {
		return tlsError(errors.New("octets arrived in plain text before TLS began"))
	}
	secured := tls.Client(w.conn, w.config)
	if err := secured.Handshake(); err != nil {
		if isTimeout(err) || isLost(err) {
			return connectionError(err)
		}
		return tlsError(err)
	}
	w.conn = secured
	w.r.Reset(secured)
	return nil
}

// line reads one line and returns it without CRLF; it is valid until the next
// read. The line must end in CRLF and hold neither NUL nor a lone CR or LF:
// what two readers could see differently is not read at all.
func (w *wire) line() ([]byte, error) {
	line, err := w.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = w.longLine(bytes.Clone(line))
	}
	if err != nil {
		return nil, err
	}
	if w.left -= len(line); w.left < 0 {
		return nil, errTooMuch()
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsAny(text, "\r\x00") {
		return nil, protocolError("a line holds a NUL or a lone CR or LF")
	}
	return text, nil
}

// longLine reads the rest of a line that does not fit the buffer.
func (w *wire) longLine(line []byte) ([]byte, error) {
	for len(line) <= w.left {
		more, err := w.r.ReadSlice('\n')
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
	return nil, errTooMuch()
}

func errTooMuch() error {
	return protocolError("more than %d octets without an answer", maxAnswer)
}

// send writes octets that hold no secret.
func (w *wire) send(command string) error {
	_, err := w.conn.Write([]byte(command))
	return err
}

// sendSecret writes octets and wipes them.
func (w *wire) sendSecret(command []byte) error {
	defer clear(command)
	_, err := w.conn.Write(command)
	return err
}

// joinSecret appends parts to b in a fresh slice and wipes b and the parts, so
// that growing leaves no copy behind.
func joinSecret(b []byte, parts ...[]byte) []byte {
	n := len(b)
	for _, p := range parts {
		n += len(p)
	}
	joined := append(make([]byte, 0, n), b...)
	clear(b)
	for _, p := range parts {
		joined = append(joined, p...)
		clear(p)
	}
	return joined
}

// buffered returns a copy of what was read past the last line.
func (w *wire) buffered() []byte {
	rest, _ := w.r.Peek(w.r.Buffered()) // cannot fail: it is there
	return bytes.Clone(rest)
}
