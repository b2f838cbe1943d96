// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// upstreamSide is the goroutine that reads what the upstream answers; it alone
// writes to the client.
type upstreamSide struct {
	r *relay

	// buf[start:end] was read and is not framed yet; buf[pass:start] is framed
	// and goes to the client as it is.
	buf              []byte
	small            [smallBuffer]byte
	big              *[]byte
	pass, start, end int

	state   lineState
	literal literal
	fetch   imapwire.FetchScanner
	message openedMessage
	section namedSection
	record  recorder

	// fate is what becomes of the response at hand; collected is what was held
	// back of it.
	fate      fate
	collected []byte
	// number is what was read of a number of a search's answer; expectUID is
	// the UID of the message whose FETCH response a view lets pass.
	number    uint64
	expectUID uint32

	// selected is the folder that what comes belongs to; switched says that
	// the SELECT under way has changed it, from before.
	selected, before folder
	switched         bool
	// copyUID is what an untagged COPYUID or APPENDUID told, as MOVE and REPLACE
	// have them (RFC 6851 §4.3, RFC 8508 §3.1).
	copyUID string

	offers    offers
	lastWrite time.Time
	lastRead  int
	scratch   []byte
	// stuck says that a write to the client failed; writeBy is its deadline.
	stuck   bool
	writeBy time.Time
}

type lineState uint8

const (
	atLine    lineState = iota // where a response begins
	inData                     // in untagged data, opaque
	inFetch                    // in a FETCH response
	inLiteral                  // in a literal of either
)

type literal struct {
	left    int64
	content imapwire.Content
	back    lineState
}

// errUpstreamBroken says that the upstream's octets follow no grammar.
var errUpstreamBroken = errors.New("the upstream's answer follows no grammar")

// errClientWrite says that the client does not take what it is sent.
var errClientWrite = errors.New("writing to the client failed")

// errRecord says that the audit log cannot be written.
var errRecord = errors.New("the audit log cannot be written")

// has reports whether the upstream offers any of these.
func (u *upstreamSide) has(any offers) bool { return u.offers&any != 0 }

// run ends with both connections closed.
func (u *upstreamSide) run() {
	defer u.r.closeGently()
	err := u.loop()
	u.record.finish(u)
	if u.big != nil {
		u.r.f.buffers.put(u.big)
		u.big = nil
	}
	switch {
	case errors.Is(err, errOver):
		// Said already, unless it waited for a record.
	case errors.Is(err, errRecord):
		u.r.stop(&broker.End{Reason: broker.EndRecord, Detail: err.Error()}, "* BYE [UNAVAILABLE] the audit log cannot be written\r\n", lastWords)
	case errors.Is(err, errClientWrite) && errors.Is(err, os.ErrDeadlineExceeded):
		u.r.stop(&broker.End{Reason: broker.EndIdle, Detail: "took nothing for too long"}, "", 0)
	case errors.Is(err, errClientWrite):
		u.r.stop(&broker.End{Reason: broker.EndClientClosed}, "", 0)
	case errors.Is(err, errLoggedOut):
		u.r.stop(&broker.End{Reason: broker.EndLogout}, "", lastWords)
	default:
		u.r.stop(&broker.End{Reason: broker.EndUpstreamClosed, Detail: detailOf(err)},
			"* BYE [UNAVAILABLE] the mail server closed the connection\r\n", lastWords)
	}
	u.sayBye()
}

// errLoggedOut is the good end.
var errLoggedOut = errors.New("logged out")

func detailOf(err error) string {
	if errors.Is(err, errUpstreamBroken) {
		return "the upstream broke the protocol"
	}
	return ""
}

// loop frames what comes until something ends it.
func (u *upstreamSide) loop() error {
	for {
		if err := u.frame(); err != nil {
			return errors.Join(err, u.flush())
		}
		if !u.moreIsComing() {
			if err := u.flush(); err != nil {
				return err
			}
		}
		if err := u.record.settle(u); err != nil {
			return err
		}
		if err := u.ownWords(); err != nil {
			return err
		}
		if err := u.read(); errors.Is(err, errOver) {
			return err
		} else if err != nil {
			return errors.Join(err, u.flush())
		}
	}
}

// moreIsComing reports whether what is framed may wait for what follows it: in
// a literal of which a whole record of the upstream's TLS has just come, so
// that the next is likely to be there. Written together they cost less.
func (u *upstreamSide) moreIsComing() bool {
	return u.state == inLiteral && u.lastRead == maxRecord && len(u.buf)-u.end >= maxRecord
}

// read waits for more from the upstream. It returns errOver when the session
// is to end.
func (u *upstreamSide) read() error {
	for {
		u.makeRoom()
		n, err := u.r.up.Read(u.buf[u.end:])
		if n > 0 {
			u.end += n
			u.lastRead = n
			return nil
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			if u.r.loggingOut() {
				return errLoggedOut
			}
			return err
		}
		// Something woke it.
		if err := u.record.settle(u); err != nil {
			return err
		}
		if err := u.ownWords(); err != nil {
			return err
		}
	}
}

// ownWords says what Postern has to say, where a response may begin, and arms
// the next wake-up.
func (u *upstreamSide) ownWords() error {
	r := u.r
	for {
		r.mu.Lock()
		if r.end != nil {
			r.mu.Unlock()
			u.sayBye()
			return errOver
		}
		var words []byte
		if u.state == atLine && u.fate == passes {
			words, r.local = r.local, nil
			if words != nil {
				r.signalLocked()
			}
		}
		if words == nil {
			if r.idling.Load() && u.state == atLine {
				still := u.lastWrite.Add(r.f.stillHere)
				if now := time.Now(); !still.After(now) {
					words = []byte("* OK Still here\r\n")
					still = now.Add(r.f.stillHere)
				}
				_ = r.up.SetReadDeadline(still)
				r.woken = true
			} else if r.woken {
				r.woken = false
				_ = r.up.SetReadDeadline(time.Time{})
			}
		}
		r.mu.Unlock()
		if words == nil {
			return nil
		}
		if err := u.write(words); err != nil {
			return err
		}
	}
}

// sayBye writes the last words, where a response may begin, and closes.
func (u *upstreamSide) sayBye() {
	r := u.r
	r.mu.Lock()
	words := append(r.local, r.bye...)
	r.local, r.bye = nil, ""
	r.mu.Unlock()
	if len(words) > 0 && u.state == atLine && u.fate == passes && u.pass == u.start {
		r.down.Cork() // until closeGently
		_ = u.write(words)
	}
	r.closeGently()
}

// makeRoom leaves room to read into: a large buffer while octets flow, the
// small one at rest.
func (u *upstreamSide) makeRoom() {
	if u.pass < u.start {
		return // moreIsComing saw that there is room
	}
	if u.start == u.end {
		u.pass, u.start, u.end = 0, 0, 0
		if u.big != nil && u.state != inLiteral && u.lastRead < smallBuffer {
			u.r.f.buffers.put(u.big)
			u.big, u.buf = nil, u.small[:]
		} else if u.big == nil && u.state == inLiteral && u.literal.left > smallBuffer {
			u.big = u.r.f.buffers.get()
			u.buf = *u.big
		} else if u.big == nil {
			u.buf = u.small[:]
		}
		return
	}
	if u.end < len(u.buf) {
		return
	}
	if u.big == nil {
		u.big = u.r.f.buffers.get()
		u.end = copy(*u.big, u.buf[u.start:u.end])
		u.buf = *u.big
	} else {
		u.end = copy(u.buf, u.buf[u.start:u.end])
	}
	u.pass, u.start = 0, 0
}

// frame moves start over what is complete, and returns when it needs more.
func (u *upstreamSide) frame() error {
	for u.start < u.end {
		before := u.start
		state := u.state
		var err error
		switch u.state {
		case atLine:
			err = u.beginLine()
		case inData:
			err = u.data()
		case inFetch:
			err = u.fetchItems()
		case inLiteral:
			err = u.literalOctets()
		}
		if err != nil {
			return err
		}
		if u.start == before && u.state == state {
			return nil
		}
	}
	return nil
}

// line returns the whole line at start, or nil when it is not there yet.
func (u *upstreamSide) line() ([]byte, error) {
	b := u.buf[u.start:u.end]
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) >= maxStatusLine {
			return nil, errUpstreamBroken
		}
		return nil, nil
	}
	if i == 0 || bytes.IndexByte(b[:i+1], '\r') != i-1 { // a bare CR ends lines for some
		return nil, errUpstreamBroken
	}
	return b[:i+1], nil
}

// beginLine frames a response's head.
func (u *upstreamSide) beginLine() error {
	b := u.buf[u.start:u.end]
	nl := bytes.IndexByte(b, '\n')
	if nl < 0 && len(b) < imapwire.MaxResponseHead {
		return nil
	}
	if nl >= 0 {
		b = b[:nl+1]
	}
	resp := imapwire.ParseResponse(b)
	switch resp.Kind {
	case imapwire.ResponseFetch:
		u.fetch.Reset()
		u.message.reset(resp.Number)
		if u.r.view.sliced() {
			return u.slicedFetch(&resp)
		}
		u.beginCollecting()
		u.advance(resp.Len)
		u.state = inFetch
		return nil
	case imapwire.ResponseData:
		if resp.Is("CAPABILITY") || resp.Is("ENABLED") {
			return u.wordList(&resp)
		}
		u.state = inData
		if u.r.view != nil {
			return u.viewData(&resp)
		}
		return nil
	case imapwire.ResponseStatus:
		return u.status(&resp)
	case imapwire.ResponseTagged:
		return u.tagged(&resp)
	case imapwire.ResponseContinue:
		return u.continuation()
	}
	return errUpstreamBroken
}

// data frames opaque untagged data up to its CRLF or a literal.
func (u *upstreamSide) data() error {
	b := u.buf[u.start:u.end]
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		// The tail may be a literal's announcement: keep it.
		if keep := 64; len(b) > keep && len(b) > len(u.buf)/2 {
			if bytes.IndexByte(b[:len(b)-keep], '\r') >= 0 {
				return errUpstreamBroken
			}
			u.advance(len(b) - keep)
		}
		return nil
	}
	if i == 0 || bytes.IndexByte(b[:i+1], '\r') != i-1 {
		return errUpstreamBroken
	}
	size := imapwire.TrailingLiteral(b[:i+1])
	if size > imapwire.MaxLiteral {
		return errUpstreamBroken
	}
	u.advance(i + 1)
	if size >= 0 {
		u.literal = literal{left: size, back: inData}
		u.state = inLiteral
	} else {
		u.state = atLine
		if u.fate != passes {
			return u.endAside()
		}
	}
	return nil
}

// fetchItems frames a FETCH response's items.
func (u *upstreamSide) fetchItems() error {
	n, event := u.fetch.Scan(u.buf[u.start:u.end])
	if event == imapwire.FetchBroken || u.expectUID != 0 && u.fetch.UID != 0 && u.fetch.UID != u.expectUID {
		return errUpstreamBroken // nothing of what is not the message passes
	}
	u.advance(n)
	switch event {
	case imapwire.FetchLiteral:
		u.literal = literal{left: u.fetch.Size, content: u.fetch.Content, back: inFetch}
		u.state = inLiteral
		if u.fate == dropped || u.fate == kept { // nothing of it is opened
			u.literal.content = imapwire.ContentNone
			return nil
		}
		u.beginContent()
	case imapwire.FetchString:
		if u.fate == dropped || u.fate == kept {
			return nil
		}
		u.beginContent()
		if u.fetch.Content == imapwire.ContentBody {
			return u.record.pass(u, u.fetch.Size)
		}
	case imapwire.FetchEnd:
		u.state = atLine
		if u.r.view.sliced() {
			if hidden, err := u.endSlicedFetch(); hidden || err != nil {
				return err
			}
		}
		u.record.endMessage(u)
		return u.endCollecting()
	}
	return nil
}

// literalOctets lets a literal's octets pass.
func (u *upstreamSide) literalOctets() error {
	n := int64(u.end - u.start)
	if n > u.literal.left {
		n = u.literal.left
	}
	if u.literal.content != imapwire.ContentNone {
		_, _ = u.message.sniff.Write(u.buf[u.start : u.start+int(n)])
	}
	if u.literal.content == imapwire.ContentBody {
		if err := u.record.pass(u, n); err != nil {
			return err
		}
	}
	u.advance(int(n))
	if u.literal.left -= n; u.literal.left == 0 {
		u.state = u.literal.back
	}
	return nil
}
