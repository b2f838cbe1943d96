// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// hit is an event that answers a question, and what the index holds of it.
type hit struct {
	log, seq, time   int64
	what, other      int64
	messages, octets int64
}

func (x hit) compare(y hit) int {
	return cmp.Or(cmp.Compare(x.time, y.time), cmp.Compare(x.log, y.log), cmp.Compare(x.seq, y.seq))
}

// question is a question under way, in one transaction.
type question struct {
	s *Store
	q querier
	// log is the only one that is read; 0: all are. firms say whose each log is.
	log   int64
	firms map[int64]broker.ID
	// What is asked for. after is a place; whats are activities, by their numbers.
	from, until int64
	whats       []int64
	other       int64
	otherID     broker.ID
	after       *hit
	limit       int
}

// ask begins a question, and has do answer it from one instant. A log that is
// not there answers nothing: do is not called.
func (s *Store) ask(ctx context.Context, firm broker.ID, from, until time.Time, activities []broker.Activity, after *broker.Place, limit int, do func(*question) error) error {
	if limit < 0 || limit > maxEvents {
		return broker.InvalidField("limit", "use 1 to %d", maxEvents)
	}
	tx, err := s.readers.BeginTx(ctx, s.dialect.snapshot())
	if err != nil {
		return s.readError(err)
	}
	defer tx.Rollback() // it only reads
	x := &question{
		s: s, from: 0, until: 1<<63 - 1, limit: cmp.Or(limit, defaultEvents),
		firms: make(map[int64]broker.ID),
	}
	x.q = func(query string, args ...any) (*sql.Rows, error) {
		if s.asked != nil {
			s.asked(query, args)
		}
		rows, err := tx.QueryContext(ctx, query, args...)
		return rows, dbError(err)
	}
	if !from.IsZero() {
		x.from = from.UnixMicro()
	}
	if !until.IsZero() {
		x.until = until.UnixMicro()
	}
	for _, a := range activities {
		n := slices.Index(broker.Activities(), a)
		if n < 0 {
			return broker.InvalidField("activity", "there is no activity %q", a)
		}
		x.whats = append(x.whats, int64(n))
	}
	if err := x.readLogs(firm); err != nil {
		return err
	}
	if firm != "" && x.log == 0 {
		return nil
	}
	if after != nil {
		x.after = &hit{time: after.Time.UnixMicro(), seq: after.Seq}
		for log, firm := range x.firms {
			if firm == after.Log {
				x.after.log = log
			}
		}
	}
	return do(x)
}

func (x *question) readLogs(firm broker.ID) (err error) {
	rows, err := x.q(`SELECT number, firm_id FROM logs`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var log int64
		var owner string
		if err := rows.Scan(&log, &owner); err != nil {
			return dbError(err)
		}
		x.firms[log] = broker.ID(owner)
		if firm != "" && broker.ID(owner) == firm {
			x.log = log
		}
	}
	return dbError(rows.Err())
}

// withinIndex holds for the rows of events that the whole index has.
const withinIndex = ` AND i.seq < (SELECT l.indexed FROM logs l WHERE l.number = i.log)`

// narrow adds the conditions that the tables of the index have in common.
func (x *question) narrow(b *strings.Builder, args []any) []any {
	add := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(b, " AND i."+condition, len(args))
	}
	add("time >= $%d", x.from)
	add("time < $%d", x.until)
	if x.log != 0 {
		add("log = $%d", x.log)
	}
	if x.other != 0 {
		add("other = $%d", x.other)
	}
	if len(x.whats) > 0 {
		b.WriteString(" AND i.what IN (")
		for n, what := range x.whats {
			if n > 0 {
				b.WriteString(", ")
			}
			args = append(args, what)
			fmt.Fprintf(b, "$%d", len(args))
		}
		b.WriteString(")")
	}
	if x.after != nil {
		args = append(args, x.after.time, x.after.log, x.after.seq)
		n := len(args)
		fmt.Fprintf(b, " AND (i.time, i.log, i.seq) > ($%d, $%d, $%d)", n-2, n-1, n)
	}
	return args
}

// wanted reports whether an event that is not in the index is asked for.
func (x *question) wanted(e *indexed, other broker.ID) bool {
	h := hit{log: e.log, seq: e.seq, time: e.time}
	return e.time >= x.from && e.time < x.until && (x.log == 0 || e.log == x.log) &&
		(x.otherID == "" || x.otherID == other) &&
		(len(x.whats) == 0 || slices.Contains(x.whats, int64(e.what))) &&
		(x.after == nil || h.compare(*x.after) > 0)
}

// hits reads the hits of a query.
func (x *question) hits(query string, args []any) (all []hit, err error) {
	rows, err := x.q(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var h hit
		if err := rows.Scan(&h.time, &h.log, &h.seq, &h.what, &h.other, &h.messages, &h.octets); err != nil {
			return nil, dbError(err)
		}
		all = append(all, h)
	}
	return all, dbError(rows.Err())
}

// tail calls each for the events that the index does not hold.
func (x *question) tail(each func(*indexed)) error {
	spans, err := x.s.unindexed(x.q)
	if err != nil {
		return err
	}
	for _, span := range spans {
		for x.log == 0 || x.log == span.log {
			events, to, err := x.s.readUnindexed(x.q, span)
			if err != nil {
				return err
			}
			for i := range events {
				each(&events[i])
			}
			if span.from = to; to == span.to {
				break
			}
		}
	}
	return nil
}

// events reads the events of hits, in the order of their places, limit at most
// and no more when they have many octets; next is not nil when there are more.
func (x *question) events(hits []hit) (all []*broker.StoredEvent, next *broker.Place, err error) {
	slices.SortFunc(hits, hit.compare)
	hits = slices.CompactFunc(hits, func(a, b hit) bool { return a.compare(b) == 0 })
	var read map[hit]*broker.StoredEvent
	for i, octets := 0, 0; i < len(hits); i++ {
		if i == x.limit || octets > entryOctets {
			last := hits[i-1]
			return all, &broker.Place{Time: time.UnixMicro(last.time).UTC(), Log: x.firms[last.log], Seq: last.seq}, nil
		}
		if i%recordsPerQuery == 0 {
			if read, err = x.records(hits[i:min(i+recordsPerQuery, len(hits), x.limit)]); err != nil {
				return nil, nil, err
			}
		}
		e := read[hit{log: hits[i].log, seq: hits[i].seq}]
		if e == nil {
			return nil, nil, broker.Errorf(broker.Internal, "internal error").WithCause(errors.New("an event of the index is not in its log"))
		}
		if len(e.Record) == 0 {
			continue // it was pruned, while another node indexed it
		}
		if err := x.s.decodeEvent(e); err != nil {
			return nil, nil, broker.Errorf(broker.Internal, "internal error").WithCause(fmt.Errorf("a stored event: %w", err))
		}
		octets += len(e.Record)
		all = append(all, e)
	}
	return all, nil, nil
}

// recordsPerQuery is how many records are read at once: a database that is
// elsewhere is a turn away.
const recordsPerQuery = 100

// records reads the records of hits, by log and seq.
func (x *question) records(hits []hit) (map[hit]*broker.StoredEvent, error) {
	byLog := make(map[int64][]any)
	for _, h := range hits {
		byLog[h.log] = append(byLog[h.log], h.seq)
	}
	all := make(map[hit]*broker.StoredEvent, len(hits))
	for log, seqs := range byLog {
		if err := x.recordsOf(log, seqs, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (x *question) recordsOf(log int64, seqs []any, all map[hit]*broker.StoredEvent) (err error) {
	rows, err := x.q(`SELECT e.seq, e.record, e.salt, e.leaf_hash FROM events e WHERE e.seq IN `+placeholders(1, len(seqs))+` AND e.log = `+fmt.Sprintf("$%d", len(seqs)+1), append(seqs, log)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		e, seq := new(broker.StoredEvent), int64(0)
		var leaf []byte
		if err := rows.Scan(&seq, (*[]byte)(&e.Record), &e.Salt, &leaf); err != nil {
			return dbError(err)
		}
		copy(e.LeafHash[:], leaf)
		all[hit{log: log, seq: seq}] = e
	}
	return dbError(rows.Err())
}

// placeholders are n in brackets, the first of them numbered first.
func placeholders(first, n int) string {
	b := []byte("(")
	for i := range n {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(append(b, '$'), int64(first+i), 10)
	}
	return string(append(b, ')'))
}

// number returns a subject's number; 0: the index does not know it.
func (x *question) number(id broker.ID) (n int64, err error) {
	rows, err := x.q(selectSubject, string(id))
	if err != nil {
		return 0, err
	}
	if err := scanOne(rows, &n); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, dbError(err)
	}
	return n, nil
}

// sorting says whether what follows may be sorted.
func (x *question) sorting(yes bool) error {
	query := x.s.dialect.sorting(yes)
	if query == "" {
		return nil
	}
	rows, err := x.q(query)
	if err != nil {
		return err
	}
	return dbError(rows.Close())
}

// setOther has the question narrowed to the other side.
func (x *question) setOther(id broker.ID) (err error) {
	if x.otherID = id; id == "" {
		return nil
	}
	if x.other, err = x.number(id); x.other == 0 {
		x.other = -1 // no row has it
	}
	return err
}
