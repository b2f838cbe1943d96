// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// reserve counts a message that is whole against what may be sent within an
// hour, before anybody can have it; nil: it may go on. What is counted stays
// counted unless released, so that a crash never allows more.
func (m *message) reserve(sub *submission) *reply {
	s := m.session
	limits := &s.live.Decision().Sending
	if limits.MessagesPerHour == 0 && limits.RecipientsPerHour == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.gateway.limits.RecordTimeout)
	defer cancel()
	m.counted = true
	err := s.gateway.counts.ReserveSending(ctx, &broker.SendingReservation{
		AssignmentID: s.live.Record().AssignmentID, Intent: sub.intent, Recipients: len(m.tx.rcpts),
		MaxMessages: limits.MessagesPerHour, MaxRecipients: limits.RecipientsPerHour,
	})
	switch refused := (*broker.Error)(nil); {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Code == broker.Limit:
		m.counted = false
		if refused.Reason == broker.ReasonRecipientsPerHour {
			return m.refuse(replyTermsRecipientsHour)
		}
		return m.refuse(replyTermsMessagesHour)
	}
	s.log.Error("a message could not be counted; nothing was sent", zap.Error(err))
	return replyRecord
}

// release takes the count of a message back that was not sent.
func (m *message) release(sub *submission) {
	s := m.session
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.gateway.limits.RecordTimeout)
	defer cancel()
	if err := s.gateway.counts.ReleaseSending(ctx, sub.intent); err != nil {
		s.log.Warn("a message that was not sent stays counted for an hour", zap.Error(err))
	}
}
