// SPDX-License-Identifier: Apache-2.0

// Package checkpoint signs what the transparency logs are: each second a
// checkpoint (C2SP tlog-checkpoint) of each log that has new events. cmd/postern
// builds and runs it.
//
// # Invariants
//
//   - What is signed follows from what was signed before: the new leaves are
//     read from the database and put behind those of the last checkpoint, and
//     the root that comes out must be the log's. A log that is smaller than it
//     was, or another, is not signed: an older database under a running server,
//     rows that somebody changed, an epoch that comes back after another.
//   - A checkpoint says what is durable: events are in the tree in the
//     transaction that records them.
//   - Nodes that share a database all sign. They need not agree who does: what
//     they sign is the same log, and the largest is kept.
//
// What it remembers is in memory. After a start the last checkpoint in the
// database counts, which who can change the rest can change too: that is what
// witnesses, and copies that firms pull, are for.
package checkpoint
