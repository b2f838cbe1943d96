// SPDX-License-Identifier: Apache-2.0

// Package sink hands recorded events on to others: to files, log hosts, web
// services and people's mail. cmd/postern builds and runs it.
//
// # Invariants
//
//   - What is delivered was recorded before: sinks read the log. No session waits
//     for a sink, and what a sink has in hand is bounded, whatever is behind.
//   - Each sink has its own place in each log, in the database. An event is passed
//     when its receiver has taken it, as far as the receiver's protocol tells. What
//     was taken in the second before a crash is delivered again: receivers know an
//     event by its id.
//   - The events of one log keep their order. Between logs there is none. While a
//     receiver refuses an event, one from behind it may come early, and again later.
//   - A sink that is a firm's reads that firm's log and no other.
//   - What a receiver does not take is offered again for ever, later and later, and
//     after a while a person is told (sink.outage). One event that it refuses while
//     it takes others is set aside after [maxRefusals] times, and that is recorded
//     (sink.skipped): the event stays in its log, which tells what it was.
//   - Of nodes that share a database one delivers to a sink at a time. When one
//     dies another takes over within [claimTime].
//
// # Goroutines
//
// One for each sink, and nothing else. It is woken by commits of its own process,
// and looks every few seconds for those of others.
package sink
