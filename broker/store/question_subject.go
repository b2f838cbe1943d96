// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// SubjectEvents returns the events about mailboxes, agents and workstations.
func (s *Store) SubjectEvents(ctx context.Context, q broker.SubjectQuery) (all []*broker.StoredEvent, next *broker.Place, err error) {
	err = s.askOf(ctx, q, func(x *question, subjects []int64) error {
		hits, err := x.subjectHits(q.Subjects, subjects, "")
		if err != nil {
			return err
		}
		all, next, err = x.events(hits)
		return err
	})
	return all, next, err
}

// askOf begins a question about subjects.
func (s *Store) askOf(ctx context.Context, q broker.SubjectQuery, do func(x *question, subjects []int64) error) error {
	for _, id := range q.Subjects {
		if _, err := broker.ParseID(string(id)); err != nil {
			return broker.InvalidField("subject", "not an id")
		}
	}
	return s.ask(ctx, q.FirmID, q.Since, q.Until, q.Activities, q.After, q.Limit, func(x *question) error {
		if err := x.setOther(q.Other); err != nil {
			return err
		}
		var subjects []int64
		for _, id := range q.Subjects {
			n, err := x.number(id)
			if err != nil {
				return err
			}
			if n != 0 {
				subjects = append(subjects, n)
			}
		}
		return do(x, subjects)
	})
}

// subjectHits returns the first hits of each subject, among those for which
// another condition of the index holds as well, and all hits that the index does
// not hold.
func (x *question) subjectHits(ids []broker.ID, subjects []int64, condition string) (hits []hit, err error) {
	// PostgreSQL takes what is narrowed in several ways to be less than the limit, and
	// would read and sort all of a subject for the first page.
	if err := x.sorting(false); err != nil {
		return nil, err
	}
	for _, subject := range subjects {
		var b strings.Builder
		b.WriteString(`SELECT i.time, i.log, i.seq, i.what, i.other, i.messages, i.octets FROM subject_events i WHERE i.subject = $1`)
		args := x.narrow(&b, []any{subject})
		b.WriteString(condition + withinIndex + ` ORDER BY i.subject, i.time, i.log, i.seq`)
		b.WriteString(limitTo(len(args) + 1))
		found, err := x.hits(b.String(), append(args, x.limit+1))
		if err != nil {
			return nil, err
		}
		hits = append(hits, found...)
	}
	if err := x.sorting(true); err != nil {
		return nil, err
	}
	err = x.tail(func(e *indexed) {
		for _, s := range e.subjects() {
			if slices.Contains(ids, s.subject) && x.wanted(e, s.other) {
				hits = append(hits, hit{log: e.log, seq: e.seq, time: e.time, what: int64(e.what), messages: e.messages})
			}
		}
	})
	return hits, err
}

// SubjectSessions returns the sessions that there were between two instants.
func (s *Store) SubjectSessions(ctx context.Context, q broker.SubjectQuery) (all []*broker.Session, next *broker.Place, err error) {
	until := q.Until
	q.Activities = []broker.Activity{broker.ActivitySessionEnd}
	if !q.Until.IsZero() {
		q.Until = q.Until.AddDate(1000, 0, 0) // they may have ended any time later
	}
	err = s.askOf(ctx, q, func(x *question, subjects []int64) error {
		// Of the ends alone there is an index.
		condition := fmt.Sprintf(" AND i.what = %d", slices.Index(broker.Activities(), broker.ActivitySessionEnd))
		began := func(h hit) bool { return until.IsZero() || h.time-h.messages*1e6 < until.UnixMicro() }
		if !until.IsZero() {
			condition += fmt.Sprintf(" AND i.time - i.messages * 1000000 < %d", until.UnixMicro())
		}
		hits, err := x.subjectHits(q.Subjects, subjects, condition)
		if err != nil {
			return err
		}
		hits = slices.DeleteFunc(hits, func(h hit) bool { return !began(h) })
		ends, more, err := x.events(hits)
		if err != nil {
			return err
		}
		if all, err = x.sessionsOf(ends); err != nil {
			return err
		}
		if next = more; next != nil {
			return nil
		}
		live, err := sessions(x.q, `SELECT doc, ended_at, end_reason FROM sessions WHERE ended_at IS NULL ORDER BY id`)
		for _, l := range live {
			ids := []broker.ID{l.WorkstationID, l.AgentID, l.MailboxID}
			other := q.Other == "" || slices.Contains(ids, q.Other)
			about := slices.ContainsFunc(q.Subjects, func(id broker.ID) bool { return slices.Contains(ids, id) })
			if about && other && (q.FirmID == "" || l.FirmID == q.FirmID) {
				all = append(all, l)
			}
		}
		return err
	})
	// What is in the index is rounded to seconds.
	return slices.DeleteFunc(all, func(x *broker.Session) bool {
		return !until.IsZero() && !x.OpenedAt.Before(until)
	}), next, err
}

// sessionsOf returns the sessions of events, in their order.
func (x *question) sessionsOf(events []*broker.StoredEvent) (all []*broker.Session, err error) {
	for some := range slices.Chunk(events, recordsPerQuery) {
		ids := make([]any, len(some))
		for i, e := range some {
			ids[i] = string(e.SessionID)
		}
		found, err := sessions(x.q, `SELECT s.doc, s.ended_at, s.end_reason FROM sessions s WHERE s.id IN `+placeholders(1, len(ids)), ids...)
		if err != nil {
			return nil, err
		}
		byID := make(map[broker.ID]*broker.Session, len(found))
		for _, s := range found {
			byID[s.ID] = s
		}
		for _, e := range some {
			if s := byID[e.SessionID]; s != nil {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// CountSubjects counts the events about subjects.
func (s *Store) CountSubjects(ctx context.Context, q broker.SubjectQuery, zone int) ([]broker.ActivityCount, error) {
	q.After = nil
	counts := newCounts(zone)
	err := s.askOf(ctx, q, func(x *question, subjects []int64) error {
		for _, subject := range subjects {
			var b strings.Builder
			b.WriteString(`SELECT g.day, g.what, coalesce(s.id, ''), g.events, g.messages, g.octets, g.first, g.last FROM (
				SELECT (i.time + $2) / 86400000000 AS day, i.what AS what, i.other AS other, count(*) AS events,
					sum(i.messages) AS messages, sum(i.octets) AS octets, min(i.time) AS first, max(i.time) AS last
				FROM subject_events i JOIN logs l ON l.number = i.log AND i.seq < l.indexed
				WHERE i.subject = $1`)
			args := x.narrow(&b, []any{subject, counts.shift})
			b.WriteString(` GROUP BY 1, 2, 3) g LEFT JOIN subjects s ON s.number = g.other`)
			if err := counts.read(x, b.String(), args); err != nil {
				return err
			}
		}
		return x.tail(func(e *indexed) {
			for _, s := range e.subjects() {
				if slices.Contains(q.Subjects, s.subject) && x.wanted(e, s.other) {
					counts.add(e, s.other)
				}
			}
		})
	})
	return counts.sorted(), err
}

// read adds what a query counts.
func (c *counts) read(x *question, query string, args []any) (err error) {
	rows, err := x.q(query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var k countKey
		var n count
		if err := rows.Scan(&k.day, &k.what, (*string)(&k.other), &n.events, &n.messages, &n.octets, &n.first, &n.last); err != nil {
			return dbError(err)
		}
		c.merge(k, n)
	}
	return dbError(rows.Err())
}

func sortCounts(all []broker.ActivityCount) {
	order := broker.Activities()
	slices.SortFunc(all, func(a, b broker.ActivityCount) int {
		if c := strings.Compare(a.Day, b.Day); c != 0 {
			return c
		}
		if c := slices.Index(order, a.Activity) - slices.Index(order, b.Activity); c != 0 {
			return c
		}
		return strings.Compare(string(a.Other), string(b.Other))
	})
}
