// SPDX-License-Identifier: Apache-2.0

// Package logcopy keeps a copy of a transparency log in a directory, and checks
// it without the server. It believes nobody: neither the server, nor what is in
// the directory, but the keys that it is given.
//
// A copy can stand in the server's place for who reads it (Copy), such as package
// evidence.
//
// # A copy
//
// A file epochs names the log's epochs, in the order in which they were first pulled.
// Below a directory for each of them, named for it, are
//
//	checkpoint           the newest checkpoint that was proved, with its signatures
//	checkpoints/SIZE     each that was proved, by its size
//	entries/N.jsonl      the entries, 256 a file, one a line
//	tile/LEVEL/N         the tree's hashes, as C2SP tlog-tiles has them
//
// where N is in groups of three digits, as there: x001/x234/067.
//
// # Invariants
//
//   - checkpoint is replaced when all that it stands for is on the disk. What a pull
//     that was killed left behind is read again, and proved with the rest.
//   - What a checkpoint is signed with, and a record that is held, no server takes
//     away.
//   - A copy only grows. A log that is smaller than it was, or another, or that went
//     back into an epoch that it had left, is not copied over what is held: it is an
//     error that says so, and what is held stays the proof of it.
package logcopy
