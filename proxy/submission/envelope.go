// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Mail implements smtp.Session. go-smtp's own reading of the command is not
// used: it loses quoting.
func (s *session) Mail(string, *smtp.MailOptions) error {
	if s.live == nil { // go-smtp asks nobody for AUTH
		return replyAuthFirst.smtpError()
	}
	s.settle()
	mail := s.handling.mail
	if refused := s.mayMail(&mail); refused != nil {
		return asSMTP(s.refuse(refused, mail.from.String()))
	}
	r, err := s.openTransaction(&mail)
	switch {
	case err != nil:
		s.log.Warn("MAIL failed upstream", zap.Error(err))
		return asSMTP(replyTo(err, stageMail))
	case r.rule != "":
		return asSMTP(s.refuse(r, mail.from.String()))
	case !r.positive():
		return asSMTP(r)
	}
	s.tx = &transaction{mail: mail}
	return nil
}

// mayMail holds MAIL against the decision.
func (s *session) mayMail(mail *mailCommand) *reply {
	switch {
	case !s.maySend():
		return replySendAction
	case mail.from.IsZero():
		return replyNullPath
	case !s.isOwn(mail.from):
		return replyOwnAddress
	}
	return nil
}

// openTransaction says MAIL upstream. A connection that lay idle may have been
// closed: MAIL changes nothing, so it is tried once more on a new one.
func (s *session) openTransaction(mail *mailCommand) (*reply, error) {
	for again := true; ; again = false {
		up, err := s.dial(s.ctx)
		if err != nil {
			return nil, err
		}
		if refused := s.mayOffer(up, mail); refused != nil {
			return refused, nil
		}
		r, err := up.mail(mail)
		switch {
		case err == nil && !up.broken:
			return r.relay(), nil
		case !again && err == nil:
			return r.relay(), nil
		case !again:
			return nil, broker.Errorf(broker.Unavailable, "%s", replyUpstream.text).WithCause(err)
		}
	}
}

// mayOffer holds MAIL against what the upstream can do.
func (s *session) mayOffer(up *upstream, mail *mailCommand) *reply {
	switch {
	case mail.size > s.maxOctets():
		return replySize
	case mail.body == "8BITMIME" && !up.eightBit:
		return replyNoConvert
	case mail.smtputf8 && !up.smtputf8:
		return replyNoSMTPUTF8
	case mail.dsn() && !up.dsn:
		return replyNoDSN
	}
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	if s.live == nil || s.tx == nil {
		return replyMailFirst.smtpError()
	}
	rcpt, up := s.handling.rcpt, s.up.Load()
	if up == nil || up.broken {
		return replyUpstream.smtpError()
	}
	switch {
	case len(s.tx.rcpts) >= s.gateway.limits.Recipients:
		return asSMTP(s.refuse(replyRecipients, rcpt.to.String()))
	case rcpt.to.utf8 && !s.tx.mail.smtputf8:
		return asSMTP(s.refuse(replyNoUTF8, rcpt.to.String()))
	case rcpt.dsn() && !up.dsn:
		return asSMTP(s.refuse(replyNoDSN, rcpt.to.String()))
	}
	r, err := up.rcpt(&rcpt)
	if err != nil {
		s.log.Warn("RCPT failed upstream", zap.Error(err))
		return replyUpstream.smtpError()
	}
	if !r.positive() {
		return asSMTP(r.relay())
	}
	s.tx.rcpts = append(s.tx.rcpts, rcpt.to)
	return nil
}

func (r *upstreamReply) positive() bool { return r.code/100 == 2 }

// maxRefusals is how many rules a connection may break: each is an event.
const maxRefusals = 100

// refuse records that a rule refused something, and returns the reply as it
// is. A reply without a rule is none of the record's business.
func (s *session) refuse(r *reply, address string) *reply {
	if r.rule == "" {
		return r
	}
	s.gateway.metrics.refused.WithLabelValues(r.rule).Inc()
	if s.live == nil {
		return r
	}
	if address == "" {
		address = r.address
	}
	s.log.Info("refused", zap.String("rule", r.rule), zap.String("text", r.text))
	s.queue(broker.EventSendRefused, &broker.SendRefused{Rule: r.rule, Address: address, Text: r.text})
	if s.refusals++; s.refusals >= maxRefusals {
		s.wire.bad = maxBadCommands // the next command is answered with 421
	}
	return r
}

// queue records an event that nothing waits for yet: settle does.
func (s *session) queue(t broker.EventType, data any) {
	s.receipts = append(s.receipts, s.live.Submit(t, data))
}
