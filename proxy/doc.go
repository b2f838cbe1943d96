// SPDX-License-Identifier: Apache-2.0

// Package proxy accepts the agents' connections: listeners, PROXY protocol,
// TLS with client certificates, and the limits that hold until a client has
// authenticated. What is spoken on a connection is a Handler's business
// (proxy/imapfilter, proxy/submission); cmd/postern joins the two.
//
// Invariants:
//
//   - Between the socket and TLS there is one wrapper, which takes the PROXY
//     header off and keeps the deadlines. A PROXY header is demanded from
//     trusted balancers and from nobody else is it read.
//   - A connection without a certificate of a known workstation CA gets no
//     further than the handshake, unless its address lies in a network-only
//     site. An address that a balancer could not tell is in no site.
//   - Until Conn.Authenticated, the connection holds a place in the Lobby and
//     cannot live past its deadline, whatever its handler does. When places
//     run out, the oldest connection of whoever has the most of them goes, so
//     that strangers push out strangers; handshakes that have begun and holders
//     of a certificate have places of their own.
//   - No more handshakes compute at once than there are processors, and
//     addresses take turns at it.
//   - Conn.Kill closes the socket and waits for no lock, no write and no peer.
//   - A panic ends the connection it happened on and no other.
//
// Goroutines: one per listener, one per connection (its handler runs on it),
// one for Certificates.Run. Server.Run returns when all of its own have.
package proxy
