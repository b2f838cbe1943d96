// SPDX-License-Identifier: Apache-2.0

// Package upstream opens connections to mail providers that are logged in
// with a mailbox's credential: it dials, secures the connection and
// authenticates. The proxy, probes and rotation use it through
// broker.Upstream; it imports only broker.
//
// Invariants:
//
//   - TLS is verified, always: 1.2 or later, the certificate against the
//     endpoint's CA bundle or the configured roots, its name against the
//     endpoint's host. No setting switches that off. Plain text is spoken with
//     loopback addresses alone.
//   - Nothing is believed that came before TLS: capabilities are asked again,
//     and octets that arrived behind the answer to STARTTLS end the connection
//     (RFC 9051 §11.1, CVE-2011-0411).
//   - "Refused" and "unavailable" are never confused: CredentialRefused is
//     returned only when the server answered the authentication itself, with
//     an answer that does not mean "try again".
//   - A server cannot make it wait or remember without bound: every read and
//     write stands under the caller's context and LoginTimeout, and the octets
//     before each answer are limited.
//   - What the server said becomes part of an error only once it is cleared of
//     the credential in the forms that were sent (see quote).
//   - Copies of the credential that are made for the wire are wiped once they
//     are written. TLS keeps copies of its own, which cannot be reached.
//
// The login clients are small on purpose and strict: the connection is handed
// over afterwards with every octet accounted for, which the clients of go-imap
// and go-smtp cannot do.
package upstream
