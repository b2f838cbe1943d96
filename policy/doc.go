// SPDX-License-Identifier: Apache-2.0

// Package policy turns what a firm granted and what the BPO assigned into a
// Decision: what one session may do, and until when.
//
// It is pure: no I/O, no clock of its own, and it imports nothing of Postern.
// Everything that a decision depends on is in its Input. Narrowing can only
// narrow: no Input yields an action that the delegation does not hold, nor an
// end later than the delegation's.
package policy
