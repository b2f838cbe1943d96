// SPDX-License-Identifier: Apache-2.0

// Package translog is the form of Postern's transparency logs, for those who
// write them and those who check them: the tree as it grows, the names of logs,
// checkpoints (C2SP tlog-checkpoint, signed-note) and cosignatures (C2SP
// tlog-cosignature). It does no I/O and knows no database: whoever checks a log
// needs nothing else of Postern. It imports nothing of ours but the words of
// package broker, and is open to all.
//
// # Names
//
// The origin of a log, the first line of its checkpoints and the name of the
// keys that sign them, is postern/FIRM/EPOCH: the id of the firm, or "bpo", and
// that of the epoch. An epoch lasts from the log's first event, or from a
// restore, to the next restore. So a log that was restored is another log, and
// two logs that went on from one backup are never two truths of one name. A
// verifier key names its epoch: who takes a key takes the epoch.
//
// # Leaves
//
// A leaf is a record's 16 octets of salt followed by its exact JSON. What is in
// the tree is its RFC 6962 §2.1 hash, from which nobody can guess the record. So
// a record can be taken away, and its hash left to prove the rest.
package translog
