// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

const selectHeads = `SELECT l.firm_id, l.epoch, l.tree_size, l.tree_edge, l.unconfirmed, coalesce(c.size, 0), coalesce(c.note, ''), coalesce(c.signed_at, 0)
	FROM logs l LEFT JOIN log_checkpoints c ON c.log = l.number AND c.witnessed = 0 AND c.epoch = l.epoch WHERE `

// LogHead returns a log's state; NotFound when it has no event yet.
func (s *Store) LogHead(ctx context.Context, firm broker.ID) (*broker.LogHead, error) {
	heads, err := s.logHeads(ctx, `l.firm_id = $1 AND l.tree_size > 0`, string(firm))
	if err != nil {
		return nil, err
	}
	if len(heads) == 0 {
		return nil, broker.Errorf(broker.NotFound, "the log has no event yet")
	}
	return heads[0], nil
}

// UnsignedLogs is described at broker.Logs.
func (s *Store) UnsignedLogs(ctx context.Context, after *broker.ID, limit int) ([]*broker.LogHead, error) {
	const unsigned = `l.tree_size > coalesce(c.size, 0) AND l.epoch <> ''`
	if after == nil {
		return s.logHeads(ctx, unsigned+` ORDER BY l.firm_id LIMIT $1`, limit)
	}
	return s.logHeads(ctx, unsigned+` AND l.firm_id > $1 ORDER BY l.firm_id LIMIT $2`, string(*after), limit)
}

func (s *Store) logHeads(ctx context.Context, conditions string, args ...any) (heads []*broker.LogHead, err error) {
	rows, err := s.read(ctx)(selectHeads+conditions, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for rows.Next() {
		h := new(broker.LogHead)
		var c broker.LogCheckpoint
		var edge []byte
		var signed int64
		var unconfirmed int
		if err := rows.Scan((*string)(&h.FirmID), (*string)(&h.Epoch), &h.Size, &edge, &unconfirmed, &c.Size, &c.Note, &signed); err != nil {
			return nil, dbError(err)
		}
		h.Edge, h.Unconfirmed = edge, unconfirmed != 0
		if t, err := translog.ParseTree(h.Size, edge); err == nil {
			h.Root = t.Root() // one log that has none keeps no other from being signed
		}
		if c.Size > 0 {
			c.SignedAt = time.UnixMicro(signed).UTC()
			h.Checkpoint = &c
		}
		heads = append(heads, h)
	}
	return heads, dbError(rows.Err())
}

// StoreCheckpoint keeps a checkpoint, unless it is of another epoch or not
// newer than what is there.
func (s *Store) StoreCheckpoint(ctx context.Context, firm, epoch broker.ID, c *broker.LogCheckpoint) error {
	kept := *c
	return s.await(ctx, appending, func(t *tx) error {
		_, err := t.exec(`INSERT INTO log_checkpoints (log, witnessed, epoch, size, note, signed_at)
			SELECT number, 0, epoch, $1, $2, $3 FROM logs WHERE firm_id = $4 AND epoch = $5
			ON CONFLICT (log, witnessed) DO UPDATE SET epoch = excluded.epoch, size = excluded.size, note = excluded.note, signed_at = excluded.signed_at
			WHERE log_checkpoints.epoch <> excluded.epoch OR log_checkpoints.size < excluded.size`,
			kept.Size, kept.Note, kept.SignedAt.UnixMicro(), string(firm), string(epoch))
		return err
	})
}

// LogTile returns hashes of a tile.
func (s *Store) LogTile(ctx context.Context, firm broker.ID, level int, number int64, width int) (hashes []byte, err error) {
	const highest = 63 / translog.TileHeight
	if level < 0 || level > highest || number < 0 || number > 1<<(62-translog.TileHeight) || width < 1 || width > translog.TileWidth {
		return nil, broker.InvalidField("tile", "there is no such tile")
	}
	first := number * translog.TileWidth
	args := []any{string(firm), first, first + int64(width)}
	query := `SELECT e.leaf_hash FROM events e JOIN logs l ON l.number = e.log
		WHERE l.firm_id = $1 AND e.seq >= $2 AND e.seq < $3 ORDER BY e.seq`
	if level > 0 {
		query = `SELECT h.hash FROM log_hashes h JOIN logs l ON l.number = h.log
			WHERE l.firm_id = $1 AND h.level = $4 AND h.number >= $2 AND h.number < $3 ORDER BY h.number`
		args = append(args, level)
	}
	rows, err := s.read(ctx)(query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	hashes = make([]byte, 0, width*tlog.HashSize)
	var hash sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&hash); err != nil {
			return nil, dbError(err)
		}
		hashes = append(hashes, hash...)
	}
	if err := rows.Err(); err != nil {
		return nil, dbError(err)
	}
	if len(hashes) != width*tlog.HashSize {
		return nil, broker.Errorf(broker.NotFound, "the log is not as large")
	}
	return hashes, nil
}

const (
	// maxEntries bounds one answer of LogEntries, and after entryOctets of
	// records it ends too.
	maxEntries  = 4096
	entryOctets = 4 << 20
)

// LogEntries returns entries by Seq upwards.
func (s *Store) LogEntries(ctx context.Context, firm broker.ID, first int64, limit int) (all []*broker.LogEntry, err error) {
	if first < 0 || limit < 1 || limit > maxEntries {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxEntries)
	}
	rows, err := s.read(ctx)(`SELECT e.seq, e.record, e.salt, e.leaf_hash FROM events e JOIN logs l ON l.number = e.log
		WHERE l.firm_id = $1 AND e.seq >= $2 ORDER BY e.seq LIMIT $3`, string(firm), first, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for octets := 0; octets < entryOctets && rows.Next(); {
		e := new(broker.LogEntry)
		var leaf []byte
		if err := rows.Scan(&e.Seq, &e.Record, &e.Salt, &leaf); err != nil {
			return nil, dbError(err)
		}
		if copy(e.LeafHash[:], leaf) != len(leaf) || len(leaf) != len(e.LeafHash) {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(fmt.Errorf("the leaf hash of event %d has %d octets", e.Seq, len(leaf)))
		}
		if len(e.Record) == 0 {
			e.Record, e.Salt = nil, nil
		}
		all = append(all, e)
		octets += len(e.Record)
	}
	return all, dbError(rows.Err())
}
