// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"io"

	"github.com/postern-mail/postern/proxy/imapwire"
)

// This file rewrites what is not passed on as it came: status responses,
// capabilities, tagged answers and continuation requests.

// wordList rewrites CAPABILITY and ENABLED to what Postern offers.
func (u *upstreamSide) wordList(resp *imapwire.Response) error {
	line, err := u.line()
	if line == nil || err != nil {
		return err
	}
	out := append(u.scratch[:0], line[:resp.Len]...)
	out = append(appendOffered(out, u.r.extensions(), line[resp.Len:len(line)-2]), '\r', '\n')
	u.scratch = out
	return u.replace(len(line), out)
}

// status handles untagged OK, NO, BAD, BYE and PREAUTH.
func (u *upstreamSide) status(resp *imapwire.Response) error {
	line, err := u.line()
	if line == nil || err != nil {
		return err
	}
	if resp.Is("BYE") {
		if !u.r.loggingOut() {
			return io.EOF
		}
		return u.replace(len(line), []byte("* BYE Logging out\r\n"))
	}
	if resp.Is("PREAUTH") {
		return errUpstreamBroken
	}
	name, args, rest := imapwire.Code(line[resp.Len : len(line)-2])
	switch {
	case len(name) == 0:
	case u.r.view.sliced() && onList(sliceCodes, name):
		return u.drop(len(line))
	case bytes.EqualFold(name, []byte("UIDVALIDITY")):
		u.newUIDValidity(args)
	case bytes.EqualFold(name, []byte("CLOSED")):
		u.enter(folder{})
	case bytes.EqualFold(name, []byte("COPYUID")), bytes.EqualFold(name, []byte("APPENDUID")):
		u.copyUID = cut(string(args), 2000)
	}
	return u.statusLine(line, resp.Len, name, args, rest, nil)
}

// statusLine passes a status line on, with its code rewritten or dropped and
// its tag replaced where needed. head is the length of what stands before the
// text.
func (u *upstreamSide) statusLine(line []byte, head int, name, args, rest, retag []byte) error {
	out := u.scratch[:0]
	capability := bytes.EqualFold(name, []byte("CAPABILITY"))
	passed := len(name) > 0 && !capability && u.r.view.passesCode(name)
	// Text that begins like a code would become one when the code before it is
	// left out; and without a code, what begins like one is none.
	if len(rest) > 0 && rest[0] == '[' {
		rest = nil
	}
	whole := len(rest) > 0 || len(line) == head+2 || passed
	if retag == nil && whole && (len(name) == 0 || passed) {
		u.advance(len(line))
		return nil
	}
	if retag != nil {
		out = append(out, retag...)
		out = append(out, line[bytes.IndexByte(line, ' '):head]...)
	} else {
		out = append(out, line[:head]...)
	}
	out = append(out, ' ')
	switch {
	case capability:
		out = append(out, "[CAPABILITY"...)
		out = append(appendOffered(out, u.r.extensions(), args), "] "...)
	case passed:
		out = append(out, '[')
		out = append(out, name...)
		if len(args) > 0 {
			out = append(append(out, ' '), args...)
		}
		out = append(out, "] "...)
	}
	if len(rest) == 0 {
		rest = []byte("done")
	}
	out = append(append(out, rest...), '\r', '\n')
	u.scratch = out
	return u.replace(len(line), out)
}

// tagged handles the answer that completes a command.
func (u *upstreamSide) tagged(resp *imapwire.Response) error {
	line, err := u.line()
	if line == nil || err != nil {
		return err
	}
	flight, ok := u.r.completed(resp.Tag)
	if !ok {
		if bytes.EqualFold(resp.Tag, []byte("DONE")) && !resp.Is("OK") && u.r.strayDone() {
			return u.drop(len(line))
		}
		return errUpstreamBroken
	}
	name, args, rest := imapwire.Code(line[resp.Len : len(line)-2])
	good := resp.Is("OK")
	switch flight.kind {
	case selecting:
		u.settleSelected(flight.change.folder, good)
	case closing:
		if good {
			u.enter(folder{})
			if u.r.view != nil {
				u.r.view.mail.reset()
			}
		}
	case hidden, identifying:
		err := u.drop(len(line))
		u.r.answered()
		return err
	}
	if flight.own {
		return u.ownAnswered(&flight, resp, line, name, args, rest)
	}
	u.record.answered(u, flight.change, resp, name, args)
	if err := u.statusLine(line, resp.Len, name, args, rest, flight.retag); err != nil {
		return err
	}
	u.r.answered()
	if flight.kind == logout && good {
		if err := u.flush(); err != nil {
			return err
		}
		return errLoggedOut
	}
	return nil
}

// continuation handles "+": for the client, or for Postern's own command.
func (u *upstreamSide) continuation() error {
	line, err := u.line()
	if line == nil || err != nil {
		return err
	}
	switch u.r.continuationFor() {
	case expectForClient:
		u.advance(len(line))
		if err := u.flush(); err != nil {
			return err
		}
		u.r.grant()
		return nil
	case expectForPostern:
		err := u.drop(len(line))
		u.r.grant()
		return err
	}
	return errUpstreamBroken
}
