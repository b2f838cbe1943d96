// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"
)

// LogHead is the state of one log's Merkle tree (RFC 6962 §2.1), whose leaves
// are the leaf hashes of its events in the order of Seq.
type LogHead struct {
	// FirmID is the log; empty: the BPO's own.
	FirmID ID
	// Epoch is this log's own, from its first event or its last restore on. A
	// log that was restored is another log than the one before, though it begins
	// with the same events: both may have gone on.
	Epoch ID
	Size  int64
	// Root is zero where Edge is none that a tree of the size has.
	Root [32]byte
	// Edge is what the tree needs to grow: translog.ParseTree reads it.
	Edge []byte
	// Unconfirmed says that the epoch began with a restore, which nobody who
	// speaks for the log has confirmed: it is not witnessed.
	Unconfirmed bool
	// Checkpoint is the newest that was signed of this epoch; nil: none was.
	Checkpoint *LogCheckpoint
}

// LogCheckpoint is a signed statement of a log's size and root.
type LogCheckpoint struct {
	Size int64
	// Note is the signed note (C2SP tlog-checkpoint).
	Note string
	// SignedAt is when.
	SignedAt time.Time
}

// LogEntry is one event of a log as it is proved: the leaf hash is the RFC 6962
// leaf hash of Salt followed by Record.
type LogEntry struct {
	Seq int64
	// Record and Salt are nil for an event that was pruned: its leaf hash stays.
	Record, Salt []byte
	LeafHash     [32]byte
}

// Logs is the transparency logs' trees: broker/store. They grow in the
// transactions that make events durable.
type Logs interface {
	// LogHead returns a log's state; NotFound when it has no event yet.
	LogHead(ctx context.Context, firm ID) (*LogHead, error)
	// UnsignedLogs returns the logs that have events beyond their newest
	// checkpoint, by their firms' ids: those after one, or nil: from the first on,
	// at most limit of them.
	UnsignedLogs(ctx context.Context, after *ID, limit int) ([]*LogHead, error)
	// StoreCheckpoint keeps a checkpoint if it is of the log's epoch and no
	// newer one is there; else it changes nothing.
	StoreCheckpoint(ctx context.Context, firm, epoch ID, c *LogCheckpoint) error
	// LogTile returns the first width hashes, 1 to 256, of tile number at level:
	// at level 0 those of leaves, at each next one those of full tiles of the
	// level below. NotFound when the log is not as large.
	LogTile(ctx context.Context, firm ID, level int, number int64, width int) ([]byte, error)
	// LogEntries returns the entries from Seq first on, at most limit (1 to 4096)
	// of them, and fewer if their records are long.
	LogEntries(ctx context.Context, firm ID, first int64, limit int) ([]*LogEntry, error)
	// BeginEpochs is for a restore: it has every log begin a new epoch, which is
	// Unconfirmed, and forgets what was seen in mailboxes before.
	BeginEpochs(ctx context.Context) error
}
