// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// wire is the connection that go-smtp is given in place of the client's. It
// hands go-smtp one command at a time, judged and written anew, and answers
// itself what go-smtp must not see; a message never passes through go-smtp at
// all. So go-smtp's buffers never hold a second command, and what it would do
// with a malformed one does not matter.
//
// One goroutine, go-smtp's, uses a wire; only end is called from others.
type wire struct {
	conn    *proxy.Conn
	limits  *Limits
	session *session
	log     *zap.Logger

	// buf[r:w] was read and not consumed.
	buf  []byte
	r, w int
	pool *sync.Pool // of *[]byte, bufferInData long
	lent *[]byte    // buf's, when it is from the pool
	rest []byte     // the small buffer, meanwhile
	used int        // how much of lent ever held something

	feed     []byte // what go-smtp is to read next
	out      []byte // what the client is to be sent
	authLine bool   // the next line is a SASL response
	hello    bool   // go-smtp is about to answer EHLO
	over     bool   // nothing more is read or written
	lingers  bool   // the client may not be done sending
	bad      int
	reason   broker.End
	closed   sync.Once
	closing  atomic.Bool   // Close is under way
	done     chan struct{} // closed by Close

	octetsUp, octetsDown int64

	// ending is set once, when the session must end.
	ending atomic.Pointer[ending]
}

// ending is why, and until when last words may be written.
type ending struct {
	end *broker.End
	by  time.Time
}

var _ net.Conn = (*wire)(nil)

var (
	past      = time.Unix(1, 0)
	errEnding = errors.New("submission: the session is ending")
)

func newWire(c *proxy.Conn, limits *Limits, pool *sync.Pool, log *zap.Logger) *wire {
	return &wire{
		conn: c, limits: limits, pool: pool, log: log, done: make(chan struct{}),
		reason: broker.End{Reason: broker.EndClientClosed},
	}
}

// Read gives go-smtp its next line. Every failure is io.EOF to it: whatever
// the client had to be told was told. A panic is one too: go-smtp recovers
// those of its handlers, but reads outside of them, on a goroutine of its own.
func (w *wire) Read(p []byte) (n int, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			w.log.Error("panic in a command", zap.Any("cause", cause), zap.Stack("stack"))
			w.over, w.feed = true, nil
			n, err = 0, io.EOF
		}
	}()
	for len(w.feed) == 0 {
		if w.over {
			return 0, io.EOF
		}
		w.next()
	}
	n = copy(p, w.feed)
	clear(w.feed[:n]) // it may hold an app password
	w.feed = w.feed[n:]
	return n, nil
}

// next reads one line and has it judged; it leaves something in feed, or an
// answer in out, or sets over.
func (w *wire) next() {
	line, err := w.readLine()
	if err != nil {
		w.readFailed(err)
		return
	}
	if w.authLine {
		w.authLine = false
		// go-smtp ends the exchange with 501 on "*".
		if len(line) > 0 && !isSASLResponse(string(line)) {
			line = []byte("*")
		}
		w.forward(string(line))
		return
	}
	forward, answer := w.session.command(string(line))
	switch {
	case answer == nil && forward != "":
		w.forward(forward)
	case answer == nil, w.over:
	default:
		if !answer.positive() {
			w.bad++
		}
		w.reply(answer)
	}
	if w.bad >= maxBadCommands && !w.over {
		w.feed = nil
		w.reply(replyTooManyErrors)
	}
}

func (w *wire) forward(line string) { w.feed = append([]byte(line), '\r', '\n') }

// reply writes an answer of ours; a fatal one closes.
func (w *wire) reply(r *reply) {
	if w.over {
		return
	}
	w.out = r.append(w.out)
	if r.fatal {
		w.over, w.lingers = true, true
		if w.reason.Reason == broker.EndClientClosed {
			w.reason = broker.End{Reason: broker.EndProtocol, Detail: r.text}
		}
	}
}

// readFailed ends the connection for what reading ran into.
func (w *wire) readFailed(err error) {
	switch {
	case w.ending.Load() != nil:
		w.lastWords()
	case errors.Is(err, errLineLength):
		w.reply(replyLineTooLong)
	case errors.Is(err, errLineBreak):
		w.reply(replyBareCommand)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.reason = broker.End{Reason: broker.EndIdle}
		w.reply(replyIdle)
	default:
		w.over = true
	}
}

// lastWords tells the client why its session ended.
func (w *wire) lastWords() {
	if e := w.ending.Load(); e != nil && !w.over {
		w.reason = *e.end
		w.reply(replyToEnd(e.end))
	}
}

var errLineLength = errors.New("submission: line too long")

// readLine returns the next line without its CRLF, valid until the next read.
// It must come whole within the command timeout.
func (w *wire) readLine() ([]byte, error) {
	until := time.Now().Add(w.limits.CommandTimeout)
	for seen := 0; ; {
		if w.ending.Load() != nil {
			return nil, errEnding
		}
		in := w.buffered()
		limit := maxCommandLine
		if w.authLine || len(in) >= 5 && strings.EqualFold(string(in[:5]), "AUTH ") {
			limit = maxAuthLine
		}
		if i := bytes.IndexByte(in[seen:], '\n'); i >= 0 {
			i += seen
			switch {
			case i+1 > limit:
				return nil, errLineLength
			case i == 0 || bytes.IndexByte(in[:i], '\r') != i-1 || bytes.IndexByte(in[:i], 0) >= 0:
				return nil, errLineBreak
			}
			w.consume(i + 1)
			return in[:i-1], nil
		}
		if len(in) >= limit {
			return nil, errLineLength
		}
		seen = len(in)
		w.session.setIdle(true)
		err := w.fill(until, min(limit, maxAuthLine))
		w.session.setIdle(false)
		if err != nil {
			return nil, err
		}
	}
}

// buffered is what was read and not consumed.
func (w *wire) buffered() []byte { return w.buf[w.r:w.w] }

func (w *wire) consume(n int) { w.r += n }

// fill sends what is waiting to be sent, and reads more, into a buffer of at
// least size octets. Answers to pipelined commands go out together, since it
// is called only when no whole command is left (RFC 2920 §3.2).
func (w *wire) fill(until time.Time, size int) error {
	if err := w.flush(); err != nil {
		return err
	}
	w.makeRoom(size)
	w.setReadDeadline(until)
	n, err := w.conn.Read(w.buf[w.w:])
	w.w += n
	w.used = max(w.used, w.w)
	w.octetsUp += int64(n)
	if n > 0 {
		w.session.confirm()
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// fillData is fill while a message flows: a deadline for each read.
func (w *wire) fillData(until time.Time) error {
	if w.ending.Load() != nil {
		return errEnding
	}
	if at := time.Now().Add(w.limits.DataTimeout); at.Before(until) {
		until = at
	}
	return w.fill(until, bufferInData)
}

// makeRoom moves what is unread to the front of a buffer that is large
// enough. The large one is lent and goes back as soon as it is empty.
func (w *wire) makeRoom(size int) {
	rest := w.buffered()
	if w.lent != nil && size < bufferInData && len(rest) == 0 {
		w.returnBuffer()
	}
	switch {
	case len(w.buf) >= size && (size > bufferAtRest || len(w.buf) <= bufferAtRest || w.lent != nil):
		copy(w.buf, rest)
	case size == bufferInData:
		w.lent = w.pool.Get().(*[]byte)
		copy(*w.lent, rest)
		clear(rest)
		if len(w.buf) <= bufferAtRest {
			w.rest = w.buf
		}
		w.buf = *w.lent
	default:
		larger := make([]byte, size)
		copy(larger, rest)
		clear(w.buf) // an AUTH line was in it
		w.buf = larger
	}
	w.r, w.w = 0, len(rest)
}

func (w *wire) returnBuffer() {
	if w.lent != nil {
		clear((*w.lent)[:w.used])
		w.pool.Put(w.lent)
		w.lent, w.buf, w.rest, w.r, w.w, w.used = nil, w.rest, nil, 0, 0, 0
	}
}

// Write takes go-smtp's answers: they wait in out until the client's next
// octets are wanted. Its answer to EHLO is replaced by ours.
func (w *wire) Write(p []byte) (int, error) {
	if w.over {
		return len(p), nil
	}
	if w.hello {
		// "250-" lines come first, "250 " or a refusal last.
		if len(p) > 3 && p[3] == ' ' {
			w.hello = false
			if bytes.HasPrefix(p, []byte("250")) {
				w.out = w.session.appendHello(w.out)
				return len(p), nil
			}
		} else {
			return len(p), nil
		}
	}
	for _, c := range p {
		if c >= 0x7f { // an address with SMTPUTF8 that go-smtp echoes
			c = '?'
		}
		w.out = append(w.out, c)
	}
	return len(p), nil
}

// flush sends what is waiting.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	w.setWriteDeadline(time.Now().Add(w.limits.DataTimeout))
	n, err := w.conn.Write(w.out)
	w.octetsDown += int64(n)
	w.out = w.out[:0]
	if err != nil {
		w.over = true
	}
	return err
}

// end makes the connection end whatever its client does: reads fail at once,
// writes within lastWords, and in the end the socket is closed. It waits for
// nothing.
func (w *wire) end(e *broker.End) bool {
	if !w.ending.CompareAndSwap(nil, &ending{end: e, by: time.Now().Add(lastWords)}) {
		return false
	}
	w.setReadDeadline(past)
	w.setWriteDeadline(past)
	return true
}

// setReadDeadline and setWriteDeadline are called by the wire's goroutine and
// by end. Each sets first and looks for an ending after, and end stores it
// before it sets: whoever comes last sets the ending's.
func (w *wire) setReadDeadline(t time.Time) {
	_ = w.conn.SetReadDeadline(t) // a closed connection fails the read itself
	if w.ending.Load() != nil {
		_ = w.conn.SetReadDeadline(past)
	}
}

func (w *wire) setWriteDeadline(t time.Time) {
	_ = w.conn.SetWriteDeadline(t)
	if e := w.ending.Load(); e != nil {
		_ = w.conn.SetWriteDeadline(e.by)
	}
}

// Close sends what is left to say and closes. go-smtp calls it on QUIT and
// when its loop is done, which may both happen.
func (w *wire) Close() error {
	w.closed.Do(func() {
		defer close(w.done)
		w.closing.Store(true)
		w.lastWords()
		w.over = true
		// Neither a write nor close_notify may wait for the client for long.
		killer := time.AfterFunc(endWithin, w.conn.Kill)
		defer killer.Stop()
		_ = w.conn.SetWriteDeadline(time.Now().Add(lastWords))
		switch err := w.flush(); {
		case err != nil:
			w.conn.Kill() // who does not read is not waited for
		case w.lingers && !w.linger():
			w.conn.Kill()
		}
		_ = w.conn.Close() // it is over either way
		w.returnBuffer()
	})
	return nil
}

// linger reads on for a moment after the last words: closing a socket with
// unread octets resets it, and a reset takes the last words with it. It
// reports whether the client closed its side.
func (w *wire) linger() bool {
	raw := w.conn.Raw()
	if half, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = raw.SetReadDeadline(time.Now().Add(linger))
	_, err := io.Copy(io.Discard, raw)
	return err == nil
}

// The rest of net.Conn. go-smtp has no timeouts of its own here.

func (w *wire) LocalAddr() net.Addr              { return w.conn.LocalAddr() }
func (w *wire) RemoteAddr() net.Addr             { return w.conn.RemoteAddr() }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
