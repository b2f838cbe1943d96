// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bufio"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
