// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

const (
	// selectHead is what a transaction must know of the log of a firm, $1.
	selectHead = `SELECT number, next_seq, epoch, tree_size, tree_edge FROM logs WHERE firm_id = $1`
	// leavesPerStep bounds how many events that have no place in their tree yet
	// one transaction gives one.
	leavesPerStep = 20000
)

// head returns a log's state in this transaction, which nobody else changes
// until its end; the first event of a firm begins its log.
func (t *tx) head(log broker.ID) (*logHead, error) {
	if h := t.heads[log]; h != nil {
		return h, nil
	}
	h, err := t.readHead(log)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = t.exec(`INSERT INTO logs (firm_id, next_seq, epoch) VALUES ($1, 0, $2) ON CONFLICT (firm_id) DO NOTHING`,
			string(log), string(broker.NewID()))
		if err == nil {
			h, err = t.readHead(log)
		}
	}
	if err != nil {
		return nil, err
	}
	// A node of an older version appends without the tree.
	if err := t.grow(h, math.MaxInt64); err != nil {
		return nil, err
	}
	t.heads[log] = h
	return h, nil
}

func (t *tx) readHead(log broker.ID) (*logHead, error) {
	rows, err := t.query(t.store.dialect.head(), string(log))
	if err != nil {
		return nil, err
	}
	h := new(logHead)
	var size int64
	var edge []byte
	if err := scanOne(rows, &h.number, &h.stored, (*string)(&h.epoch), &size, &edge); err != nil {
		return nil, err
	}
	h.next = h.stored
	if h.epoch == "" {
		h.epoch, h.changed = broker.NewID(), true
	}
	h.tree, err = translog.ParseTree(size, edge)
	return h, err
}

// grow gives up to limit events that have no place in the tree yet theirs.
func (t *tx) grow(h *logHead, limit int64) (err error) {
	to := h.stored
	if to-h.tree.Size() > limit {
		to = h.tree.Size() + limit
	}
	if h.tree.Size() == to {
		return nil
	}
	h.changed = true
	rows, err := t.query(`SELECT leaf_hash FROM events WHERE log = $1 AND seq >= $2 AND seq < $3 ORDER BY seq`, h.number, h.tree.Size(), to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var raw sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		var leaf tlog.Hash
		if copy(leaf[:], raw) != len(raw) || len(raw) != len(leaf) {
			return fmt.Errorf("store: the leaf hash of event %d has %d octets", h.tree.Size(), len(raw))
		}
		h.complete = h.tree.Add(leaf, h.complete)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if h.tree.Size() != to {
		return fmt.Errorf("store: a log has events up to %d, and should have %d", h.tree.Size(), to)
	}
	return nil
}

// storeHeads writes the logs' next numbers and trees, before the commit.
func (t *tx) storeHeads() error {
	for _, h := range t.heads {
		if !h.changed {
			continue
		}
		for _, c := range h.complete {
			if _, err := t.exec(`INSERT INTO log_hashes (log, level, number, hash) VALUES ($1, $2, $3, $4)`,
				h.number, c.Level, c.Number, c.Hash[:]); err != nil {
				return err
			}
		}
		if err := t.update(`UPDATE logs SET next_seq = $1, epoch = $2, tree_size = $3, tree_edge = $4 WHERE number = $5 AND next_seq = $6`,
			h.next, string(h.epoch), h.tree.Size(), h.tree.AppendEdge(nil), h.number, h.stored); err != nil {
			return err
		}
	}
	return nil
}

// growTrees gives all events their place in the trees: those of a database
// that a version before the trees wrote have none.
func (s *Store) growTrees(ctx context.Context) error {
	for {
		rows, err := s.read(ctx)(`SELECT firm_id FROM logs WHERE tree_size < next_seq OR epoch = '' LIMIT 1`)
		if err != nil {
			return err
		}
		var log string
		if err := scanOne(rows, &log); errors.Is(err, sql.ErrNoRows) {
			return nil
		} else if err != nil {
			return dbError(err)
		}
		err = s.await(ctx, appending, func(t *tx) error {
			h, err := t.readHead(broker.ID(log))
			if err != nil {
				return err
			}
			t.heads[broker.ID(log)] = h
			return t.grow(h, leavesPerStep)
		})
		if err != nil {
			return err
		}
	}
}

// BeginEpochs is described at broker.Logs.
func (s *Store) BeginEpochs(ctx context.Context) error {
	return s.await(ctx, alone, func(t *tx) error {
		rows, err := t.query(`SELECT firm_id FROM logs ORDER BY firm_id`)
		if err != nil {
			return err
		}
		var logs []broker.ID
		for rows.Next() {
			var log string
			if err := rows.Scan(&log); err != nil {
				return errors.Join(err, rows.Close())
			}
			logs = append(logs, broker.ID(log))
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, log := range logs {
			h, err := t.head(log)
			if err != nil {
				return err
			}
			h.epoch, h.changed = broker.NewID(), true
		}
		if _, err := t.exec(`UPDATE logs SET unconfirmed = 1`); err != nil {
			return err
		}
		return t.forgetWatched()
	})
}
