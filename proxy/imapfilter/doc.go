// SPDX-License-Identifier: Apache-2.0

// Package imapfilter is the IMAP filter proxy: a strict filter between an
// agent's mail client and the upstream, neither a pipe nor a gateway.
//
// A client's command becomes tokens (imapwire), is looked up in the command
// table, checked against its grammar, judged by the session's Decision, and
// serialised anew. What is not in the table is BAD. What the upstream answers
// is framed by the grammar and passes as it came, except for capabilities,
// response codes that are not on a list, and what the record needs of FETCH
// responses.
//
// Two goroutines carry a session once it is logged in. The client's reads what
// the client sends and is the only one that writes upstream. The upstream's
// reads what the upstream answers and is the only one that writes to the
// client, so that nothing of Postern's own ever stands inside a response. They
// share the list of commands under way and a few words of state under a mutex
// that is never held across I/O. Commands that change what later responses
// mean (SELECT, IDLE, APPEND and their like) wait until those before them were
// answered; all others are pipelined as the client pipelines them.
//
// Invariants:
//
//   - What a client wrote appears in at most one upstream command. No octet of
//     a literal goes upstream before the upstream has asked for it, since
//     servers take the octets of a command that they refuse for the next one.
//   - Postern's own commands bear a random prefix that client tags may not use.
//     None comes before a command that may hold message sequence numbers.
//   - Not more than 1 MiB of body octets passes ahead of its durable event.
//   - What a session holds in memory is bounded, whatever either peer sends; it
//     ends soon after its context does, whatever either peer does or leaves.
package imapfilter
