// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// positionsPerStep bounds how many positions one transaction stores, since
	// events that come meanwhile wait for it.
	positionsPerStep = 500
	// maxFailure is in octets.
	maxFailure = 500
)

var _ broker.Sinks = (*Store)(nil)

// ClaimSink is described at broker.Sinks.
func (s *Store) ClaimSink(ctx context.Context, c broker.SinkClaim, fromStart bool) (*broker.SinkState, error) {
	var held bool
	err := s.await(ctx, appending, func(t *tx) error {
		now, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		made, err := t.exec(`INSERT INTO sinks (name, holder, node, held_until, failing_since, failure) VALUES ($1, '', '', 0, 0, '')
			ON CONFLICT (name) DO NOTHING`, c.Sink)
		if err != nil {
			return err
		}
		if n, err := made.RowsAffected(); err != nil {
			return err
		} else if n == 1 && !fromStart {
			if _, err := t.exec(`INSERT INTO sink_positions (sink, log, next) SELECT $1, number, next_seq FROM logs`, c.Sink); err != nil {
				return err
			}
		}
		taken, err := t.exec(`UPDATE sinks SET holder = $1, node = $2, held_until = $3 WHERE name = $4 AND (held_until <= $5 OR holder = $1)`,
			string(c.Holder), c.Node, now+c.Lasts.Microseconds(), c.Sink, now)
		if err != nil {
			return err
		}
		n, err := taken.RowsAffected()
		held = n == 1
		return err
	})
	if err != nil || !held {
		return nil, err
	}
	states, err := s.sinkStates(ctx, `WHERE name = $1`, c.Sink)
	if err != nil || len(states) == 0 {
		return nil, err
	}
	return states[0], nil
}

// KeepSink is described at broker.Sinks. Many positions take several
// transactions, each of which asks anew whose the sink is.
func (s *Store) KeepSink(ctx context.Context, c broker.SinkClaim, p broker.SinkProgress) error {
	logs := slices.Sorted(maps.Keys(p.Next))
	for {
		some := logs[:min(len(logs), positionsPerStep)]
		logs = logs[len(some):]
		next := make([]int64, len(some))
		for i, log := range some {
			next[i] = p.Next[log]
		}
		if err := s.keepSink(ctx, c, p.FailingSince, p.Failure, some, next); err != nil || len(logs) == 0 {
			return err
		}
	}
}

func (s *Store) keepSink(ctx context.Context, c broker.SinkClaim, since time.Time, failure string, logs []broker.ID, next []int64) error {
	failing := int64(0)
	if !since.IsZero() {
		failing = since.UnixMicro()
	}
	return s.await(ctx, appending, func(t *tx) error {
		now, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		kept, err := t.exec(`UPDATE sinks SET held_until = $1, failing_since = $2, failure = $3 WHERE name = $4 AND holder = $5 AND held_until > $6`,
			now+c.Lasts.Microseconds(), failing, cut(failure, maxFailure), c.Sink, string(c.Holder), now)
		if err != nil {
			return err
		}
		if n, err := kept.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return conflict("another process delivers to the sink")
		}
		for i, log := range logs {
			if _, err := t.exec(`INSERT INTO sink_positions (sink, log, next) SELECT $1, number, $2 FROM logs WHERE firm_id = $3
				ON CONFLICT (sink, log) DO UPDATE SET next = excluded.next`, c.Sink, next[i], string(log)); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReleaseSinks is described at broker.Sinks.
func (s *Store) ReleaseSinks(ctx context.Context, node string) error {
	return s.await(ctx, appending, func(t *tx) error {
		_, err := t.exec(`UPDATE sinks SET held_until = 0, node = '', holder = '' WHERE node = $1`, node)
		return err
	})
}

// SinkPositions is described at broker.Sinks.
func (s *Store) SinkPositions(ctx context.Context, sink string) (map[broker.ID]int64, error) {
	return s.seqs(ctx, `SELECT l.firm_id, p.next FROM sink_positions p JOIN logs l ON l.number = p.log WHERE p.sink = $1`, sink)
}

// LogEnds is described at broker.Sinks.
func (s *Store) LogEnds(ctx context.Context) (map[broker.ID]int64, error) {
	return s.seqs(ctx, `SELECT firm_id, next_seq FROM logs`)
}

// seqs reads numbers by log.
func (s *Store) seqs(ctx context.Context, query string, args ...any) (all map[broker.ID]int64, err error) {
	rows, err := s.read(ctx)(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	all = make(map[broker.ID]int64)
	for rows.Next() {
		var log string
		var next int64
		if err := rows.Scan(&log, &next); err != nil {
			return nil, dbError(err)
		}
		all[broker.ID(log)] = next
	}
	return all, dbError(rows.Err())
}

// SinkStates is described at broker.Sinks.
func (s *Store) SinkStates(ctx context.Context) ([]*broker.SinkState, error) {
	return s.sinkStates(ctx, `ORDER BY name`)
}

func (s *Store) sinkStates(ctx context.Context, conditions string, args ...any) (all []*broker.SinkState, err error) {
	rows, err := s.read(ctx)(`SELECT name, node, failing_since, failure FROM sinks `+conditions, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for rows.Next() {
		x := new(broker.SinkState)
		var since int64
		if err := rows.Scan(&x.Sink, &x.Node, &since, &x.Failure); err != nil {
			return nil, dbError(err)
		}
		if since > 0 {
			x.FailingSince = time.UnixMicro(since).UTC()
		}
		all = append(all, x)
	}
	return all, dbError(rows.Err())
}

// SinkLag is described at broker.Sinks.
func (s *Store) SinkLag(ctx context.Context, sink string, firm *broker.ID) (broker.SinkLag, error) {
	query := `SELECT CAST(coalesce(sum(l.next_seq - coalesce(p.next, 0)), 0) AS BIGINT), coalesce(min(e.time), 0)
		FROM logs l LEFT JOIN sink_positions p ON p.log = l.number AND p.sink = $1
		LEFT JOIN events e ON e.log = l.number AND e.seq = coalesce(p.next, 0)
		WHERE l.next_seq > coalesce(p.next, 0)`
	args := []any{sink}
	if firm != nil {
		query += ` AND l.firm_id = $2`
		args = append(args, string(*firm))
	}
	rows, err := s.read(ctx)(query, args...)
	if err != nil {
		return broker.SinkLag{}, err
	}
	var lag broker.SinkLag
	var oldest int64
	if err := scanOne(rows, &lag.Events, &oldest); err != nil {
		return broker.SinkLag{}, dbError(err)
	}
	if oldest > 0 {
		lag.Oldest = time.UnixMicro(oldest).UTC()
	}
	return lag, nil
}

// appends tells of logs that were added to.
type appends struct {
	mu   sync.RWMutex
	subs []*appendSub
}

type appendSub struct{ f func(broker.ID) }

func (a *appends) tell(heads map[broker.ID]*logHead) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, sub := range a.subs {
		for log, h := range heads {
			if h.next > h.stored {
				sub.f(log)
			}
		}
	}
}

// SubscribeAppends is described at broker.Sinks.
func (s *Store) SubscribeAppends(f func(broker.ID)) (cancel func()) {
	a, sub := &s.appends, &appendSub{f}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subs = append(a.subs, sub)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.subs = slices.DeleteFunc(a.subs, func(other *appendSub) bool { return other == sub })
	}
}
