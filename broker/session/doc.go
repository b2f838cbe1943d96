// SPDX-License-Identifier: Apache-2.0

// Package session lets clients in and ends their sessions: it is the
// broker.Gate, and the continuous authorisation behind it.
//
// A Manager authenticates a login, decides, registers the session, finds room
// in the mailbox's budget of connections, makes the session.open event durable,
// and checks by the policy revision of that transaction, in that order.
// Afterwards it decides anew whenever a change touches the session, and ends
// it at once when the new decision is narrower in any way, when the decision's
// end has come, or when the state can no longer be read.
//
// Invariants:
//
//   - No session without its durable record; none whose registration did not
//     come before the last look at the policy revision, so that a change either
//     shows in the decision or finds the session in the table.
//   - Ending is the cancellation of the session's context and nothing else: it
//     waits for no I/O, no client, and no lock that is held across either.
//   - What cannot be decided is refused: new sessions at once, live ones when
//     the state has been unreadable, or the node's lease not prolonged, for the
//     lease's time. Where nodes are several, a node without a lease lets nobody
//     in, and has no session that it had before.
//   - Whatever is wrong with a token, a certificate or their combination, the
//     client is told the same after the same time.
//   - A credential is read for one login upstream and wiped in every path.
//
// Goroutines: Run's own, which alone decides anew; one that ends the sessions
// of nodes whose lease is over; and the timers of sessions and of the lease.
// proxy calls Open and the LiveSession; httpapi calls Live, EndSession and
// NewToken; cmd/postern calls New, Run and Drain.
package session
