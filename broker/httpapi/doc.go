// SPDX-License-Identifier: Apache-2.0

// Package httpapi is Postern's management API: HTTP with JSON bodies, its
// OpenAPI 3.1 description under /v1/openapi.json, errors as RFC 9457 problems.
//
// It decides nothing about mail. It resolves names to ids, hands what it was
// given to [broker.State] and [broker.Credentials], and says what came of it.
//
// Invariants:
//
//   - Every request has a [broker.Actor] in its context before a handler runs;
//     one without is answered 403. Who puts it there is the listener's affair:
//     [Server] does it for Unix sockets, from the peer's credentials.
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
