// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
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

	// collecting holds back the answer to an own command.
	collecting bool
	collected  []byte

	// selected is the folder that what comes belongs to; switched says that
	// the SELECT under way has changed it, from before.
	selected, before folder
	switched         bool
	// copyUID is what an untagged COPYUID or APPENDUID told, as MOVE and REPLACE
	// have them (RFC 6851 §4.3, RFC 8508 §3.1).
	copyUID string

	capabilities map[string]bool
	lastWrite    time.Time
	lastRead     int
	scratch      []byte
	// stuck says that a write to the client failed; writeBy is its deadline.
	stuck   bool
	writeBy time.Time
}

// folder is one that is or was selected, by its name for the record.
type folder struct {
	name        string
	uidValidity uint32
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

// has reports whether the upstream offers a capability, in upper case.
func (u *upstreamSide) has(capability string) bool { return u.capabilities[capability] }

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
		return
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
		if u.state == atLine && !u.collecting {
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
	if len(words) > 0 && u.state == atLine && !u.collecting && u.pass == u.start {
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
	if i == 0 || b[i-1] != '\r' {
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
		u.beginCollecting()
		u.advance(resp.Len)
		u.state = inFetch
		return nil
	case imapwire.ResponseData:
		if resp.Is("CAPABILITY") || resp.Is("ENABLED") {
			return u.wordList(&resp)
		}
		u.state = inData
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

// wordList rewrites CAPABILITY and ENABLED to what Postern offers.
func (u *upstreamSide) wordList(resp *imapwire.Response) error {
	line, err := u.line()
	if line == nil || err != nil {
		return err
	}
	out := append(u.scratch[:0], line[:resp.Len]...)
	out = append(appendOffered(out, line[resp.Len:len(line)-2]), '\r', '\n')
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
	passed := len(name) > 0 && !capability && onList(passedCodes, name)
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
		out = append(appendOffered(out, args), "] "...)
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

// newUIDValidity: what follows it in the answer to a SELECT belongs to the
// folder that is being selected.
func (u *upstreamSide) newUIDValidity(args []byte) {
	next := u.selected
	if name, ok := u.r.selectingFolder(); ok {
		if !u.switched {
			u.before, u.switched = u.selected, true
		}
		next.name = name
	}
	n, _ := strconv.ParseUint(string(args), 10, 32) // 0: it told none
	next.uidValidity = uint32(n)
	u.enter(next)
}

// enter takes what comes from now on for the folder's.
func (u *upstreamSide) enter(f folder) {
	if f != u.selected {
		u.record.flush(u)
		u.selected = f
	}
}

// settleSelected is called for the answer to a SELECT. When it failed, no
// folder is selected (RFC 9051 §6.3.2); what comes all the same belongs to the
// one before.
func (u *upstreamSide) settleSelected(name string, good bool) {
	switch {
	case good && !u.switched:
		u.enter(folder{name: name})
	case !good && u.switched:
		u.enter(u.before)
	}
	u.switched = false
}

// renamed follows the selected folder to its new name.
func (u *upstreamSide) renamed(from, to string) {
	rest, ok := strings.CutPrefix(u.selected.name, from)
	if !ok || strings.EqualFold(from, "INBOX") { // whose messages move, not its name
		return
	}
	if rest == "" || rest[0] == '/' || rest[0] == '.' || rest[0] == '\\' {
		u.enter(folder{name: to + rest, uidValidity: u.selected.uidValidity})
	}
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
		}
	case hidden, identifying:
		err := u.drop(len(line))
		u.r.signalClient()
		return err
	}
	if good && flight.change != nil {
		u.record.change(u, flight.change, name, args)
	}
	if err := u.statusLine(line, resp.Len, name, args, rest, flight.retag); err != nil {
		return err
	}
	u.r.signalClient()
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

// data frames opaque untagged data up to its CRLF or a literal.
func (u *upstreamSide) data() error {
	b := u.buf[u.start:u.end]
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		// The tail may be a literal's announcement: keep it.
		if keep := 64; len(b) > keep && len(b) > len(u.buf)/2 {
			u.advance(len(b) - keep)
		}
		return nil
	}
	if i == 0 || b[i-1] != '\r' {
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
	}
	return nil
}

// fetchItems frames a FETCH response's items.
func (u *upstreamSide) fetchItems() error {
	n, event := u.fetch.Scan(u.buf[u.start:u.end])
	u.advance(n)
	switch event {
	case imapwire.FetchBroken:
		return errUpstreamBroken
	case imapwire.FetchLiteral:
		u.literal = literal{left: u.fetch.Size, content: u.fetch.Content, back: inFetch}
		u.state = inLiteral
		u.beginContent()
	case imapwire.FetchString:
		u.beginContent()
		if u.fetch.Content == imapwire.ContentBody {
			return u.record.pass(u, u.fetch.Size)
		}
	case imapwire.FetchEnd:
		u.state = atLine
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

// advance takes n framed octets along.
func (u *upstreamSide) advance(n int) {
	if u.collecting {
		u.collected = append(u.collected, u.buf[u.start:u.start+n]...)
		u.start += n
		u.pass = u.start
		u.collecting = len(u.collected) <= maxCollected
		return
	}
	u.start += n
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
	if len(u.collected) > 0 && !u.collecting {
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
	if u.r.asked.Load() == nil {
		return
	}
	// What is framed so far belongs to the client.
	_ = u.flush()
	u.collecting = true
}

// endCollecting swallows the answer to an own FETCH and lets any other pass.
func (u *upstreamSide) endCollecting() error {
	if !u.collecting {
		return nil
	}
	// What tells of flags is not for Postern alone.
	if u.message.header && u.fetch.UID != 0 && u.record.identified(u, u.fetch.UID) && !u.fetch.Flags {
		u.collecting, u.collected = false, nil
		return nil
	}
	u.collecting = false
	return u.flush()
}

func capabilitySet(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, c := range list {
		set[strings.ToUpper(c)] = true
	}
	return set
}
