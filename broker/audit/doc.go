// SPDX-License-Identifier: Apache-2.0

// Package audit takes events from their producers, gathers them into batches
// and has the store make each batch durable: it is broker.EventLog. It also
// prints the catalogue of events. Sessions, the proxies and rotation write to
// it through that interface; cmd/postern builds and runs it.
//
// # Invariants
//
//   - A receipt settles with nil only after the store has said that the event
//     is durable.
//   - No event is dropped silently: one that is not stored has a receipt that
//     failed, and is counted and logged.
//   - The events of one producer keep their order; their times do not go back
//     within a queue unless the clock does.
//   - An event is encoded when it is submitted: what its producer does to it
//     later does not show in the record, and one that has no JSON form, or
//     whose data is not the catalogue's, fails alone.
//   - Memory is bounded: what is queued has a limit, and beyond it Submit
//     fails and Append waits.
//
// # Goroutines
//
// Run is the only one. While it waits for a commit the next batch gathers, so
// that batches grow with the load and a lone event waits for nobody.
package audit
