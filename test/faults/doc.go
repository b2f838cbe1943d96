// SPDX-License-Identifier: Apache-2.0

// Package faults breaks what Postern stands on and between, on real processes:
// Vault sealed, killed and slow, providers that lie, stall and vanish, clients
// that leave in the middle, a disk without room, a database that another
// process holds, the server itself killed. Its tests named TestNever… hold
// what the design says must never happen against all that was seen: by the
// clients, on the wire to the provider, in the provider's mailboxes, in the
// log, and in the records.
//
// Tests that hold nothing against the clock run two at a time, after all others.
//
// It has tests only, on the harness of test/e2e and the servers of
// test/servers. Nothing imports it.
package faults
