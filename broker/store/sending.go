// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
)

var _ broker.SendingCounts = (*Store)(nil)

// ReserveSending counts a message before it is sent, unless it is one too many:
// see broker.SendingCounts. The transaction is alone, so that no other node
// counts at the same time. What lies in the future, since a clock was set back,
// counts as well.
func (s *Store) ReserveSending(ctx context.Context, r *broker.SendingReservation) error {
	x := *r
	for name, id := range map[string]broker.ID{"assignment_id": x.AssignmentID, "intent": x.Intent} {
		if _, err := broker.ParseID(string(id)); err != nil {
			return broker.InvalidField(name, "not an id")
		}
	}
	if x.Recipients < 1 {
		return broker.InvalidField("recipients", "a message has at least one")
	}
	return s.write(ctx, func(t *tx) error {
		since := t.now.Add(-broker.SendingPeriod).UnixMicro()
		if _, err := t.exec(`DELETE FROM sendings WHERE assignment_id = $1 AND reserved_at <= $2`, string(x.AssignmentID), since); err != nil {
			return err
		}
		rows, err := t.query(`SELECT COUNT(*), CAST(COALESCE(SUM(recipients), 0) AS BIGINT) FROM sendings WHERE assignment_id = $1`,
			string(x.AssignmentID))
		if err != nil {
			return err
		}
		var messages, recipients int
		if err := scanOne(rows, &messages, &recipients); err != nil {
			return err
		}
		switch {
		case x.MaxMessages > 0 && messages+1 > x.MaxMessages:
			return overLimit(broker.ReasonMessagesPerHour)
		case x.MaxRecipients > 0 && recipients+x.Recipients > x.MaxRecipients:
			return overLimit(broker.ReasonRecipientsPerHour)
		}
		_, err = t.exec(`INSERT INTO sendings (intent, assignment_id, reserved_at, recipients) VALUES ($1, $2, $3, $4)`,
			string(x.Intent), string(x.AssignmentID), t.now.UnixMicro(), x.Recipients)
		return err
	})
}

func overLimit(reason string) *broker.Error {
	err := broker.Errorf(broker.Limit, "the limit for this hour is reached")
	err.Reason = reason
	return err
}

// ReleaseSending takes back a reservation.
func (s *Store) ReleaseSending(ctx context.Context, intent broker.ID) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM sendings WHERE intent = $1`, string(intent))
		return err
	})
}
