// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// maxPlaces is how many messages of one Message-ID a question follows: it is
// the sender's choice, and may be that of many.
const maxPlaces = 2000

// days are the days that a table of the index has rows of, each found by one
// look into its key.
func days(table string) string {
	return `WITH RECURSIVE d (day) AS (SELECT min(day) FROM ` + table + ` UNION ALL
		SELECT (SELECT min(n.day) FROM ` + table + ` n WHERE n.day > d.day) FROM d WHERE d.day IS NOT NULL) `
}

// MessageEvents returns the events about a message.
func (s *Store) MessageEvents(ctx context.Context, q broker.MessageQuery) (all []*broker.MessageEvent, next *broker.Place, err error) {
	err = s.askMessage(ctx, q, func(x *question, messages []int64) error {
		var hits []hit
		for _, message := range messages {
			var b strings.Builder
			b.WriteString(days("message_events") + `SELECT i.time, i.log, i.seq, i.what, 0, 0, 0
				FROM d CROSS JOIN message_events i WHERE i.day = d.day AND i.message = $1`)
			args := x.narrow(&b, []any{message})
			b.WriteString(withinIndex + ` ORDER BY i.time, i.log, i.seq`)
			b.WriteString(limitTo(len(args) + 1))
			found, err := x.hits(b.String(), append(args, x.limit+1))
			if err != nil {
				return err
			}
			hits = append(hits, found...)
		}
		if err := x.tail(func(e *indexed) {
			if x.wanted(e, "") && e.isAbout(messages) {
				hits = append(hits, hit{log: e.log, seq: e.seq, time: e.time})
			}
		}); err != nil {
			return err
		}
		events, more, err := x.events(hits)
		for _, e := range events {
			all = append(all, &broker.MessageEvent{StoredEvent: e, Opened: openedAmong(e, messages)})
		}
		next = more
		return err
	})
	return all, next, err
}

// openedAmong returns the entries of an event that are about messages.
func openedAmong(e *broker.StoredEvent, messages []int64) (all []broker.OpenedMessage) {
	opened, ok := e.Data.(broker.MessageOpen)
	if !ok {
		return nil
	}
	for _, m := range opened.Messages {
		message := messageHash(e.MailboxID, opened.Folder, opened.UIDValidity, m.UID)
		if m.UID == 0 {
			message = idHash(m.MessageID)
		}
		if slices.Contains(messages, message) {
			all = append(all, m)
		}
	}
	return all
}

func (e *indexed) isAbout(messages []int64) bool {
	return slices.ContainsFunc(e.opened, func(m int64) bool { return slices.Contains(messages, m) })
}

// CountMessage counts the events about a message.
func (s *Store) CountMessage(ctx context.Context, q broker.MessageQuery, zone int) ([]broker.ActivityCount, error) {
	q.After = nil
	counts := newCounts(zone)
	err := s.askMessage(ctx, q, func(x *question, messages []int64) error {
		for _, message := range messages {
			var b strings.Builder
			b.WriteString(days("message_events") + `SELECT (i.time + $2) / 86400000000, i.what, '', count(*), count(*), 0, min(i.time), max(i.time)
				FROM d CROSS JOIN message_events i JOIN logs l ON l.number = i.log AND i.seq < l.indexed
				WHERE i.day = d.day AND i.message = $1`)
			args := x.narrow(&b, []any{message, counts.shift})
			b.WriteString(` GROUP BY 1, 2`)
			if err := counts.read(x, b.String(), args); err != nil {
				return err
			}
		}
		return x.tail(func(e *indexed) {
			for _, m := range e.opened {
				if slices.Contains(messages, m) && x.wanted(e, "") {
					one := *e
					one.messages, one.octets = 1, 0
					counts.add(&one, "")
				}
			}
		})
	})
	return counts.sorted(), err
}

// askMessage begins a question about a message, and finds out as what the index
// knows it.
func (s *Store) askMessage(ctx context.Context, q broker.MessageQuery, do func(x *question, messages []int64) error) error {
	if (q.MessageID == "") == (q.UID == 0) {
		return broker.InvalidField("message", "give a Message-ID, or mailbox, folder, UIDVALIDITY and UID")
	}
	return s.ask(ctx, q.FirmID, q.Since, q.Until, q.Activities, q.After, q.Limit, func(x *question) error {
		if q.MessageID == "" {
			return do(x, []int64{messageHash(q.MailboxID, q.Folder, q.UIDValidity, q.UID)})
		}
		messages, err := x.places(idHash(q.MessageID))
		if err != nil {
			return err
		}
		return do(x, messages)
	})
}

// places returns as what the index knows the messages of a Message-ID: by that
// itself, and by each place that one was seen in.
func (x *question) places(id int64) (all []int64, err error) {
	query, args := days("message_ids")+`SELECT DISTINCT i.message FROM d CROSS JOIN message_ids i WHERE i.day = d.day AND i.id = $1`, []any{id}
	if x.log != 0 {
		query, args = query+` AND i.log = $2`, append(args, x.log)
	}
	args = append(args, maxPlaces+1)
	rows, err := x.q(query+limitTo(len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var message int64
		if err := rows.Scan(&message); err != nil {
			return nil, dbError(err)
		}
		all = append(all, message)
	}
	if err := rows.Err(); err != nil {
		return nil, dbError(err)
	}
	if err := x.tail(func(e *indexed) {
		for _, n := range e.named {
			if n.id == id && !slices.Contains(all, n.message) {
				all = append(all, n.message)
			}
		}
	}); err != nil {
		return nil, err
	}
	if len(all) > maxPlaces {
		return nil, broker.InvalidField("message_id", "more than %d messages have it: ask for one by its mailbox, folder, UIDVALIDITY and UID", maxPlaces)
	}
	return append(all, id), nil
}
