// SPDX-License-Identifier: Apache-2.0

// Package rotation replaces mailboxes' passwords, upstream and in Vault, until
// the old one is proved dead. cmd/postern makes a Rotator and keeps Run going,
// in the server or in a process of its own.
//
// # The way of a rotation
//
// Each state is an entry of the journal (broker.Rotation), which the store
// writes, with its event, before the next step is taken:
//
//	requested ─▶ prepared ─▶ asking ─▶ asked ─▶ verified ─▶ old-dead ─▶ committed ─▶ ended
//	    ▲            ▲                   │ ▲
//	    │            └─── ask again ───┐ ▼ │ look again
//	    └────── another password ──── doubted ─▶ ended (kept-old, lost)
//
// Machine decides, and is pure: of a journal, what was found, and the time it
// makes the next journal. The Rotator does the steps.
//
// # Invariants
//
//   - The journal holds no secret. A new password is generated in memory and
//     stored once, at a path of its own that the journal named before; it is
//     never overwritten, so whoever resumes a rotation sets the same password.
//   - What a driver says is a hint. A password is the mailbox's when IMAP and
//     submission take it, and dead when both refuse it while they take the new.
//   - A refusal and an outage are never confused. Refused passwords are tried a
//     bounded number of times, spaced; outages are waited for.
//   - A rotation that is found in the state asking was cut off: the provider may
//     have been asked. It is not asked again before logins have shown what is
//     true.
//   - The old password stays the mailbox's credential until the new one was
//     verified, and is replaced by check-and-set. Meanwhile sessions whose login
//     is refused look at the journal, and take the password of its latest
//     Pending (broker/session).
//   - Whatever could not be proved is in the journal's Unproved or its outcome
//     when it ends, and so in the firm's log.
//   - One process at a time works on a rotation: it holds a claim by the
//     database's clock, prolonged with each entry and longer than any step. One that
//     may have lost it, as after its machine was suspended, asks no provider.
//   - A server that is silent keeps nobody from the others: whoever waits for one
//     gives up his place among those that are worked on.
//   - Once the provider may have been asked no rotation ends as if it had not been,
//     whatever has gone meanwhile: the driver, or the new password itself.
//   - Passwords that may yet become the mailbox's are not destroyed but while its
//     credential is taken by IMAP and submission. Nothing that a service refuses, or
//     does not answer, is a reason to.
package rotation
