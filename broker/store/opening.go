// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

var _ broker.OpeningCounts = (*Store)(nil)

// ReserveOpening counts what is about to be opened, unless it is too much: see
// broker.OpeningCounts. The transaction is alone, so that no other node counts
// at the same time. What lies in the future, since a clock was set back, counts
// as well.
func (s *Store) ReserveOpening(ctx context.Context, r *broker.OpeningReservation) error {
	x := *r
	if _, err := broker.ParseID(string(x.AssignmentID)); err != nil {
		return broker.InvalidField("assignment_id", "not an id")
	}
	if x.Messages < 0 || x.Octets < 0 || x.Headers < 0 {
		return broker.InvalidField("messages", "is negative")
	}
	return s.write(ctx, func(t *tx) error {
		minute := t.now.Unix() / 60
		day := minute - int64(broker.OpeningDay.Minutes())
		if _, err := t.exec(`DELETE FROM openings WHERE assignment_id = $1 AND minute <= $2`, string(x.AssignmentID), day); err != nil {
			return err
		}
		for _, period := range []struct {
			name  string
			since int64
			limit func(policy.Rate) int64
		}{
			{"hour", minute - int64(broker.OpeningHour.Minutes()), func(r policy.Rate) int64 { return r.Hour }},
			{"day", day, func(r policy.Rate) int64 { return r.Day }},
		} {
			rows, err := t.query(`SELECT CAST(COALESCE(SUM(messages), 0) AS BIGINT), CAST(COALESCE(SUM(octets), 0) AS BIGINT),
				CAST(COALESCE(SUM(headers), 0) AS BIGINT) FROM openings WHERE assignment_id = $1 AND minute > $2`, string(x.AssignmentID), period.since)
			if err != nil {
				return err
			}
			var messages, octets, headers int64
			if err := scanOne(rows, &messages, &octets, &headers); err != nil {
				return err
			}
			for _, q := range []struct {
				name          string
				counted, more int64
				rate          policy.Rate
			}{
				{"messages", messages, x.Messages, x.Quotas.Messages},
				{"octets", octets, x.Octets, x.Quotas.Octets},
				{"headers", headers, x.Headers, x.Quotas.Headers},
			} {
				if limit := period.limit(q.rate); limit > 0 && q.more > 0 && q.more > limit-q.counted {
					err := broker.Errorf(broker.Limit, "the limit of %s opened in one %s is reached", q.name, period.name)
					err.Reason = q.name + "." + period.name
					return err
				}
			}
		}
		_, err := t.exec(`INSERT INTO openings (assignment_id, minute, messages, octets, headers) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (assignment_id, minute) DO UPDATE SET messages = openings.messages + excluded.messages,
			octets = openings.octets + excluded.octets, headers = openings.headers + excluded.headers`,
			string(x.AssignmentID), minute, x.Messages, x.Octets, x.Headers)
		return err
	})
}
