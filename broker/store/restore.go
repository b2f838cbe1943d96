// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// LogSize says how many events a log holds; an empty FirmID is the BPO's own.
type LogSize struct {
	FirmID broker.ID
	Events int64
}

// Inspect reads a whole database that nobody else uses, and returns the sizes
// of its logs. The error is Invalid when the database is damaged, or of a
// later version of Postern than this one.
func Inspect(ctx context.Context, path string) (logs []LogSize, err error) {
	db, err := openSQLite(path, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check`).Scan(&verdict); err != nil {
		return nil, damaged("it cannot be read").WithCause(err)
	}
	if verdict != "ok" {
		return nil, damaged("%s", verdict)
	}
	if err := inspectSchema(ctx, db); err != nil {
		return nil, err
	}
	return inspectLogs(ctx, db)
}

func damaged(format string, args ...any) *broker.Error {
	return broker.InvalidField("database", "the database is damaged: "+format, args...)
}

func inspectSchema(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, `PRAGMA foreign_key_check`)
	if err != nil {
		return dbError(err)
	}
	broken := rows.Next()
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return dbError(err)
	}
	if broken {
		return damaged("it names things that are not there")
	}
	var has int64
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&has); err != nil {
		return damaged("it is not Postern's").WithCause(err)
	}
	knows, err := schemaVersion()
	if err != nil {
		return err
	}
	if has < 1 {
		return damaged("it has no schema")
	}
	if has > knows {
		return broker.InvalidField("database", "the database has schema %d, and this version of Postern knows %d at most: use the version that made it, or a later one", has, knows)
	}
	return nil
}

// schemaVersion is the last migration's.
func schemaVersion() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, dbError(fmt.Errorf("no migrations: %w", err))
	}
	last := strings.TrimPrefix(files[len(files)-1], "migrations/") // sorted
	number, _, _ := strings.Cut(last, "_")
	version, err := strconv.ParseInt(number, 10, 64)
	return version, dbError(err)
}

// inspectLogs finds that each log's events bear the numbers 0, 1, 2…, that each
// record is the one that its leaf hash covers, unless it was pruned, and that the
// leaf hashes are those of the log's tree.
func inspectLogs(ctx context.Context, db *sql.DB) ([]LogSize, error) {
	logs, numbers, err := logSizes(ctx, db)
	if err != nil {
		return nil, err
	}
	for i, number := range numbers {
		if err := inspectLog(ctx, db, number, logs[i].Events); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

func logSizes(ctx context.Context, db *sql.DB) (logs []LogSize, numbers []int64, err error) {
	rows, err := db.QueryContext(ctx, `SELECT number, firm_id, next_seq FROM logs ORDER BY number`)
	if err != nil {
		return nil, nil, dbError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var number int64
		var l LogSize
		if err := rows.Scan(&number, &l.FirmID, &l.Events); err != nil {
			return nil, nil, dbError(err)
		}
		logs, numbers = append(logs, l), append(numbers, number)
	}
	return logs, numbers, dbError(rows.Err())
}

func inspectLog(ctx context.Context, db *sql.DB, number, size int64) (err error) {
	grown, edge, err := treeOf(ctx, db, number)
	if err != nil {
		return err
	}
	if grown > size {
		return damaged("the tree of a log covers %d events, and the log has %d", grown, size)
	}
	rows, err := db.QueryContext(ctx, `SELECT seq, salt, record, leaf_hash FROM events WHERE log = $1 ORDER BY seq`, number)
	if err != nil {
		return dbError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var seq, next int64
	var salt, record, leaf sql.RawBytes
	var covered []byte
	var tree translog.Tree
	var complete []translog.TileHash
	for ; rows.Next(); next++ {
		if err := rows.Scan(&seq, &salt, &record, &leaf); err != nil {
			return dbError(err)
		}
		if seq != next {
			return damaged("event %d of a log is missing", next)
		}
		if len(leaf) != tlog.HashSize {
			return damaged("the leaf hash of event %d of a log has %d octets", seq, len(leaf))
		}
		hash, pruned := tlog.Hash(leaf), len(salt)+len(record) == 0
		covered = append(append(covered[:0], salt...), record...)
		if !pruned && hash != tlog.RecordHash(covered) {
			return damaged("event %d of a log is not what was recorded", seq)
		}
		if next < grown {
			complete = tree.Add(hash, complete[:0])
		}
	}
	if err := rows.Err(); err != nil {
		return dbError(err)
	}
	if next != size {
		return damaged("a log has %d events, and should have %d", next, size)
	}
	if !bytes.Equal(tree.AppendEdge(nil), edge) {
		return damaged("the events of a log are not those of its tree")
	}
	return nil
}

// treeOf returns how many events a log's tree covers, and its edge: none in a
// database of a version before the trees.
func treeOf(ctx context.Context, db *sql.DB, number int64) (size int64, edge []byte, err error) {
	var has bool
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM pragma_table_info('logs') WHERE name = 'tree_edge'`).Scan(&has); err != nil {
		return 0, nil, dbError(err)
	}
	if has {
		err = db.QueryRowContext(ctx, `SELECT tree_size, tree_edge FROM logs WHERE number = $1`, number).Scan(&size, &edge)
	}
	return size, edge, dbError(err)
}

// Seized is a database, there or not, that nobody can open until Release.
type Seized struct {
	path    string
	release func() error
}

// Seize takes the database at path away from everybody. The error is Conflict
// when somebody uses it.
func Seize(path string) (*Seized, error) {
	release, err := hold(path, true)
	if err != nil {
		return nil, err
	}
	return &Seized{path, release}, nil
}

// Release lets others open it again.
func (s *Seized) Release() error { return s.release() }

// Lost counts, by type, the events that the database holds and a copy of it
// with logs of these sizes does not, but for those that were pruned. It returns
// the sizes of its own logs too.
func (s *Seized) Lost(ctx context.Context, logs []LogSize) (lost map[broker.EventType]int64, own []LogSize, err error) {
	db, err := openSQLite(s.path, false)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	copied := make(map[broker.ID]int64)
	for _, l := range logs {
		copied[l.FirmID] = l.Events
	}
	own, numbers, err := logSizes(ctx, db)
	if err != nil {
		return nil, nil, err
	}
	lost = make(map[broker.EventType]int64)
	for i, l := range own {
		if err := countLost(ctx, db, numbers[i], copied[l.FirmID], lost); err != nil {
			return nil, nil, err
		}
	}
	return lost, own, nil
}

func countLost(ctx context.Context, db *sql.DB, number, from int64, lost map[broker.EventType]int64) (err error) {
	rows, err := db.QueryContext(ctx, `SELECT type, count(*) FROM events WHERE log = $1 AND seq >= $2 AND type <> '' GROUP BY type`, number, from)
	if err != nil {
		return dbError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var kind broker.EventType
		var n int64
		if err := rows.Scan(&kind, &n); err != nil {
			return dbError(err)
		}
		lost[kind] += n
	}
	return dbError(rows.Err())
}

// Replace puts another database, closed and on the same file system, into its
// place. One that is there is kept under the name kept. A power cut leaves
// the one or the other, whole.
func (s *Seized) Replace(ctx context.Context, with, kept string) error {
	if _, err := os.Lstat(with + "-wal"); !errors.Is(err, os.ErrNotExist) {
		return unavailable(fmt.Errorf("%s is still in use (%v)", with, err))
	}
	_, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// What is left of another database must not be read as this one's.
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			if _, err := os.Lstat(s.path + suffix); !errors.Is(err, os.ErrNotExist) {
				return conflict("%s is there without its database: move it away first", s.path+suffix)
			}
		}
	case err != nil:
		return unavailable(err)
	default:
		if err := fold(ctx, s.path); err != nil {
			return err
		}
		if err := os.Link(s.path, kept); err != nil {
			return unavailable(err)
		}
	}
	if err := errors.Join(os.Rename(with, s.path), syncFolder(s.path)); err != nil {
		return unavailable(err)
	}
	return nil
}

// fold brings a database's write-ahead log into its file: under its name, the
// log would be read as the next database's.
func fold(ctx context.Context, path string) (err error) {
	db, err := openSQLite(path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode = DELETE`).Scan(&mode); err != nil {
		return dbError(err)
	}
	if mode != "delete" {
		return conflict("the database is in use: stop the server first")
	}
	return nil
}
