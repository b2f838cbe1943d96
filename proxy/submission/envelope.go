// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Mail implements smtp.Session. go-smtp's own reading of the command is not
// used: it loses quoting. Where the upstream takes commands together (RFC
// 2920), it is told with the first recipient: half of an envelope's turns are
// saved, and its refusal of MAIL is the answer to RCPT.
func (s *session) Mail(string, *smtp.MailOptions) error {
	if s.live == nil { // go-smtp asks nobody for AUTH
		return replyAuthFirst.smtpError()
	}
	s.bound()
	mail := s.handling.mail
	if refused := s.mayMail(&mail); refused != nil {
		return asSMTP(s.refuse(refused, mail.from.String()))
	}
	up, err := s.dial(s.ctx)
	if err != nil {
		return s.unopened(err)
	}
	if refused := s.mayOffer(up, &mail); refused != nil {
		return asSMTP(s.refuse(refused, mail.from.String()))
	}
	tx := &transaction{mail: mail}
	if !up.pipelining {
		r, err := s.openTransaction(tx, nil)
		if err != nil {
			return s.unopened(err)
		}
		if !r.positive() {
			return asSMTP(r)
		}
	}
	s.tx = tx
	return nil
}

// unopened answers a command that could not open a transaction upstream.
func (s *session) unopened(err error) error {
	s.log.Warn("MAIL failed upstream", zap.Error(err))
	return asSMTP(replyTo(err, stageMail))
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

// openTransaction says MAIL upstream, and RCPT with it unless rcpt is nil. A
// connection that lay idle may have been closed: the two change nothing, so
// they are tried once more on a new one.
func (s *session) openTransaction(tx *transaction, rcpt *rcptCommand) (*reply, error) {
	for again := true; ; again = false {
		up, err := s.dial(s.ctx)
		if err != nil {
			return nil, err
		}
		refused := s.mayOffer(up, &tx.mail)
		if refused == nil && rcpt != nil && rcpt.dsn() && !up.dsn {
			refused = replyNoDSN
		}
		if refused != nil {
			return s.refuse(refused, tx.mail.from.String()), nil
		}
		replies, err := up.mail(&tx.mail, rcpt)
		switch {
		case err != nil && !again:
			return nil, broker.Errorf(broker.Unavailable, "%s", replyUpstream.text).WithCause(err)
		case err != nil || up.broken && again:
			continue
		}
		tx.open = replies[0].positive()
		if !tx.open {
			return replies[0].relay(), nil
		}
		return replies[len(replies)-1].relay(), nil
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
	if up == nil || up.broken && s.tx.open {
		return replyUpstream.smtpError()
	}
	switch {
	case !s.live.Decision().MaySendTo(rcpt.to.String()):
		return asSMTP(s.refuse(replyTermsTo, rcpt.to.String()))
	case s.tooMany(len(s.tx.rcpts) + 1):
		return asSMTP(s.refuse(replyTermsMany, rcpt.to.String()))
	case len(s.tx.rcpts) >= s.gateway.limits.Recipients:
		return asSMTP(s.refuse(replyRecipients, rcpt.to.String()))
	case rcpt.to.utf8 && !s.tx.mail.smtputf8:
		return asSMTP(s.refuse(replyNoUTF8, rcpt.to.String()))
	case rcpt.dsn() && !up.dsn:
		return asSMTP(s.refuse(replyNoDSN, rcpt.to.String()))
	}
	if refused := s.mayReplyTo(rcpt.to); refused != nil {
		return asSMTP(s.refuse(refused, rcpt.to.String()))
	}
	r, err := s.sayRcpt(up, &rcpt)
	if err != nil {
		return s.unopened(err)
	}
	if !r.positive() {
		return asSMTP(r)
	}
	s.tx.rcpts = append(s.tx.rcpts, rcpt.to)
	return nil
}

// tooMany holds a number of recipients against the decision. What an hour does
// not hold no later hour will.
func (s *session) tooMany(n int) bool {
	sending := &s.live.Decision().Sending
	return sending.MaxRecipients > 0 && n > sending.MaxRecipients ||
		sending.RecipientsPerHour > 0 && n > sending.RecipientsPerHour
}

// sayRcpt says RCPT upstream, and MAIL first where that was put off.
func (s *session) sayRcpt(up *upstream, rcpt *rcptCommand) (*reply, error) {
	if !s.tx.open {
		return s.openTransaction(s.tx, rcpt)
	}
	r, err := up.rcpt(rcpt)
	if err != nil {
		s.log.Warn("RCPT failed upstream", zap.Error(err))
		return replyUpstream, nil
	}
	return r.relay(), nil
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

// queue records an event that nothing waits for yet: bound and settle do.
func (s *session) queue(t broker.EventType, data any) {
	s.receipts = append(s.receipts, s.live.Submit(t, data))
}
