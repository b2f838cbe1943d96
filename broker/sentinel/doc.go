// SPDX-License-Identifier: Apache-2.0

// Package sentinel looks at mailboxes on a connection of its own, which no agent
// has the use of: whether their credential still opens them (drift).
//
// One process at a time looks at a mailbox: it claims the watch in the state,
// and what it found, its events and when to look next are one transaction. A
// provider is not hammered: between two looks lies the interval, and a
// credential that was refused maxRefusals times is tried once a day until
// another is stored. An outage is never taken for a refusal, and while a
// rotation of a mailbox is under way nothing there is drift. A server that is silent
// keeps nobody from the others, nor one firm's servers another firm, and nothing that
// can be made up in a mailbox, folders or keywords, hides what else is done there.
//
// cmd/postern runs one Sentinel in a server.
package sentinel
