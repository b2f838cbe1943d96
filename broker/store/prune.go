// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// pruneRows and pruneIndexed bound what one transaction prunes, in events and
	// in rows of the index: sessions wait for it to record what they do.
	pruneRows    = 200
	pruneIndexed = 600
	// pruneWindow bounds how far one transaction looks for so many events among
	// those that were pruned before.
	pruneWindow = 4096
	// clockSet is the year before which no clock was set yet: what it says then is
	// nothing to begin with.
	clockSet = 2026
)

// PruneTime is described at broker.Retentions.
func (s *Store) PruneTime(ctx context.Context, step time.Duration) (at, clock time.Time, err error) {
	done := make(chan [2]time.Time, 1) // the caller may have given up waiting
	if err := s.write(ctx, func(t *tx) error {
		if t.now.Year() < clockSet {
			done <- [2]time.Time{t.now, t.now}
			return nil
		}
		rows, err := t.query(`SELECT at, clock FROM prune_time`)
		if err != nil {
			return err
		}
		now := t.now.UnixMicro()
		var at, before int64
		switch err := scanOne(rows, &at, &before); {
		case errors.Is(err, sql.ErrNoRows):
			at = now
		case err != nil:
			return err
		}
		// However many nodes ask, and however often they start; and a clock that is
		// wrong for one look takes it nowhere, neither ahead nor back.
		allowed := min(step.Microseconds(), 2*max(now-before, before-now))
		at += min(max(now-at, -allowed), allowed)
		if _, err := t.exec(`INSERT INTO prune_time (one, at, clock) VALUES (1, $1, $2)
			ON CONFLICT (one) DO UPDATE SET at = excluded.at, clock = excluded.clock`, at, now); err != nil {
			return err
		}
		done <- [2]time.Time{time.UnixMicro(min(at, now)).UTC(), t.now}
		return nil
	}); err != nil {
		return time.Time{}, time.Time{}, err
	}
	d := <-done
	return d[0], d[1], nil
}

// PruneTasks is described at broker.Retentions.
func (s *Store) PruneTasks(ctx context.Context, at time.Time) (tasks []broker.PruneTask, err error) {
	if err := s.lookAgain(ctx, at); err != nil {
		return nil, err
	}
	spans, err := s.prunable(ctx)
	if err != nil {
		return nil, err
	}
	for _, span := range spans {
		d, err := readDue(s.read(ctx), span.firm, at)
		if err != nil {
			return nil, err
		}
		if d.days == 0 || d.heldWhole {
			continue
		}
		if span.to, err = s.older(ctx, span, d.before); err != nil {
			return nil, err
		}
		if span.from < span.to {
			tasks = append(tasks, broker.PruneTask{FirmID: span.firm, From: span.from, To: span.to, At: at})
		}
	}
	return tasks, nil
}

// lookAgain has logs looked at from their beginning where a hold's time is over
// since: what it covered was passed by.
func (s *Store) lookAgain(ctx context.Context, at time.Time) error {
	now := at.UnixMicro()
	rows, err := s.read(ctx)(`SELECT count(*) FROM holds WHERE kept_until <= $1`, now)
	if err != nil {
		return err
	}
	var n int
	if err := scanOne(rows, &n); err != nil || n == 0 {
		return dbError(err)
	}
	return s.write(ctx, func(t *tx) error {
		if _, err := t.exec(`UPDATE logs SET prune_from = 0 WHERE firm_id IN (SELECT firm_id FROM holds WHERE kept_until <= $1)`, now); err != nil {
			return err
		}
		_, err := t.exec(`UPDATE holds SET kept_until = NULL WHERE kept_until <= $1`, now)
		return err
	})
}

// prunable returns of each log what may be pruned as far as its number goes: what
// has all its keys and is in the index, which then loses it too.
func (s *Store) prunable(ctx context.Context) (all []logSpan, err error) {
	rows, err := s.read(ctx)(`SELECT firm_id, number, prune_from, CASE WHEN keyed < indexed THEN keyed ELSE indexed END FROM logs ORDER BY firm_id`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for rows.Next() {
		var x logSpan
		if err := rows.Scan((*string)(&x.firm), &x.log, &x.from, &x.to); err != nil {
			return nil, dbError(err)
		}
		if x.from < x.to {
			all = append(all, x)
		}
	}
	return all, dbError(rows.Err())
}

// older returns where the records of a span end that are older than an instant.
// Times follow the numbers, but for moments: a clock that was wrong for a while
// has records kept for longer, and none pruned too early.
func (s *Store) older(ctx context.Context, span logSpan, before time.Time) (int64, error) {
	from, to := span.from, span.to
	for from < to {
		middle := from + (to-from)/2
		rows, err := s.read(ctx)(`SELECT time FROM events WHERE log = $1 AND seq = $2`, span.log, middle)
		if err != nil {
			return 0, err
		}
		var at int64
		if err := scanOne(rows, &at); err != nil {
			return 0, dbError(err)
		}
		if at < before.UnixMicro() {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return to, nil
}

// dueRecords says what of a log's records is to be pruned.
type dueRecords struct {
	days      int // 0: nothing
	before    time.Time
	holds     []*broker.Hold // that stand
	heldWhole bool           // one of them covers everything
}

func readDue(q querier, firm broker.ID, now time.Time) (*dueRecords, error) {
	r, err := readRetention(q, firm)
	if err != nil {
		return nil, err
	}
	d := &dueRecords{days: r.days(now)}
	if d.days == 0 {
		return d, nil
	}
	d.before = now.AddDate(0, 0, -d.days)
	holds, err := many[broker.Hold](q, kindHold, holdsOn, string(firm))
	for _, h := range holds {
		if h.Stands(now) {
			d.holds = append(d.holds, h)
			d.heldWhole = d.heldWhole || h.Since.IsZero() && h.Until.IsZero()
		}
	}
	return d, err
}

func (d *dueRecords) held(at time.Time) bool {
	return slices.ContainsFunc(d.holds, func(h *broker.Hold) bool { return h.Covers(at) })
}

// apart reports whether a hold lies between two times, though it covers neither:
// no span names both then, or it would seem to name what is held.
func (d *dueRecords) apart(a, b time.Time) bool {
	return slices.ContainsFunc(d.holds, func(h *broker.Hold) bool { return a.Before(h.Since) != b.Before(h.Since) })
}

// Prune is described at broker.Retentions.
func (s *Store) Prune(ctx context.Context, by broker.Actor, task broker.PruneTask) (count, next int64, err error) {
	if err := actor(by); err != nil {
		return 0, 0, err
	}
	p := &pruning{by: by, task: task}
	if p.from, err = s.firstWhole(ctx, task); err != nil || p.from == task.To {
		return 0, p.from, err
	}
	done := make(chan [2]int64, 1) // the caller may have given up waiting
	if err := s.await(ctx, appending, func(t *tx) error {
		err := p.run(t)
		done <- [2]int64{p.data.Count, p.next}
		return err
	}); err != nil {
		return 0, 0, err
	}
	d := <-done
	return d[0], d[1], nil
}

// firstWhole passes what was pruned already, without the writer.
func (s *Store) firstWhole(ctx context.Context, task broker.PruneTask) (int64, error) {
	end := min(task.To, task.From+pruneWindow)
	rows, err := s.read(ctx)(`SELECT coalesce(min(e.seq), $1) FROM events e JOIN logs l ON l.number = e.log
		WHERE l.firm_id = $2 AND e.seq >= $3 AND e.seq < $1 AND e.type <> ''`, end, string(task.FirmID), task.From)
	if err != nil {
		return 0, err
	}
	var seq int64
	return seq, dbError(scanOne(rows, &seq))
}

// pruning is one under way, in its transaction.
type pruning struct {
	by   broker.Actor
	task broker.PruneTask
	// from is where it begins to look, after what was pruned; next where the next
	// one will.
	from, next int64
	due        *dueRecords
	log        int64
	records    []prunedRecord
	rows       int  // of the index
	young      bool // some that it passed will be due later
	data       broker.LogPruned
}

// prunedRecord is one on its way out.
type prunedRecord struct {
	seq     int64
	typ     string
	session sql.NullString
	indexed indexed
}

func (p *pruning) run(t *tx) error {
	h, err := t.head(p.task.FirmID) // nobody else writes to the log, or prunes it
	if err != nil {
		return err
	}
	p.log = h.number
	if p.due, err = readDue(t.query, p.task.FirmID, p.task.At); err != nil {
		return err
	}
	p.next = p.task.To
	if p.due.days == 0 {
		return nil
	}
	if err := p.choose(t); err != nil {
		return err
	}
	if p.data.Count > 0 {
		if err := p.takeAway(t); err != nil {
			return err
		}
	}
	if p.young {
		return nil
	}
	_, err = t.exec(`UPDATE logs SET prune_from = $1 WHERE number = $2 AND prune_from >= $3 AND prune_from < $1`, p.next, p.log, p.task.From)
	return err
}

// choose reads the next records, and decides of each.
func (p *pruning) choose(t *tx) (err error) {
	end := min(p.task.To, p.from+pruneWindow)
	rows, err := t.query(`SELECT seq, time, type, session_id, record FROM events
		WHERE log = $1 AND seq >= $2 AND seq < $3 AND type <> '' ORDER BY seq LIMIT $4`, p.log, p.from, end, pruneRows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	n := 0
	for rows.Next() {
		var r prunedRecord
		var micros int64
		var record []byte
		if err := rows.Scan(&r.seq, &micros, &r.typ, &r.session, &record); err != nil {
			return err
		}
		if p.rows >= pruneIndexed {
			p.next = r.seq
			return rows.Err()
		}
		n++
		p.next = r.seq + 1
		at := fromMicros(micros)
		switch {
		case broker.EventType(r.typ).KeptForEver() || p.due.held(at):
		case !at.Before(p.due.before):
			p.young = true
		default:
			r.indexed = indexRecord(p.log, r.seq, micros, record)
			p.add(&r, at)
		}
	}
	if n < pruneRows {
		p.next = end
	}
	return rows.Err()
}

// add takes a record up, which follows on those before.
func (p *pruning) add(r *prunedRecord, at time.Time) {
	p.records = append(p.records, *r)
	p.rows += 3 + len(r.indexed.opened) + len(r.indexed.named)
	p.data.Count++
	if n := len(p.data.Spans); n > 0 {
		last := &p.data.Spans[n-1]
		if last.Last+1 == r.seq && !p.due.apart(last.Since, at) && !p.due.apart(last.Until, at) {
			last.Last = r.seq
			if at.Before(last.Since) {
				last.Since = at
			}
			if at.After(last.Until) {
				last.Until = at
			}
			return
		}
	}
	p.data.Spans = append(p.data.Spans, broker.PrunedSpan{First: r.seq, Last: r.seq, Since: at, Until: at})
}

// takeAway leaves of the chosen records their hashes, and records it.
func (p *pruning) takeAway(t *tx) error {
	newest := time.Time{}
	for _, s := range p.data.Spans {
		res, err := t.exec(`UPDATE events SET type = '', session_id = NULL, mailbox_id = NULL, agent_id = NULL, record = $1, salt = $1
			WHERE log = $2 AND seq >= $3 AND seq <= $4`, []byte{}, p.log, s.First, s.Last)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != s.Last-s.First+1 {
			return errors.Join(err, fmt.Errorf("store: of the events %d to %d there are %d", s.First, s.Last, n))
		}
		if s.Until.After(newest) {
			newest = s.Until
		}
	}
	for i := range p.records {
		if err := p.forget(t, &p.records[i]); err != nil {
			return err
		}
	}
	if _, err := t.exec(`UPDATE logs SET pruned_until = $1 WHERE number = $2 AND pruned_until < $1`, newest.UnixMicro(), p.log); err != nil {
		return err
	}
	p.data.Days, p.data.Before = p.due.days, p.due.before
	return t.appendEvent(&broker.Event{Type: broker.EventLogPruned, Actor: p.by, FirmID: p.task.FirmID, Data: p.data})
}

// forget takes away what else was made of a record.
func (p *pruning) forget(t *tx, r *prunedRecord) error {
	x := &r.indexed
	day := x.time / dayMicros
	type deletion struct {
		query string
		args  []any
	}
	all := []deletion{{`DELETE FROM event_keys WHERE log = $1 AND key = $2 AND seq = $3`, []any{p.log, r.typ, r.seq}}}
	if r.session.Valid {
		all = append(all, deletion{`DELETE FROM event_keys WHERE log = $1 AND key = $2 AND seq = $3`, []any{p.log, r.session.String, r.seq}})
		if broker.EventType(r.typ) == broker.EventSessionEnd {
			all = append(all, deletion{`DELETE FROM sessions WHERE id = $1 AND ended_at IS NOT NULL`, []any{r.session.String}})
		}
	}
	for _, s := range x.subjects() {
		if s.subject != "" {
			all = append(all, deletion{
				`DELETE FROM subject_events WHERE subject = (SELECT number FROM subjects WHERE id = $1) AND time = $2 AND log = $3 AND seq = $4`,
				[]any{string(s.subject), x.time, p.log, r.seq},
			})
		}
	}
	for _, message := range x.opened {
		all = append(all, deletion{
			`DELETE FROM message_events WHERE day = $1 AND message = $2 AND time = $3 AND log = $4 AND seq = $5`,
			[]any{day, message, x.time, p.log, r.seq},
		})
	}
	for _, n := range x.named {
		// Others of the day may tell it as well.
		all = append(all, deletion{
			`DELETE FROM message_ids WHERE day = $1 AND id = $2 AND log = $3 AND message = $4
				AND NOT EXISTS (SELECT 1 FROM message_events e WHERE e.day = $1 AND e.message = $4 AND e.log = $3)`,
			[]any{day, n.id, p.log, n.message},
		})
	}
	for _, d := range all {
		if _, err := t.exec(d.query, d.args...); err != nil {
			return err
		}
	}
	return nil
}
