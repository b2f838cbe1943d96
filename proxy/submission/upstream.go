// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/postern-mail/postern/broker"
)

// upstream is the client's side towards the mail server behind, on a
// connection that is logged in. See doc.go for why it is not go-smtp's.
//
// One goroutine uses it; abort and kill may be called from any.
type upstream struct {
	conn   net.Conn
	reader *bufio.Reader
	limits *Limits

	// What EHLO offered.
	pipelining, eightBit, smtputf8, dsn, size bool
	maxSize                                   int64 // 0: not said

	dirty    bool   // a transaction is open
	broken   bool   // out of step, or closed
	commands []byte // exec's buffer

	// inData says that the server awaits a message's octets.
	inData bool
	// final is the answer to the message under way, while one is listened for.
	final chan finalReply
	out   []byte  // what is to be written of the message
	lent  *[]byte // out's buffer
	pool  *sync.Pool

	// sent is set before the final dot is written.
	sent    atomic.Bool
	aborted atomic.Int64 // UnixNano of the deadline that nothing moves
}

// upstreamReply is a reply as the server gave it, its text cleaned.
type upstreamReply struct {
	code     int
	enhanced smtp.EnhancedCode // zero: it gave none
	text     string
}

type finalReply struct {
	reply *upstreamReply
	err   error
}

var errReply = errors.New("submission: the mail server's reply is malformed")

func newUpstream(c *broker.SubmissionConn, limits *Limits, pool *sync.Pool) *upstream {
	has := func(keyword string) bool { _, ok := c.Extensions[keyword]; return ok }
	u := &upstream{
		conn: c.Conn, reader: bufio.NewReaderSize(c.Conn, maxReplyLine), limits: limits, pool: pool,
		pipelining: has("PIPELINING"), eightBit: has("8BITMIME"), smtputf8: has("SMTPUTF8"), dsn: has("DSN"), size: has("SIZE"),
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(c.Extensions["SIZE"]), 10, 64); err == nil && n > 0 {
		u.maxSize = n
	}
	return u
}

// mail opens a transaction, with its first recipient unless that is nil, and
// returns the replies to the two.
func (u *upstream) mail(m *mailCommand, r *rcptCommand) ([]*upstreamReply, error) {
	lines := make([]string, 0, 3)
	if u.dirty {
		lines = append(lines, "RSET")
	}
	lines = append(lines, u.mailLine(m))
	if r != nil {
		lines = append(lines, r.line())
	}
	first := len(lines) - 1
	if r != nil {
		first--
	}
	u.dirty = true
	replies, err := u.exec(lines...)
	if err != nil {
		return nil, err
	}
	return replies[first:], nil
}

func (u *upstream) mailLine(m *mailCommand) string {
	b := make([]byte, 0, 80)
	b = append(append(append(b, "MAIL FROM:<"...), m.from.String()...), '>')
	if m.size > 0 && u.size {
		b = strconv.AppendInt(append(b, " SIZE="...), m.size, 10)
	}
	if m.body != "" && u.eightBit {
		b = append(append(b, " BODY="...), m.body...)
	}
	if m.smtputf8 {
		b = append(b, " SMTPUTF8"...)
	}
	if m.ret != "" {
		b = append(append(b, " RET="...), m.ret...)
	}
	if m.envid != "" {
		b = append(append(b, " ENVID="...), m.envid...)
	}
	return string(b)
}

func (r *rcptCommand) line() string {
	line := "RCPT TO:<" + r.to.String() + ">"
	if r.notify != "" {
		line += " NOTIFY=" + r.notify
	}
	if r.orcpt != "" {
		line += " ORCPT=" + r.orcpt
	}
	return line
}

// rcpt adds a recipient to the transaction.
func (u *upstream) rcpt(r *rcptCommand) (*upstreamReply, error) {
	replies, err := u.exec(r.line())
	return first(replies), err
}

// exec sends commands, together where the server takes that, and returns one
// reply for each. An error leaves the connection broken.
func (u *upstream) exec(lines ...string) ([]*upstreamReply, error) {
	replies := make([]*upstreamReply, 0, len(lines))
	for len(lines) > 0 {
		n := 1
		if u.pipelining {
			n = len(lines)
		}
		u.commands = u.commands[:0]
		for _, line := range lines[:n] {
			u.commands = append(append(u.commands, line...), "\r\n"...)
		}
		if err := u.send(u.commands); err != nil {
			return nil, err
		}
		u.setReadDeadline(time.Now().Add(u.limits.CommandTimeout))
		for range n {
			r, err := u.readReply()
			if err != nil {
				u.broken = true
				return nil, err
			}
			if r.code == 421 { // the server says that it closes
				u.broken = true
			}
			replies = append(replies, r)
		}
		lines = lines[n:]
	}
	return replies, nil
}

// send writes, and refuses to when the server said something unasked: then
// the next reply would not be the next command's.
func (u *upstream) send(b []byte) error {
	if u.broken || u.reader.Buffered() > 0 {
		u.broken = true
		return errReply
	}
	_, err := u.write(b)
	return err
}

func (u *upstream) write(b []byte) (int, error) {
	u.setWriteDeadline(time.Now().Add(u.limits.DataTimeout))
	n, err := u.conn.Write(b)
	if err != nil {
		u.broken = true
	}
	return n, err
}

// readReply reads one reply (RFC 5321 §4.2.1), strictly and within limits.
func (u *upstream) readReply() (*upstreamReply, error) {
	r := &upstreamReply{}
	var texts []string
	for n := 0; n < maxReplyLines; n++ {
		line, err := u.reader.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = errReply
			}
			return nil, err
		}
		code, text, last, err := parseReplyLine(line)
		if err != nil || n > 0 && code != r.code {
			return nil, errReply
		}
		r.code = code
		if first, rest, _ := strings.Cut(text, " "); code/100 != 3 {
			if e, ok := parseEnhanced(first, code/100); ok {
				r.enhanced, text = e, rest
			}
		}
		if text = cleanText(text, false); len(text) > maxRelayedText {
			text = text[:maxRelayedText]
		}
		if len(texts) < maxRelayedLines {
			texts = append(texts, text)
		}
		if last {
			r.text = strings.Join(texts, "\n")
			return r, nil
		}
	}
	return nil, errReply
}

func parseReplyLine(line []byte) (code int, text string, last bool, err error) {
	line, ok := bytes.CutSuffix(line, crlf)
	if !ok || len(line) < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '5' || line[2] < '0' || line[2] > '9' {
		return 0, "", false, errReply
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	switch {
	case len(line) == 3:
		return code, "", true, nil
	case line[3] == ' ', line[3] == '-':
		return code, string(line[4:]), line[3] == ' ', nil
	}
	return 0, "", false, errReply
}

// data says DATA. After a 354 the message is written with append.
func (u *upstream) data() (*upstreamReply, error) {
	replies, err := u.exec("DATA")
	if err != nil || replies[0].code != 354 {
		return first(replies), err
	}
	u.lent = u.pool.Get().(*[]byte)
	u.out = (*u.lent)[:0]
	u.inData = true
	return replies[0], nil
}

// listen awaits the answer beside the writing, so that one that comes before
// the final dot is known to.
func (u *upstream) listen() {
	if u.final != nil {
		return
	}
	u.setReadDeadline(time.Now().Add(u.limits.MessageTimeout + u.limits.FinalReplyTimeout))
	u.final = make(chan finalReply, 1)
	go func() {
		f := finalReply{err: errReply}
		defer func() {
			_ = recover() // a panic is a malformed reply, not the process's end
			u.final <- f
		}()
		f.reply, f.err = u.readReply()
	}()
}

func first(replies []*upstreamReply) *upstreamReply {
	if len(replies) == 0 {
		return nil
	}
	return replies[0]
}

// finalDot ends a message.
const finalDot = ".\r\n"

// append gathers a run of the message, and writes what the buffer cannot hold:
// what was gathered last waits for finish, so that no octet of a message that
// fits goes out before. What begins a line with a dot is stuffed; no other line
// of the run may.
func (u *upstream) append(run []byte, startsLine bool) error {
	const kept = len(".") + len(finalDot) // for stuffing, and for finish
	if startsLine && len(run) > 0 && run[0] == '.' {
		u.out = append(u.out, '.')
	}
	for {
		n := min(len(run), max(0, cap(u.out)-len(u.out)-kept))
		u.out = append(u.out, run[:n]...)
		if run = run[n:]; len(run) == 0 {
			return nil
		}
		if err := u.flush(); err != nil {
			return err
		}
	}
}

// flush writes what append gathered.
func (u *upstream) flush() error {
	b := u.out
	u.out = u.out[:0]
	if len(b) == 0 {
		return nil
	}
	u.listen()
	_, err := u.write(b)
	return err
}

// early returns the answer that came before it was due, if there is one: the
// end of the connection is one too. A message of which nothing has gone out
// is not listened for; there the socket is asked.
func (u *upstream) early() *finalReply {
	if u.final == nil {
		if !u.inData || u.reader.Buffered() == 0 && !readable(u.conn) {
			return nil
		}
		u.listen()
		timer := time.NewTimer(earlyReply)
		defer timer.Stop()
		select {
		case f := <-u.final:
			u.final <- f
			return &f
		case <-timer.C: // what came was TLS's own
			return nil
		}
	}
	select {
	case f := <-u.final:
		u.final <- f
		return &f
	default:
		return nil
	}
}

// errNotWhole is finish's when nothing of the final dot was written.
var errNotWhole = errors.New("submission: the message did not go out as a whole")

// finish writes what append gathered and the final dot. From the dot's first
// octet on the message may be sent, whatever becomes of the connection. With
// errNotWhole it was not, and the answer, if one came, is early's.
func (u *upstream) finish() (*upstreamReply, error) {
	rest := len(u.out)
	u.setReadDeadline(time.Now().Add(u.limits.FinalReplyTimeout))
	u.sent.Store(true)
	n, werr := u.write(append(u.out, finalDot...))
	if werr != nil && n <= rest {
		u.sent.Store(false)
		return nil, errors.Join(errNotWhole, werr)
	}
	var f finalReply
	if u.final != nil {
		f = <-u.final
	} else {
		f.reply, f.err = u.readReply()
	}
	u.final, u.inData = nil, false
	u.release()
	u.sent.Store(false)
	if f.err != nil || f.reply.code == 421 {
		u.broken = true
	}
	if f.err == nil && f.reply.code/100 == 3 {
		u.broken = true
		return nil, errReply
	}
	if f.err != nil {
		return nil, errors.Join(f.err, werr)
	}
	u.dirty = false
	return f.reply, nil
}

// quit says goodbye and closes; nobody waits long for it.
func (u *upstream) quit() {
	if !u.broken && !u.inData && u.aborted.Load() == 0 {
		_ = u.conn.SetDeadline(time.Now().Add(quitTimeout))
		if _, err := u.conn.Write([]byte("QUIT\r\n")); err == nil {
			_, _ = u.readReply()
		}
	}
	u.close()
}

// close drops the connection as it stands; a message without its final dot is
// dropped with it.
func (u *upstream) close() {
	u.broken = true
	u.kill()
	if u.final != nil {
		<-u.final
	}
	u.final, u.inData = nil, false
	u.release()
}

func (u *upstream) release() {
	if u.lent != nil {
		u.pool.Put(u.lent)
		u.lent, u.out = nil, nil
	}
}

// abort makes every read and write fail at the given time.
func (u *upstream) abort(at time.Time) {
	u.aborted.Store(at.UnixNano())
	_ = u.conn.SetDeadline(at)
}

// kill closes the socket under whatever is on it: closing TLS would wait for
// the lock that a write to a slow server holds.
func (u *upstream) kill() { _ = socket(u.conn).Close() }

// socket returns what is under a connection's wrappers.
func socket(c net.Conn) net.Conn {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = inner.NetConn()
	}
}

func (u *upstream) setReadDeadline(t time.Time) {
	_ = u.conn.SetReadDeadline(t) // a closed connection fails the read itself
	if at := u.aborted.Load(); at != 0 {
		_ = u.conn.SetReadDeadline(time.Unix(0, at))
	}
}

func (u *upstream) setWriteDeadline(t time.Time) {
	_ = u.conn.SetWriteDeadline(t)
	if at := u.aborted.Load(); at != 0 {
		_ = u.conn.SetWriteDeadline(time.Unix(0, at))
	}
}

// relay makes of the server's refusal what the client is told: the same code
// and enhanced code. Codes that speak of the connection or of its login are
// about ours and would mislead the client about its own.
func (r *upstreamReply) relay() *reply {
	out := &reply{code: r.code, enhanced: r.enhanced, text: r.text}
	switch {
	case r.code == 421:
		out.code, out.enhanced = 451, smtp.EnhancedCode{4, 3, 2}
	case r.code == 454:
		out.code, out.enhanced = 451, smtp.EnhancedCode{4, 7, 0}
	case r.code/10 == 53 || r.code/10 == 52:
		out.code, out.enhanced = 554, smtp.EnhancedCode{5, 7, 0}
	case r.code/100 == 3:
		return replyUpstream
	}
	if out.enhanced == (smtp.EnhancedCode{}) {
		out.enhanced = smtp.EnhancedCode{out.code / 100, 0, 0}
	}
	return out
}

// line is the reply on one line, for the record.
func (r *upstreamReply) line() string {
	s := strconv.Itoa(r.code)
	if r.enhanced != (smtp.EnhancedCode{}) {
		s += fmt.Sprintf(" %d.%d.%d", r.enhanced[0], r.enhanced[1], r.enhanced[2])
	}
	return s + " " + strings.ReplaceAll(r.text, "\n", " ")
}
