// SPDX-License-Identifier: Apache-2.0

// Package httpapi is Postern's management API: HTTP with JSON bodies, its
// OpenAPI 3.1 description under /v1/openapi.json, errors as RFC 9457 problems.
//
// It decides nothing about mail. It resolves names to ids, hands what it was
// given to [broker.State] and [broker.Credentials], and says what came of it.
//
// Invariants:
//
//   - Every request has a [Principal] in its context before a handler runs: the
//     person of its bearer token or, on the Unix socket without a token, the
//     BPO's admin that the peer's credentials make. One without is answered
//     401. Operations that need no token are named in the table of rules.
//   - Which roles may call an operation stands in that one table, and is asked
//     before anything of the request is looked at. An operation that is not in
//     it keeps the server from starting.
//   - A firm's people read nothing but through [firmReads], which looks among
//     what is the firm's alone: another firm's thing is as little there, and
//     takes as long to look for, as one that nobody has.
//   - No route reads a credential, and none returns one. The one route that
//     takes a credential parses its body itself, with answers that are fixed
//     texts: no octet of the body can reach an answer or a log line.
//   - A client is told the public text of an error and nothing else; the cause
//     goes to the log.
//   - A stored credential never goes to an endpoint other than those it was
//     checked against: changing an endpoint removes it.
//
// cmd/postern is its only caller, as server and (for the types) as client.
package httpapi
