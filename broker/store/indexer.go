// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// indexDelay is how long events gather before the index takes them up: the
	// more they are, the fewer pages are written for each.
	indexDelay = 2 * time.Second
	// followAgain is after how long what failed of index and keys is tried again:
	// no event may come that would have it tried.
	followAgain = 5 * time.Second
	// indexStep and indexRows bound how many events of a log, and how many rows,
	// are taken up at once; they are held in memory.
	indexStep = 8192
	indexRows = 50000
	// rowsPerChunk is how many rows one transaction writes, and indexPause how
	// long the next one waits while others want to write.
	rowsPerChunk = 1000
	indexPause   = 10 * time.Millisecond
)

// indexRow is a row of one of the index's tables: its columns.
type indexRow struct {
	table   int
	columns [8]int64
}

// indexTables are the index's tables, by indexRow.table. A row that is there
// already is the same one.
func indexTables() [3]insertion {
	const same = " ON CONFLICT DO NOTHING"
	return [3]insertion{
		newInsertion("subject_events", same, "subject bigint", "time bigint", "log bigint", "seq bigint", "what bigint", "other bigint", "messages bigint", "octets bigint"),
		newInsertion("message_events", same, "day bigint", "message bigint", "time bigint", "log bigint", "seq bigint", "what bigint"),
		newInsertion("message_ids", same, "day bigint", "id bigint", "log bigint", "message bigint"),
	}
}

// indexer fills the index, in a goroutine of its own: records are decoded there
// and not where appends wait. Nodes that share a database may do the same work
// twice; the rows are the same.
type indexer struct {
	s      *Store
	tables [3]insertion
	// subjects are the numbers of those that were seen.
	subjects map[broker.ID]int64
	appended chan struct{}
	done     chan struct{}
}

func newIndexer(s *Store) *indexer {
	return &indexer{
		s: s, tables: indexTables(), subjects: make(map[broker.ID]int64),
		appended: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// wake says that there may be something to do.
func (x *indexer) wake() {
	select {
	case x.appended <- struct{}{}:
	default:
	}
}

// run fills the index until the store is closed. What fails is tried again:
// meanwhile questions read on their own what is not in it.
func (x *indexer) run() {
	defer close(x.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-x.s.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	x.wake() // what an earlier run left
	for {
		select {
		case <-x.appended:
		case <-x.s.quit:
			return
		}
		if !x.wait(ctx, indexDelay) {
			return
		}
		for more := true; more; {
			var err error
			if more, err = x.step(ctx); err != nil {
				more = false
				if ctx.Err() == nil {
					x.s.log.Warn("events could not be indexed yet", zap.Error(err))
				}
				if !x.wait(ctx, followAgain) {
					return
				}
				x.wake()
			}
		}
	}
}

// wait reports false when the store is closed meanwhile.
func (x *indexer) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// step takes up events of each log, and reports whether there are more.
func (x *indexer) step(ctx context.Context) (more bool, err error) {
	spans, err := x.s.unindexed(x.s.read(ctx))
	if err != nil {
		return false, err
	}
	for _, span := range spans {
		events, to, err := x.s.readUnindexed(x.s.read(ctx), span)
		if err != nil {
			return false, err
		}
		if to == span.from {
			continue
		}
		more = more || to < span.to
		if err := x.store(ctx, span, to, events); err != nil {
			return false, err
		}
	}
	return more, nil
}

// logSpan is a part of a log, the end exclusive.
type logSpan struct {
	firm          broker.ID
	log, from, to int64
}

// unindexed returns what the index does not hold of each log.
func (s *Store) unindexed(q querier) (all []logSpan, err error) {
	rows, err := q(`SELECT firm_id, number, indexed, next_seq FROM logs WHERE next_seq > indexed ORDER BY number`)
	if err != nil {
		return nil, dbError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var x logSpan
		if err := rows.Scan((*string)(&x.firm), &x.log, &x.from, &x.to); err != nil {
			return nil, dbError(err)
		}
		all = append(all, x)
	}
	return all, dbError(rows.Err())
}

// readUnindexed reads the first events of a span, and says where they end.
func (s *Store) readUnindexed(q querier, span logSpan) (all []indexed, to int64, err error) {
	to = min(span.to, span.from+indexStep)
	rows, err := q(`SELECT seq, time, record FROM events WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`, span.log, span.from, to)
	if err != nil {
		return nil, 0, dbError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	n := 0
	for rows.Next() {
		var seq, at int64
		var record []byte
		if err := rows.Scan(&seq, &at, &record); err != nil {
			return nil, 0, dbError(err)
		}
		e := indexRecord(span.log, seq, at, record)
		all = append(all, e)
		if n += 3 + len(e.opened) + len(e.named); n >= indexRows {
			to = seq + 1
			break
		}
	}
	return all, to, dbError(rows.Err())
}

// store writes the rows of a span's events, and then that they are there.
func (x *indexer) store(ctx context.Context, span logSpan, to int64, events []indexed) error {
	if err := x.number(ctx, events); err != nil {
		return err
	}
	rows := x.rows(events)
	for len(rows) > 0 {
		n := min(len(rows), rowsPerChunk)
		chunk := rows[:n]
		before := x.s.written.Load()
		if err := x.s.await(ctx, appending, func(t *tx) error { return x.write(t, chunk) }); err != nil {
			return err
		}
		rows = rows[n:]
		if x.s.written.Load() > before+1 && !x.wait(ctx, indexPause) {
			return context.Cause(ctx)
		}
	}
	// Another node may have been faster.
	return x.s.await(ctx, appending, func(t *tx) error {
		_, err := t.exec(`UPDATE logs SET indexed = $1 WHERE number = $2 AND indexed < $1`, to, span.log)
		return err
	})
}

// number gives the events' subjects their numbers.
func (x *indexer) number(ctx context.Context, events []indexed) error {
	found := make(map[broker.ID]int64)
	for i := range events {
		for _, s := range events[i].subjects() {
			if _, known := x.subjects[s.subject]; s.subject != "" && !known {
				found[s.subject] = 0
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	ids := make([]broker.ID, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids) // nodes that do the same wait for each other in one order
	numbers := make([]int64, len(ids))
	err := x.s.await(ctx, appending, func(t *tx) error {
		for i, id := range ids {
			if _, err := t.exec(`INSERT INTO subjects (id) VALUES ($1) ON CONFLICT (id) DO NOTHING`, string(id)); err != nil {
				return err
			}
			rows, err := t.query(selectSubject, string(id))
			if err != nil {
				return err
			}
			if err := scanOne(rows, &numbers[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, id := range ids {
		x.subjects[id] = numbers[i]
	}
	return nil
}

const selectSubject = `SELECT number FROM subjects WHERE id = $1`

// rows makes the rows of events, in the order of the tables' keys: what is
// written at one time lies together then.
func (x *indexer) rows(events []indexed) []indexRow {
	var all []indexRow
	for i := range events {
		e := &events[i]
		for _, s := range e.subjects() {
			if s.subject != "" {
				all = append(all, indexRow{0, [8]int64{
					x.subjects[s.subject], e.time, e.log, e.seq, int64(e.what), x.subjects[s.other], e.messages, e.octets,
				}})
			}
		}
		day := e.time / dayMicros
		for _, message := range e.opened {
			all = append(all, indexRow{1, [8]int64{day, message, e.time, e.log, e.seq, int64(e.what)}})
		}
		for _, n := range e.named {
			all = append(all, indexRow{2, [8]int64{day, n.id, e.log, n.message}})
		}
	}
	slices.SortFunc(all, func(a, b indexRow) int {
		return cmp.Or(cmp.Compare(a.table, b.table), slices.Compare(a.columns[:], b.columns[:]))
	})
	return slices.Compact(all)
}

// write writes rows.
func (x *indexer) write(t *tx, rows []indexRow) error {
	for len(rows) > 0 {
		table, same := rows[0].table, 1
		for same < len(rows) && rows[same].table == table {
			same++
		}
		n := x.s.dialect.rows(same)
		if err := x.s.dialect.insertIndex(t, &x.tables[table], rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// Unindexed returns how many events the index does not hold yet.
func (s *Store) Unindexed(ctx context.Context) (int64, error) {
	rows, err := s.read(ctx)(`SELECT coalesce(sum(next_seq - indexed), 0) FROM logs`)
	if err != nil {
		return 0, err
	}
	var n int64
	return n, dbError(scanOne(rows, &n))
}
