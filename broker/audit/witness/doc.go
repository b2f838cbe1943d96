// SPDX-License-Identifier: Apache-2.0

// Package witness is the process that a firm, or whoever it trusts, runs beside
// Postern: it cosigns (C2SP tlog-cosignature) checkpoints of one transparency log,
// each of which it has proved to follow from all that it cosigned before. It
// believes nobody but the log's keys, which come to it by another way. cmd/postern
// runs it; it imports nothing of the server's.
//
// # Invariants
//
//   - What it cosigns follows from what it cosigned before: the same log, larger
//     or as large. Of two logs that are not one it cosigns one at most, and never
//     one that was rolled back.
//   - It knows what it cosigned last, whatever happens to the process or the
//     machine: a checkpoint is on the disk as the last one before its cosignature
//     exists. It is in one file with the key, so that a witness that has lost its
//     memory has lost its voice.
//   - With a restore the log is another log, of a new epoch, whose key it must be
//     given. It never goes back to an epoch that it has left.
//
// Somebody who puts an older copy of the file into place makes it forget: its
// directory belongs into no backup, and a key is made anew instead.
package witness
