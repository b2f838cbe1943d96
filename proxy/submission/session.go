// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// session is one client connection: go-smtp's Backend and Session, and the
// judge of every command before go-smtp sees it. One goroutine uses it, but
// for end.
type session struct {
	gateway *Gateway
	wire    *wire
	log     *zap.Logger
	ctx     context.Context // cancelled by end
	cancel  context.CancelFunc

	greeted  bool
	tx       *transaction
	handling *command // what go-smtp is handling

	live         broker.LiveSession // nil: not authenticated
	stopWatching func() bool
	own          map[string]bool // own addresses, by Address.Key
	content      *contentRules   // nil: not compiled, or none
	known        map[string]bool // correspondents, by Address.Key; for reply_only
	up           atomic.Pointer[upstream]
	killer       atomic.Pointer[time.Timer]

	// external says that EXTERNAL is offered: see broker.Gate.
	external bool

	authFailures, refusals int
	// receipts are of events that nobody waited for yet.
	receipts []*broker.Receipt
	// answered is a submission whose answer the client may not have got.
	answered *submission
}

// transaction is one message's envelope. The upstream has accepted every
// recipient, and the sender once it is open.
type transaction struct {
	mail  mailCommand
	open  bool
	rcpts []Address
}

var (
	_ smtp.Backend     = (*session)(nil)
	_ smtp.AuthSession = (*session)(nil)
)

func newSession(ctx context.Context, g *Gateway, c *proxy.Conn) *session {
	s := &session{
		gateway: g,
		wire:    newWire(c, &g.limits, g.buffers, g.log),
		log:     g.log.With(zap.Stringer("remote_addr", c.RemoteAddrPort())),
	}
	s.wire.session = s
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// command judges one line of the client's: it returns what go-smtp is to
// read, or what the client is answered, or neither when that was done.
func (s *session) command(line string) (forward string, answer *reply) {
	c, refused := parseCommand(line)
	if refused != nil {
		return "", s.refuse(refused, "")
	}
	switch c.verb {
	case verbEHLO, verbHELO:
		s.greeted = true
		s.external = s.wire.conn.IsTLS() && s.live == nil && s.gateway.gate.OffersExternal(s.ctx, s.wire.conn.Certificate())
		s.wire.hello = c.verb == verbEHLO
		return string(c.verb) + " " + c.arg, nil
	case verbNOOP, verbRSET:
		return string(c.verb), nil
	case verbQUIT:
		s.wire.reason = broker.End{Reason: broker.EndLogout}
		return string(c.verb), nil
	case verbSTARTTLS:
		return "", s.startTLS()
	case verbBDAT:
		return "", replyBDAT
	case verbVRFY:
		return "", replyVRFY
	case verbEXPN, verbHELP:
		return "", replyNotImplemented
	}
	if !s.greeted {
		return "", replyHelloFirst
	}
	return s.transactionCommand(c)
}

// transactionCommand judges what needs EHLO first, by RFC 5321 §4.1.4's
// order. go-smtp would take a second MAIL in a transaction.
func (s *session) transactionCommand(c *command) (forward string, answer *reply) {
	s.handling = c
	switch {
	case c.verb == verbAUTH:
		switch {
		case !s.wire.conn.IsTLS():
			return "", replyTLSFirst
		case s.live != nil:
			return "", replyAuthTwice
		case s.authFailures >= maxAuthFailures:
			return "", replyTooManyLogins
		}
		return "AUTH " + c.arg, nil
	case c.verb == verbDATA && (s.live == nil || s.tx == nil || len(s.tx.rcpts) == 0):
		return "", s.refuseData()
	case s.live == nil:
		return "", replyAuthFirst
	case c.verb == verbMAIL:
		if s.tx != nil {
			return "", replyMailTwice
		}
		return fmt.Sprintf("MAIL FROM:<%s>", c.mail.from), nil
	case s.tx == nil:
		return "", replyMailFirst
	case c.verb == verbRCPT:
		return fmt.Sprintf("RCPT TO:<%s>", c.rcpt.to), nil
	}
	return "DATA", nil
}

// refuseData answers DATA that is out of order. What came with it may be a
// message whose sender did not wait for 354 (RFC 2920 §3.1 forbids that): it
// must not be read as commands.
func (s *session) refuseData() *reply {
	answer := replyRcptFirst
	switch {
	case s.live == nil:
		answer = replyAuthFirst
	case s.tx == nil:
		answer = replyMailFirst
	}
	if len(s.wire.buffered()) > 0 {
		return answer.closing()
	}
	return answer
}

// startTLS upgrades (RFC 3207). What the client sent before must not be taken
// for something it said under TLS, and what it said is forgotten.
func (s *session) startTLS() *reply {
	switch {
	case s.wire.conn.IsTLS():
		return replyTLSActive
	case len(s.wire.buffered()) > 0:
		return replyPipelinedTLS
	}
	s.wire.reply(replyTLSGo)
	err := s.wire.flush()
	if err == nil {
		s.wire.setReadDeadline(time.Now().Add(s.gateway.limits.CommandTimeout))
		s.wire.setWriteDeadline(time.Now().Add(s.gateway.limits.CommandTimeout))
		err = s.wire.conn.StartTLS(s.ctx)
	}
	if err != nil {
		s.log.Info("STARTTLS failed", zap.Error(err))
		s.wire.over = true
		return nil
	}
	s.greeted, s.tx = false, nil
	return nil
}

// appendHello answers EHLO: what both sides can do, by a list of ours, so
// that what go-smtp offers of its own (CHUNKING) is not offered.
func (s *session) appendHello(out []byte) []byte {
	g, up := s.gateway, s.up.Load()
	keywords := []string{"PIPELINING", "ENHANCEDSTATUSCODES"}
	add := func(keyword string, offered bool) {
		if offered {
			keywords = append(keywords, keyword)
		}
	}
	add("8BITMIME", up == nil || up.eightBit)
	add("DSN", up == nil && g.offers["DSN"] || up != nil && up.dsn)
	add("SMTPUTF8", up == nil && g.offers["SMTPUTF8"] || up != nil && up.smtputf8)
	add("STARTTLS", !s.wire.conn.IsTLS())
	if names := s.AuthMechanisms(); len(names) > 0 {
		auth := "AUTH"
		for _, name := range names {
			auth += " " + name
		}
		keywords = append(keywords, auth)
	}
	out = fmt.Appendf(out, "250-%s\r\n", g.hostname)
	for _, keyword := range keywords {
		out = fmt.Appendf(out, "250-%s\r\n", keyword)
	}
	return fmt.Appendf(out, "250 SIZE %d\r\n", s.maxOctets())
}

// maxOctets is the size of a message that both sides take, and the decision
// allows.
func (s *session) maxOctets() int64 {
	n := s.gateway.limits.MessageOctets
	if up := s.up.Load(); up != nil && up.maxSize > 0 {
		n = min(n, up.maxSize)
	}
	if s.live != nil {
		if most := s.live.Decision().Sending.MaxOctets; most > 0 {
			n = min(n, most)
		}
	}
	return n
}

// NewSession implements smtp.Backend: a connection has one session.
func (s *session) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }

// Reset implements smtp.Session: the transaction is over.
func (s *session) Reset() { s.tx = nil }

// Logout implements smtp.Session. What there is to do waits for finish, so
// that the client does not wait for the upstream's goodbye.
func (s *session) Logout() error { return nil }

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	switch {
	case !s.wire.conn.IsTLS() || s.live != nil:
		return nil
	case s.external:
		return withExternal
	}
	return mechanisms
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(name string) (sasl.Server, error) {
	if !s.wire.conn.IsTLS() {
		return nil, replyTLSFirst.smtpError()
	}
	m := newMechanism(name, s.authenticate, func() { s.wire.authLine = true })
	if m == nil || !slices.Contains(s.AuthMechanisms(), name) {
		return nil, replyMechanism.smtpError()
	}
	return m, nil
}

// authenticate lets the client in, and logs in upstream at once: so that an
// outage is a 454 to AUTH, which clients retry, and not to a message.
func (s *session) authenticate(id *identities) *reply {
	ctx, cancel := context.WithTimeout(s.ctx, s.gateway.limits.LoginTimeout)
	defer cancel()
	live, err := s.gateway.gate.Open(ctx, id.loginOf(s.wire))
	if err != nil {
		return s.refuseLogin(err)
	}
	s.enter(live)
	if s.maySend() {
		if _, err := s.dial(ctx); err != nil {
			s.leave(&broker.End{Reason: broker.EndUpstreamFailed, Text: broker.PublicText(err)})
			return s.refuseLogin(err)
		}
	}
	s.wire.conn.Authenticated()
	s.gateway.metrics.logins.WithLabelValues("ok").Inc()
	return nil
}

func (s *session) refuseLogin(err error) *reply {
	r := replyTo(err, stageAuth)
	if r.code == 535 {
		s.authFailures++
	}
	s.gateway.metrics.logins.WithLabelValues(string(broker.CodeOf(err))).Inc()
	s.log.Info("login refused", zap.Error(err))
	return r
}

// enter takes a live session on, and watches for its end.
func (s *session) enter(live broker.LiveSession) {
	s.live = live
	record := live.Record()
	s.log = s.log.With(
		zap.String("session", string(record.ID)), zap.String("agent", string(record.AgentID)),
		zap.String("workstation", string(record.WorkstationID)), zap.String("mailbox", string(record.MailboxID)),
	)
	s.own, s.content, s.known = make(map[string]bool), nil, nil
	for _, a := range live.Decision().Addresses {
		if own, err := ParseAddress(a, true); err == nil {
			s.own[own.Key()] = true
		}
	}
	s.stopWatching = context.AfterFunc(live.Context(), func() {
		s.end(causeOf(context.Cause(live.Context())))
	})
}

// leave ends the live session; the connection goes on without one.
func (s *session) leave(e *broker.End) {
	if s.live == nil {
		return
	}
	s.stopWatching()
	s.live.End(e, &broker.SessionEnd{
		Reason: e.Reason, Detail: e.Detail,
		OctetsDown: s.wire.octetsDown, OctetsUp: s.wire.octetsUp,
		OpenedAt: s.live.Record().OpenedAt,
	})
	s.live = nil
}

// setIdle tells the budget whether the client could do without its connection:
// it is about to say something, and has no message under way.
func (s *session) setIdle(idle bool) {
	if s.live != nil && s.tx == nil {
		s.live.SetIdle(idle)
	}
}

func (s *session) maySend() bool { return s.live.Decision().Actions.Has(policy.Send) }

func (s *session) isOwn(a Address) bool { return s.own[a.Key()] }

// dial returns the upstream connection, a new one if need be.
func (s *session) dial(ctx context.Context) (*upstream, error) {
	if up := s.up.Load(); up != nil {
		if !up.broken {
			return up, nil
		}
		up.close()
		s.up.Store(nil)
	}
	c, err := s.live.DialSubmission(ctx)
	if err != nil {
		return nil, err
	}
	up := newUpstream(c, &s.gateway.limits, s.gateway.buffers)
	s.up.Store(up)
	if s.wire.ending.Load() != nil { // end may have looked before it was there
		up.close()
		return nil, broker.Errorf(broker.Unavailable, "the session is ending").WithCause(errEnding)
	}
	return up, nil
}

// end ends the connection from outside: see wire.end. Both sockets are closed
// within endWithin whatever either peer does.
func (s *session) end(e *broker.End) {
	if !s.wire.end(e) {
		return
	}
	s.cancel()
	if up := s.up.Load(); up != nil {
		at := past
		if up.sent.Load() {
			at = time.Now().Add(lastReply)
		}
		up.abort(at)
	}
	s.killer.Store(time.AfterFunc(endWithin, func() {
		s.wire.conn.Kill()
		if up := s.up.Load(); up != nil {
			up.kill()
		}
	}))
}

// finish runs when the connection is over.
func (s *session) finish() {
	s.cancel()
	if t := s.killer.Load(); t != nil {
		t.Stop()
	}
	if up := s.up.Load(); up != nil {
		up.quit()
	}
	s.settle()
	s.leave(&s.wire.reason)
}

// maxQueued is how many events of one session may be queued and not durable.
const maxQueued = 8

// bound lets no session run far ahead of its record. It does not wait for the
// last message's send.result: the log keeps its order, so that is durable
// before the next send.intent, which is waited for.
func (s *session) bound() {
	if len(s.receipts) > maxQueued {
		s.settle()
	}
}

// settle waits until the events that were only queued are durable.
func (s *session) settle() {
	if len(s.receipts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.gateway.limits.RecordTimeout)
	defer cancel()
	for _, receipt := range s.receipts {
		if err := receipt.Wait(ctx); err != nil {
			s.log.Error("an event is not durable", zap.Error(err))
		}
	}
	s.receipts = s.receipts[:0]
}

// confirm is called when the client sent something after an answer went out.
func (s *session) confirm() {
	if s.answered != nil {
		s.gateway.outcomes.confirm(s.answered)
		s.answered = nil
	}
}
