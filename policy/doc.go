// SPDX-License-Identifier: Apache-2.0

// Package policy turns what a firm granted and what the BPO assigned into a
// Decision: what one session may do, and until when.
//
// It is pure: no I/O, no clock of its own, and it imports nothing of Postern.
// Everything that a decision depends on is in its Input. Narrowing can only
// narrow: no Input yields an action, a folder, a message, a recipient or an
// amount that the delegation or the assignment does not hold, nor an end later
// than either's.
//
// What terms hold is in a file each: the hours, the patterns of folders and of
// recipients, the slice, the quotas, the rules for sending. Each is validated,
// compared (within) and narrowed where it is declared. A comparison that is not
// exact errs towards "wider", so that an assignment is refused, or a session
// decided anew ends, rather than the reverse.
package policy
