// SPDX-License-Identifier: Apache-2.0

// Package silence notices witnesses of the transparency logs that fall silent. It
// records that, which raises the alert, and tells broker/session for which firms
// no session may be opened. cmd/postern builds and runs it.
//
// # Invariants
//
//   - A witness is silent when it was not heard for longer than it may be, counted
//     from the server's start at the earliest: what stood still meanwhile could
//     hear nobody. What was silent on record stays so over a restart.
//   - Heard it was up to where what it has cosigned covers the log: one that cosigns
//     the same again, since nothing newer is signed, falls silent too.
//   - Whether sessions are stopped is known from what was read last, and the time:
//     no session waits for a question. A witness whose rule is stop, and that
//     could not be read again, falls silent too.
//   - Nodes that share a database all look. The store records each silence once.
package silence
