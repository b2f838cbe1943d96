// SPDX-License-Identifier: Apache-2.0

// Package evidence makes and checks evidence bundles: what a log has of a period
// or an incident, for somebody who has neither the server nor any reason to
// believe it. cmd/postern makes one from a server's API or from a copy of the
// log, and verifies one with nothing but the bundle and the log's key.
//
// # A bundle
//
// It is a directory, or a ZIP archive, of these files and no other:
//
//	manifest.json       what it is of, and the SHA-256 of each other file
//	events.jsonl        the log's entries in a row, one a line, as package
//	                    logcopy has them: what the leaf hashes cover, with salts
//	proof.json          what proves them: the tree's hashes before and after them,
//	                    and that the log grew from each older checkpoint
//	checkpoint.txt      the checkpoint that they are proved to, with its signatures
//	checkpoint-N.txt    an older one, of N entries, such as the newest that a
//	                    witness has cosigned
//	keys.txt            the log's keys, for comparison: who checks has his own
//	report.html         the same to read and to print
//	certificate.html    particulars for a certificate of electronic records
//
// # Invariants
//
//   - The entries are a row without a gap, and are proved to stand at these places
//     of the log. What a narrowed bundle withholds is there as its hash, and
//     counted; so are records that were pruned.
//   - Nothing in a bundle is believed because it is there: the manifest binds the
//     files to each other, proof and checkpoint bind the events to the log, and
//     only a key from elsewhere binds the checkpoint to somebody. The report and the
//     certificate are made anew from the rest, and must come out the same.
//   - A witness whose key is given must have cosigned a checkpoint that covers the
//     last of the entries. What others have cosigned is nobody's word but its own.
//   - What is not proved is said to be not: names that a directory gave, the maker's
//     name, the time of making.
//   - Making one discloses no more than its maker may read of the log.
package evidence
