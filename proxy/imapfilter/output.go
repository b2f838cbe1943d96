// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"time"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// This file is how the upstream's goroutine writes to the client.

// advance takes n framed octets along.
func (u *upstreamSide) advance(n int) {
	if u.fate != passes {
		u.aside(n)
		return
	}
	u.start += n
}

// fate is what becomes of a response.
type fate uint8

const (
	// passes to the client as it came.
	passes fate = iota
	// collected until it is known whether it answers an own FETCH.
	collected
	// kept for the view, as a whole.
	kept
	// dropped by the view.
	dropped
	// numbers are read by the view as they come.
	numbers
)

// aside takes n octets along that do not pass.
func (u *upstreamSide) aside(n int) {
	switch {
	case u.fate == dropped:
	case u.fate == numbers:
		u.takeNumbers(u.buf[u.start : u.start+n])
	case len(u.collected) <= maxKept:
		u.collected = append(u.collected, u.buf[u.start:u.start+n]...)
	}
	u.start += n
	u.pass = u.start
	if u.fate == collected && len(u.collected) > maxCollected {
		u.fate = passes
	}
}

// setAside begins a response that does not pass. What is framed so far is the
// client's.
func (u *upstreamSide) setAside(f fate) error {
	err := u.flush()
	u.fate = f
	return err
}

// drop leaves n octets out.
func (u *upstreamSide) drop(n int) error { return u.replace(n, nil) }

// replace leaves n octets out and writes instead in their place.
func (u *upstreamSide) replace(n int, instead []byte) error {
	if err := u.flush(); err != nil {
		return err
	}
	u.start += n
	u.pass = u.start
	if len(instead) == 0 {
		return nil
	}
	return u.write(instead)
}

// flush writes what is framed to the client.
func (u *upstreamSide) flush() error {
	if len(u.collected) > 0 && u.fate == passes {
		b := u.collected
		u.collected = nil
		if err := u.write(b); err != nil {
			return err
		}
	}
	if u.pass == u.start {
		return nil
	}
	b := u.buf[u.pass:u.start]
	u.pass = u.start
	return u.write(b)
}

func (u *upstreamSide) write(b []byte) error {
	now := time.Now()
	if silence := u.r.f.silence; u.writeBy.Sub(now) < silence*30/31 {
		u.writeBy = now.Add(silence)
		u.r.mu.Lock()
		if u.r.end == nil { // otherwise stop has set it
			_ = u.r.down.SetWriteDeadline(u.writeBy) // a closed connection fails the write
		}
		u.r.mu.Unlock()
	}
	n, err := u.writeJoined(b)
	u.r.octetsDown.Add(int64(n))
	u.lastWrite = now
	if err != nil {
		u.stuck = true
		return errors.Join(errClientWrite, err)
	}
	return nil
}

// writeJoined writes b in one system call where TLS would make one for each
// record of 16 KiB. Nothing is held back when it returns.
func (u *upstreamSide) writeJoined(b []byte) (int, error) {
	down := u.r.down
	if len(b) <= maxRecord || !down.IsTLS() {
		return down.Conn.Write(b)
	}
	down.Cork()
	n, err := down.Conn.Write(b)
	if uncork := down.Uncork(); err == nil {
		err = uncork
	}
	return n, err
}

// beginCollecting holds a FETCH response back while an own FETCH is under way.
func (u *upstreamSide) beginCollecting() {
	if u.r.asked.Load() != nil {
		_ = u.setAside(collected) // an error comes back with the next write
	}
}

// endCollecting swallows the answer to an own FETCH and lets any other pass. Flags
// that come with the answer pass, without the header, which nobody but Postern
// asked for.
func (u *upstreamSide) endCollecting() error {
	if u.fate != collected {
		return nil
	}
	u.fate = passes
	if u.message.header && u.fetch.UID != 0 && u.record.identified(u, u.fetch.UID) {
		line := u.collected
		if u.collected = nil; u.fetch.Flags {
			u.collected = withoutHeader(line)
		}
	}
	return u.flush()
}

// withoutHeader takes the header that an own FETCH asks for out of a response
// that holds it and no other string or literal. nil: it stands there in another
// form than servers write it.
func withoutHeader(line []byte) []byte {
	const section = "BODY[HEADER.FIELDS ("
	at := bytes.Index(bytes.ToUpper(line), []byte(section))
	if at <= 0 {
		return nil
	}
	_, value, ok := bytes.Cut(line[at:], []byte("] "))
	var rest []byte
	switch nl := bytes.IndexByte(value, '\n'); {
	case !ok || nl < 0:
		return nil
	case value[0] == '{':
		size := imapwire.TrailingLiteral(value[:nl+1])
		if size < 0 || size > int64(len(value)-nl-1) {
			return nil
		}
		rest = value[nl+1+int(size):]
	case value[0] == '"' || len(value) > 3 && bytes.EqualFold(value[:3], []byte("NIL")):
		if _, rest, ok = listedName(value); !ok {
			return nil
		}
	default:
		return nil
	}
	if line[at-1] == ' ' {
		at--
	} else {
		rest = bytes.TrimPrefix(rest, []byte(" "))
	}
	return append(line[:at:at], rest...)
}
