// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/proxy"
)

// message is one message on its way.
type message struct {
	session *session
	tx      *transaction
	data    dataReader
	up      *upstream
	hash    hash.Hash
	header  *header
	front   *[]byte // pooled
	counted bool    // against messages and recipients per hour
	// inspector is nil where no rule asks for it.
	inspector *inspector
	flags     []*broker.Receipt // of send.flagged
}

// Data implements smtp.Session. The message is taken off the wire directly;
// go-smtp's reader, which would take bare CR and LF and go on with the rest of
// a broken message as commands, is fed an end of data, or an end of file.
func (s *session) Data(io.Reader) error {
	if s.live == nil || s.tx == nil || len(s.tx.rcpts) == 0 {
		return replyRcptFirst.smtpError()
	}
	m := &message{
		session: s, tx: s.tx, hash: sha256.New(),
		data:  dataReader{wire: s.wire, until: time.Now().Add(s.gateway.limits.MessageTimeout)},
		front: s.gateway.buffers.Get().(*[]byte),
	}
	defer s.gateway.buffers.Put(m.front)
	r, err := m.receive()
	m.abandon()
	if err == nil {
		err = m.data.drain(2 * s.gateway.limits.MessageOctets)
	}
	switch {
	case err == nil:
		s.wire.feed = []byte(".\r\n")
		return r.smtpError()
	case errors.Is(err, errLineBreak):
		s.wire.reply(s.refuse(replyLineBreak, ""))
	case errors.Is(err, errTooLarge):
		s.wire.reply(replySize.closing())
	default:
		s.wire.readFailed(err)
	}
	return replyInternal.smtpError() // the wire is over: nobody reads it
}

var errTooLarge = errors.New("submission: more octets than anybody asked for")

// drain reads to the end of data, so that the client is in step and reads the
// answer.
func (d *dataReader) drain(limit int64) error {
	for {
		_, _, err := d.next()
		switch {
		case errors.Is(err, io.EOF) && d.ended:
			return nil
		case err != nil:
			return err
		case d.octets > limit:
			return errTooLarge
		}
	}
}

// abandon closes the upstream connection if a message hangs in it: without
// the final dot, what it has of it is dropped.
func (m *message) abandon() {
	if m.inspector != nil {
		m.inspector.abandon()
	}
	if m.up != nil && m.up.inData {
		m.up.close()
	}
}

// receive passes the message on, and answers it. An error says that the
// client's connection broke, or broke the rules: nothing was sent then.
func (m *message) receive() (*reply, error) {
	head, front, err := m.data.readHeader(*m.front)
	switch {
	case errors.Is(err, io.EOF):
		return m.refuse(malformedHeader("no empty line ends it")), nil
	case errors.Is(err, errHeaderTooLong):
		return m.refuse(malformedHeader("it is longer than %d octets", maxHeader)), nil
	case err != nil:
		return nil, err
	}
	h, refused := judgeHeader(head, m.session.isOwn, m.tx.mail.smtputf8)
	if refused != nil {
		return m.refuse(refused), nil
	}
	m.header = h
	if m.session.live.Decision().Sending.ReplyOnly {
		if _, err := proxy.PlainMessageID(head); err != nil {
			return m.refuse(replyTermsMessageID), nil
		}
	}
	if r := m.inspect(); r != nil {
		return r, nil
	}
	if r := m.open(); r != nil {
		return r, nil
	}
	if r, err := m.stream(front); r != nil || err != nil {
		return r, err
	}
	return m.submit(), nil
}

func (m *message) refuse(r *reply) *reply { return m.session.refuse(r, "") }

// open says DATA upstream. It comes after the header was judged, so that a
// message that is refused for it costs no upstream connection.
func (m *message) open() *reply {
	m.up = m.session.up.Load()
	if m.up == nil || m.up.broken {
		return replyUpstream
	}
	r, err := m.up.data()
	if err != nil {
		m.session.log.Warn("DATA failed upstream", zap.Error(err))
		return replyUpstream
	}
	if r.code != 354 {
		return r.relay()
	}
	return nil
}

// stream passes the message on to the last octet before the final dot; the
// last of them are with the upstream's finish.
func (m *message) stream(front []byte) (*reply, error) {
	run, startsLine := front, false
	for {
		if m.data.octets > m.session.maxOctets() {
			return m.refuse(replySize), nil
		}
		m.hash.Write(run) // never fails
		if m.inspector != nil {
			if err := m.inspector.write(run); err != nil {
				return m.uninspected(err), nil
			}
		}
		if err := m.up.append(run, startsLine); err != nil {
			return m.early(err), nil
		}
		if m.up.final != nil && m.up.early() != nil {
			return m.early(nil), nil
		}
		var err error
		run, startsLine, err = m.data.next()
		switch {
		case errors.Is(err, io.EOF) && m.data.ended:
			if m.inspector != nil {
				if err := m.inspector.end(); err != nil {
					return m.uninspected(err), nil
				}
			}
			return nil, nil
		case err != nil:
			return nil, err
		}
	}
}

// early answers a message that the upstream did not wait for the end of.
func (m *message) early(err error) *reply {
	f := m.up.early()
	if f != nil && f.reply != nil && f.reply.code >= 400 {
		return f.reply.relay()
	}
	m.session.log.Warn("upstream broke off before the final dot", zap.Error(err))
	return replyUpstream
}

// submit is called with the whole message taken from the client: upstream has
// it but for its end, of a small one nothing.
func (m *message) submit() *reply {
	s := m.session
	sum := m.hash.Sum(nil)
	sub, before := s.gateway.outcomes.begin(m.key(sum), s.live.Mailbox().ID, m.header)
	if before != nil {
		if r := m.again(sub, before); r != nil {
			return r
		}
	}
	outcome := outcomeNotSent
	defer func() {
		s.gateway.outcomes.settle(sub, outcome)
		if m.counted && (outcome == outcomeNotSent || outcome == outcomeRefused) {
			m.release(sub)
		}
	}()
	if r := m.reserve(sub); r != nil {
		return r
	}
	m.flag(sub)
	unrecorded, ended := m.recordIntent(sub, sum)
	if unrecorded != nil {
		s.log.Error("send.intent is not durable; nothing was sent", zap.Error(unrecorded))
		return replyRecord
	}
	if ended != nil {
		s.log.Info("the decision ended before the final dot", zap.Error(ended))
		m.result(sub, outcomeNotSent, "", false)
		return replyTo(ended, stageMail)
	}
	if err := m.flagged(); err != nil {
		s.log.Error("send.flagged is not durable; nothing was sent", zap.Error(err))
		m.result(sub, outcomeNotSent, "", false)
		return replyRecord
	}
	if m.up.early() != nil || s.wire.ending.Load() != nil {
		r := m.early(errEnding)
		m.result(sub, outcomeNotSent, "", false)
		return r
	}
	final, err := m.up.finish()
	if errors.Is(err, errNotWhole) {
		r := m.early(err)
		m.result(sub, outcomeNotSent, "", false)
		return r
	}
	if err != nil {
		s.log.Warn("upstream broke off after the final dot", zap.Error(err))
		outcome = outcomeUnknown
		m.result(sub, outcomeUnknown, "", false)
		r, found := m.lookUp(sub)
		if found {
			outcome = outcomeAccepted
		}
		return r
	}
	if !final.positive() {
		outcome = outcomeRefused
		m.result(sub, outcomeRefused, final.line(), false)
		return final.relay()
	}
	outcome = outcomeAccepted
	s.answered = sub
	m.result(sub, outcomeAccepted, final.line(), false)
	return final.relay()
}

// recordIntent makes send.intent durable, and then asks whether the session may
// still send. The event stands before the dot: no message without its record.
func (m *message) recordIntent(sub *submission, sum []byte) (unrecorded, ended error) {
	s := m.session
	ctx, cancel := context.WithTimeout(s.ctx, s.gateway.limits.RecordTimeout)
	defer cancel()
	recipients := make([]string, len(m.tx.rcpts))
	for i, to := range m.tx.rcpts {
		recipients[i] = to.String()
	}
	return s.live.AppendChecked(ctx, broker.EventSendIntent, &broker.SendIntent{
		Intent:     sub.intent,
		MailFrom:   m.tx.mail.from.String(),
		HeaderFrom: m.header.from.String(),
		Recipients: recipients,
		MessageID:  m.header.messageID,
		Octets:     m.data.octets,
		SHA256:     hex.EncodeToString(sum),
	})
}

// result records what became of a submission; settle waits for it.
func (m *message) result(sub *submission, o outcome, answer string, found bool) {
	m.session.gateway.metrics.messages.WithLabelValues(string(o)).Inc()
	m.session.queue(broker.EventSendResult, &broker.SendResult{
		Intent: sub.intent, MessageID: m.header.messageID, Outcome: string(o), Answer: answer, FoundInSent: found,
	})
}

// again answers a message that was submitted before; nil: it may be sent.
func (m *message) again(sub *submission, before *submission) *reply {
	s := m.session
	switch before.outcome {
	case outcomePending:
		return replyStillGoing
	case outcomeAccepted:
		// The client never got the answer. The message was sent once, and is
		// not sent twice.
		m.result(before, outcomeAccepted, "sent before; the client repeated it", false)
		s.answered = before
		return newReply(250, "2.0.0", "sent before, when the connection broke off; not sent again")
	}
	found, err := m.findInSent(before, false)
	if err != nil && !errors.Is(err, errNoLookUp) {
		s.log.Warn("a repeated message could not be looked up", zap.Error(err))
		s.gateway.outcomes.settle(sub, outcomeUnknown)
		return replyNotLooked
	}
	if !found {
		return nil
	}
	m.result(before, outcomeAccepted, "", true)
	s.gateway.outcomes.settle(sub, outcomeAccepted)
	s.answered = sub
	return replyFound
}

var replyFound = newReply(250, "2.0.0", "the mail server broke off, but the message was sent: it is in Sent")

// lookUp settles an unknown outcome if it can.
func (m *message) lookUp(sub *submission) (r *reply, found bool) {
	found, err := m.findInSent(sub, true)
	if err != nil {
		m.session.log.Warn("an unknown outcome could not be looked up", zap.Error(err))
	}
	if !found {
		return replyUnknown, false
	}
	m.result(sub, outcomeAccepted, "", true)
	m.session.answered = sub
	return replyFound, true
}

var errNoLookUp = errors.New("submission: there is nothing to look it up with")

// findInSent asks whether a submission is in Sent; patiently: more than once,
// since servers file it there when they get to it.
func (m *message) findInSent(sub *submission, patiently bool) (bool, error) {
	s := m.session
	if s.gateway.sent == nil || !m.header.lookable || s.gateway.outcomes.ambiguous(sub) {
		return false, errNoLookUp
	}
	timeout := s.gateway.limits.SentTimeout
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	pauses := []time.Duration{timeout / 10, timeout / 4}
	if !patiently {
		pauses = nil
	}
	for {
		found, err := s.gateway.sent.FindInSent(ctx, s.live, m.header.messageID)
		if found || err != nil || len(pauses) == 0 {
			return found, err
		}
		select {
		case <-time.After(pauses[0]):
			pauses = pauses[1:]
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
