// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"errors"
	"time"
)

// This file is how a message goes to the mail server behind.
type finalReply struct {
	reply *upstreamReply
	err   error
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
