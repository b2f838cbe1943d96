// SPDX-License-Identifier: Apache-2.0

// Package people knows who manages Postern: it makes the API tokens and claims
// that [broker.People] keeps the hashes of, and tells whom a bearer token
// speaks for.
//
// Invariants:
//
//   - A token has 256 random bits, is shown once, and is kept as HMAC-SHA-256
//     under a key that is derived for this purpose alone: no app password is an
//     API token, and no API token a claim.
//   - Whatever is wrong with a token, the answer is one text, [broker.Denied].
//   - An issuer's token lets in whom somebody of his own side noted with that
//     identity, or gives a role of the BPO by a claim. It makes nobody a firm's.
//   - What a person may do is not known here: that is the API's table.
//
// broker/httpapi and cmd/postern call it.
package people
