// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"fmt"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// This file is what a view does with what the upstream answers.

// viewData decides what becomes of untagged data in a view: what it knows
// passes, what tells of folders is looked at, and all else is dropped.
func (u *upstreamSide) viewData(resp *imapwire.Response) error {
	if u.r.view.sliced() {
		return u.slicedData(resp)
	}
	switch {
	case resp.Is("FLAGS"), resp.Is("EXISTS"), resp.Is("RECENT"), resp.Is("EXPUNGE"), resp.Is("ID"),
		resp.Is("SEARCH"), resp.Is("ESEARCH"), resp.Is("SORT"), resp.Is("THREAD"):
		return nil
	case resp.Is("LIST"), resp.Is("LSUB"), resp.Is("XLIST"), resp.Is("STATUS"), resp.Is("NAMESPACE"):
		return u.setAside(kept)
	}
	return u.setAside(dropped)
}

// slicedData is viewData where messages are hidden: what counts messages is noted
// and told by Postern itself.
func (u *upstreamSide) slicedData(resp *imapwire.Response) error {
	m := &u.r.view.mail
	switch {
	case resp.Is("FLAGS"), resp.Is("ID"):
		return nil
	case resp.Is("LIST"), resp.Is("LSUB"), resp.Is("XLIST"), resp.Is("STATUS"), resp.Is("NAMESPACE"):
		return u.setAside(kept)
	case resp.Is("EXISTS"):
		if !m.exists(resp.Number) {
			return errUpstreamBroken
		}
		u.r.tellNews()
	case resp.Is("EXPUNGE"):
		m.expunged(resp.Number)
		u.r.tellNews()
	case resp.Is("VANISHED"): // which nobody asked for: numbers would mean other messages
		return errUpstreamBroken
	case (resp.Is("SEARCH") || resp.Is("SORT")) && u.r.view.answer.Load() != nil:
		err := u.setAside(dropped)
		u.advance(resp.Len)
		u.fate, u.number = numbers, 0
		return err
	}
	return u.setAside(dropped)
}

// takeNumbers reads a part of the numbers that a search found.
func (u *upstreamSide) takeNumbers(b []byte) {
	a := u.r.view.answer.Load()
	if a == nil {
		return
	}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9' && u.number <= 0xffffffff:
			u.number = u.number*10 + uint64(c-'0')
			continue
		case c != ' ' && c != '\r' && c != '\n', u.number > 0xffffffff, len(a.numbers) > maxMapped:
			a.broken = true
		case u.number > 0:
			a.numbers = append(a.numbers, uint32(u.number))
		}
		u.number = 0
	}
}

// slicedFetch begins a FETCH response: one of a visible message passes under the
// client's number.
func (u *upstreamSide) slicedFetch(resp *imapwire.Response) error {
	seq, uid, words := u.r.numbered(resp.Number)
	if len(words) > 0 {
		if err := u.flush(); err != nil {
			return err
		}
		if err := u.write(words); err != nil {
			return err
		}
	}
	u.expectUID = 0
	if seq != 0 {
		u.expectUID = uid
	}
	u.state = inFetch
	if seq == 0 {
		err := u.setAside(dropped)
		u.advance(resp.Len)
		return err
	}
	if a := u.r.view.answer.Load(); a != nil && a.sizes != nil {
		err := u.setAside(kept)
		u.start += resp.Len
		u.pass = u.start
		u.collected = fmt.Appendf(u.collected[:0], "* %d FETCH", seq)
		return err
	}
	u.message.seq = seq
	u.beginCollecting()
	u.scratch = fmt.Appendf(u.scratch[:0], "* %d FETCH", seq)
	if u.fate == collected {
		u.collected = append(u.collected, u.scratch...)
		u.start += resp.Len
		u.pass = u.start
		return nil
	}
	return u.replaceHead(resp.Len, u.scratch)
}

// replaceHead is replace for what is not longer: it goes out with what follows.
func (u *upstreamSide) replaceHead(n int, instead []byte) error {
	shift := n - len(instead)
	if shift < 0 || u.start-u.pass > smallBuffer {
		return u.replace(n, instead)
	}
	copy(u.buf[u.pass+shift:], u.buf[u.pass:u.start])
	u.pass += shift
	copy(u.buf[u.start+shift:], instead)
	u.start += n
	return nil
}

// endSlicedFetch ends a FETCH response. true: it did not pass.
func (u *upstreamSide) endSlicedFetch() (hidden bool, err error) {
	if u.fetch.Flags {
		u.r.view.touched.Store(true)
		if len(u.r.view.flags) > 0 {
			u.r.tellNews()
		}
	}
	line, f := u.collected, u.fate
	if f != dropped && f != kept {
		return false, nil
	}
	u.fate, u.collected = passes, nil
	if f == dropped {
		return true, nil
	}
	a := u.r.view.answer.Load()
	switch {
	case len(line) > maxKept:
		return true, errUpstreamBroken
	case a != nil && u.endSize(a, line):
		return true, nil
	}
	return true, u.write(line) // it tells of flags
}

// endAside is called where data ends that does not pass.
func (u *upstreamSide) endAside() error {
	line, f := u.collected, u.fate
	u.collected, u.fate = nil, passes
	if a := u.r.view.answer.Load(); f == numbers && a != nil && u.number != 0 {
		a.broken = true // the line ended in a literal
	}
	if f != kept {
		return nil
	}
	if len(line) > maxKept {
		return errUpstreamBroken
	}
	v := u.r.view
	resp := imapwire.ParseResponse(line)
	switch {
	case resp.Is("STATUS"):
		name, rest, ok := listedName(bytes.TrimPrefix(line[resp.Len:], []byte(" ")))
		if shown := v.shown.Load(); !ok || shown == nil || (*shown)[string(name)] == nil || !bytes.HasPrefix(rest, []byte(" (")) {
			return nil
		}
		return u.write(line)
	case resp.Is("NAMESPACE"):
		return u.write(personalNamespace(line[resp.Len:]))
	}
	if a := v.answer.Load(); a != nil {
		if a.lines = append(a.lines, line); len(a.lines) > maxListed {
			return errUpstreamBroken
		}
	}
	return nil
}

// personalNamespace writes a NAMESPACE response (RFC 2342 §5) anew with the
// agent's own names alone: others' show as far as a folder in them is listed.
func personalNamespace(rest []byte) []byte {
	out := []byte("* NAMESPACE ")
	depth, quote := 0, false
	for i, c := range bytes.TrimPrefix(rest, []byte(" ")) {
		switch {
		case c == '"':
			quote = !quote
		case c == '\\' || c == '{': // an escape or a literal: rather nothing
			return []byte("* NAMESPACE NIL NIL NIL\r\n")
		case quote:
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
		out = append(out, c)
		if depth == 0 && i > 0 && c == ')' {
			return append(out, " NIL NIL\r\n"...)
		}
		if depth == 0 {
			break
		}
	}
	return []byte("* NAMESPACE NIL NIL NIL\r\n")
}

// ownAnswered hands the tagged answer to a view's own command over.
func (u *upstreamSide) ownAnswered(flight *inFlight, resp *imapwire.Response, line, code, args, text []byte) error {
	good := resp.Is("OK")
	// What comes behind it is none of the answer, which is the client's goroutine's
	// from now on.
	if a := u.r.view.answer.Swap(nil); a != nil {
		a.good, a.status = good && !a.broken, string(bytes.ToUpper(resp.Keyword))
		a.code, a.args, a.text = string(code), string(args), string(text)
	}
	u.record.answered(u, flight.change, resp, code, args)
	err := u.drop(len(line))
	u.r.answered()
	return err
}
