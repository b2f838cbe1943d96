// SPDX-License-Identifier: Apache-2.0

// Package companyca knows workstations by the certificates of a company's own
// CAs. Such a CA (Active Directory Certificate Services and the like) renews
// thousands of machines' certificates with new keys: no key can be pinned. The
// configuration names an authority, which is one or more CA certificates, and a
// rule: what in a certificate names its workstation.
//
// Invariants:
//
//   - An authority's certificates are those that one of its CAs signed itself.
//     What a CA below it signed is not the authority's, whatever chain a client
//     shows: whoever runs the printers' CA names no workstations. So there are
//     no intermediates, no cross-signed paths, and the constraints on names are
//     those of the one certificate that the administrator gave.
//
//   - A CA, by name and key, belongs to one authority, and to none if it is
//     Postern's own. A name counts under its authority alone.
//
//   - A certificate that such a CA signed is the authority's to judge: if it is
//     not fit (expired, for no client, a CA's own, outside the CA's name
//     constraints), nothing else makes it good, a pinned key included.
//
//   - A certificate names one workstation or none. Two names of the kind that
//     the rule goes by are none.
//
//   - Names are compared octet by octet, those of DNS without regard to the case
//     of ASCII letters (RFC 4343).
//
//   - What a CA has revoked is what its newest list says, by the key that signed
//     it. A list that is older, is not complete or is not understood is none. One
//     that is out of date still says what was revoked.
//
//   - Whoever asks about a certificate after a list was taken over is answered by
//     that list; subscribers are called after it is in use. So a session that is in
//     a table before it asks is ended by one of the two.
//
// Callers: cmd/postern makes it; broker/session and broker/httpapi ask it by
// [broker.CompanyCAs].
package companyca
