// SPDX-License-Identifier: Apache-2.0

// Package retention prunes the logs: it takes away the records that are older than
// their firm wants them kept, and that no hold keeps. cmd/postern runs it in each
// server.
//
// # Invariants
//
//   - What is taken away, and the event that says so, are one transaction of the
//     store. A process that dies has done some of them whole, and the others not.
//   - Several nodes may prune one log at a time: each transaction holds the log and
//     reads anew what is due, so that the second finds less to do, and nothing wrong.
//   - Sessions wait for nothing but one small transaction: it pauses after each for
//     as long as that took, and longer.
//   - It goes by a time of its own, which follows the clock by twenty minutes
//     each ten at most, across restarts and nodes: a clock that jumps ahead by
//     years shows as a warning, and in a day destroys no more than a day's.
//   - It waits for no sink. The shortest time that can be set is far longer than
//     a receiver may be away; what a sink missed all the same it counts.
package retention
