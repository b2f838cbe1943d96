// SPDX-License-Identifier: Apache-2.0

// Package oauth logs in to mailboxes whose providers take access tokens and no
// passwords. Its Upstream stands before another broker.Upstream: from a
// credential of a kind that mints tokens it gets an access token, of the
// issuer that the credential names, and hands that on as one of kind
// access-token. Everything else passes as it is.
//
// cmd/postern makes an Upstream with New and keeps Run going; everything else
// sees a broker.Upstream.
//
// What such a credential holds is a Document: JSON, with a version, strict. It
// is read from the storage for each login like any other, so that whoever
// takes it away there ends what the mailbox can be opened with; the token that
// it was exchanged for is kept beside, in memory alone.
//
// Invariants:
//
//   - A token is kept under the credential that it was minted from, and given
//     to nobody who does not bring that credential.
//   - For one credential at most one request is under way, however many wait
//     for it. It belongs to none of them: none who leaves ends it.
//   - A token is renewed before it ends, at an instant that differs from one to
//     the next, while the old one still serves. How long it lives is counted
//     by this machine's clock from the request on; the issuer's clock counts
//     in assertions alone, and is learnt from its answers.
//   - An upstream's refusal of a token that was kept gets one new token, and no
//     second within renewPause. No failure of a login changes what is stored.
//   - "Refused" and "unavailable" are never confused: refused is what the
//     issuer says with an error of RFC 6749 §5.2 about the grant or the client.
//     That is remembered for a while, as is an outage, so that clients that try
//     again and again do not hammer the issuer.
//   - A refresh token that came in exchange for another is stored by
//     check-and-set before the login goes on. Before the exchange the storage
//     was read, and its write path tried (see rotate.go for what is left).
//   - The issuer is spoken to by https with a verified certificate, on port 443
//     of public addresses, unless Config.Networks say otherwise. No redirect is
//     followed, no proxy used, and answers are bounded.
//   - Of a mail server's words what looks like a token is cut out: it was shown
//     others than the one that it refuses now.
//   - Of an issuer's answer only the error's code, if it is a known one, gets
//     into an error or a log: the rest may repeat what was sent.
package oauth
