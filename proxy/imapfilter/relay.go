// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// relay carries one session after login. See the package comment for who
// writes where.
type relay struct {
	f        *Filter
	session  broker.LiveSession
	decision *policy.Decision
	down     *proxy.Conn
	up       *broker.IMAPConn

	// prefix begins the tags of Postern's own commands.
	prefix  string
	special specialFolders
	// view is what a restricted session is shown; nil: everything.
	view *view

	client   clientSide
	upstream upstreamSide

	// signal wakes the client's goroutine when it waits for the upstream's.
	signal chan struct{}
	// over is closed when the session is to end.
	over chan struct{}

	octetsUp, octetsDown, bodyOctets, opened atomic.Int64
	// idling says that the client is in IDLE; changed under mu.
	idling atomic.Bool
	// asked holds the UIDs of the own FETCH under way.
	asked atomic.Pointer[map[uint32]struct{}]

	mu      sync.Mutex
	waiting bool // the client's goroutine sleeps on signal
	// listening says that it reads from the client meanwhile.
	listening bool
	pending   []inFlight  // commands under way upstream, oldest first
	answering bool        // one was answered, and its answer is not handled yet
	expect    expectation // what a continuation request would mean
	granted   bool        // it came
	local     []byte      // Postern's own words to the client
	// doneCrossed says that a DONE may have crossed the end of IDLE.
	doneCrossed bool
	woken       bool // the upstream's read deadline was moved to the past
	// news says that the upstream has told a view of something, and
	// listensForNews that the client's goroutine reads until it does.
	news, listensForNews bool
	end                  *broker.End   // set once: why the session ends
	grace                time.Duration // set with end: for the client to take its last words
	ended                time.Time     // set with end: when
	bye                  string        // what to tell the client then
	// finished says that closeGently was called; it belongs to the upstream's
	// goroutine.
	finished bool
	// identify holds UIDs whose Message-ID is to be asked for.
	identify []uint32
}

// expectation is what a continuation request of the upstream is for.
type expectation uint8

const (
	expectNothing expectation = iota
	expectForClient
	expectForPostern
)

// inFlight is a command that the upstream has not answered yet.
type inFlight struct {
	tag  string // as it went upstream, where it is Postern's own
	raw  [24]byte
	n    uint8
	long []byte // a client's tag that is longer than raw
	kind inFlightKind
	// own says that it is a view's, which takes the answer.
	own bool
	// retag is the client's tag that the answer is given instead.
	retag []byte
	// change is what to record when the answer is OK.
	change *change
}

type inFlightKind uint8

const (
	plain inFlightKind = iota
	selecting
	closing
	logout
	// hidden answers are Postern's own and do not reach the client.
	hidden
	// identifying is an own FETCH; its answers are held back.
	identifying
)

func (c *inFlight) is(tag []byte) bool {
	switch {
	case c.tag != "":
		return string(tag) == c.tag
	case c.long != nil:
		return bytes.Equal(tag, c.long)
	}
	return bytes.Equal(tag, c.raw[:c.n])
}

func (c *inFlight) setTag(tag []byte) {
	if len(tag) > len(c.raw) {
		c.long = bytes.Clone(tag)
		return
	}
	c.n = uint8(copy(c.raw[:], tag))
}

// errOver says that the session has ended; why is in relay.end.
var errOver = errors.New("the session is over")

// run relays until the session ends, and records the end.
func (r *relay) run() {
	stop := context.AfterFunc(r.session.Context(), func() {
		end := &broker.End{Reason: broker.EndInternal, Text: "the session ended"}
		if e := (*broker.End)(nil); errors.As(context.Cause(r.session.Context()), &e) {
			end = e
		}
		r.stop(end, byeFor(end), killGrace)
	})
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.recoverPanic("upstream")
		r.upstream.run()
	}()
	func() {
		defer r.recoverPanic("client")
		r.client.run()
	}()
	<-done
	// Now that nothing more goes upstream: what an upstream that says no more is
	// told, it may still do.
	r.upstream.record.unanswered(&r.upstream)
	r.session.End(r.end, &broker.SessionEnd{
		OctetsDown: r.octetsDown.Load(), OctetsUp: r.octetsUp.Load(),
		BodyOctets: r.bodyOctets.Load(), Opened: r.opened.Load(),
	})
}

// log is for what goes wrong: most sessions never need it.
func (r *relay) log() *zap.Logger {
	record := r.session.Record()
	return r.f.log.With(zap.String("session", string(record.ID)), zap.String("agent", string(record.AgentID)),
		zap.String("workstation", string(record.WorkstationID)), zap.String("mailbox", string(record.MailboxID)))
}

func (r *relay) recoverPanic(side string) {
	if v := recover(); v != nil {
		r.log().Error("relay failed", zap.String("side", side), zap.Any("panic", v), zap.Stack("stack"))
		r.stop(&broker.End{Reason: broker.EndInternal, Detail: side}, "", 0)
		r.closeBoth()
	}
}

// stop ends the session: the first call counts. The upstream's goroutine says
// bye where a response may begin; whatever either peer does, both connections
// are closed soon after grace. It waits for nothing.
func (r *relay) stop(end *broker.End, bye string, grace time.Duration) {
	r.mu.Lock()
	if r.end != nil {
		r.mu.Unlock()
		return
	}
	r.end, r.bye, r.grace, r.ended = end, bye, grace, time.Now()
	// Before the upstream's goroutine wakes: what it writes is under it.
	_ = r.down.SetWriteDeadline(time.Now().Add(grace))
	r.wakeLocked()
	r.signalLocked()
	r.mu.Unlock()
	close(r.over)
	if grace <= killGrace && r.down.Stalled(killStalled) {
		r.closeBoth() // there is no telling it anything
		return
	}
	time.AfterFunc(grace+killClose-killGrace, r.closeBoth)
}

// closeBoth cuts both connections off, whatever is under way on them.
func (r *relay) closeBoth() {
	r.down.Kill()
	r.closeUpstream()
}

func (r *relay) closeUpstream() {
	_ = r.up.SetDeadline(time.Unix(1, 0))
	closeNow(r.up.Conn)
}

// closeGently ends both directions of the relay: the upstream's connection is
// closed; the client's has got all that there is and is no longer read, so
// that its goroutine ends, but is closed by whoever accepted it, once the
// client has had a chance to read what was written last: closed with octets
// unread it would be reset. A client that did not take what was written is
// reset at once. Only the upstream's goroutine may call it, since it writes to
// the client.
func (r *relay) closeGently() {
	if r.finished {
		return
	}
	r.finished = true
	r.mu.Lock()
	grace, aside := r.grace, r.ended.Add(killAside)
	r.mu.Unlock()
	if r.upstream.stuck || r.down.Finish(grace) != nil {
		r.closeBoth()
		return
	}
	if r.session.Context().Err() != nil {
		// Others may have to end as well: the sockets of all of them first, and
		// then the records and all else that is left to do. What the client's
		// goroutine has in hand goes no further meanwhile.
		_ = r.up.SetWriteDeadline(time.Unix(1, 0))
		time.Sleep(time.Until(aside))
	}
	r.mu.Lock()
	_ = r.down.SetReadDeadline(time.Unix(1, 0)) // and readBy moves it no more
	r.mu.Unlock()
	r.closeUpstream()
}

// readBy sets the deadline for reading from the client, unless the session is
// over.
func (r *relay) readBy(at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		return errOver
	}
	return r.down.SetReadDeadline(at)
}

// wakeLocked makes the upstream's goroutine look at local and end.
func (r *relay) wakeLocked() {
	r.woken = true
	_ = r.up.SetReadDeadline(time.Unix(1, 0))
}

// say queues Postern's own words for the client; they go out where a response
// may begin.
func (r *relay) say(format string, args ...any) {
	r.mu.Lock()
	r.local = fmt.Appendf(r.local, format, args...)
	r.wakeLocked()
	r.mu.Unlock()
}

// signalLocked wakes the client's goroutine if it waits.
func (r *relay) signalLocked() {
	if r.waiting {
		r.waiting = false
		if r.listening {
			_ = r.down.SetReadDeadline(time.Unix(1, 0))
		}
		select {
		case r.signal <- struct{}{}:
		default:
		}
	}
}

// nothingPending: all commands were answered, and what the answers mean is known.
func nothingPending(r *relay) bool { return len(r.pending) == 0 && !r.answering }
func nothingToSay(r *relay) bool   { return len(r.local) < maxLocal }
func roomToPipeline(r *relay) bool { return len(r.pending) < maxPipelined }
func continued(r *relay) bool      { return r.granted || nothingPending(r) }

// push notes a command that is about to go upstream.
func (r *relay) push(c inFlight, e expectation) {
	r.mu.Lock()
	r.pending = append(r.pending, c)
	if e != expectNothing {
		r.expect, r.granted = e, false
	}
	r.mu.Unlock()
}

// byeFor returns the untagged BYE for an end that Postern or its admins chose.
func byeFor(e *broker.End) string {
	code := "UNAVAILABLE"
	switch e.Reason {
	case broker.EndRevoked, broker.EndLocked:
		code = "NOPERM"
	case broker.EndExpired:
		code = "EXPIRED"
	case broker.EndByAdmin:
		code = "CONTACTADMIN"
	case broker.EndBudget:
		code = "LIMIT"
	}
	text := e.Text
	if text == "" {
		text = "the session has ended"
	}
	return "* BYE [" + code + "] " + clean(text) + "\r\n"
}

// clean makes a text fit for a resp-text: one line of printable ASCII.
func clean(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			b[i] = '?'
		}
	}
	if len(b) > 400 {
		b = b[:400]
	}
	return string(b)
}
