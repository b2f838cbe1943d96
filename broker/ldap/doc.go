// SPDX-License-Identifier: Apache-2.0

// Package ldap asks an LDAP directory (OpenLDAP, Active Directory, 389) whether
// a password is an agent's: it is the broker.Directory.
//
// Invariants:
//
//   - No octet of a password goes out but over TLS whose certificate was
//     verified for the configured host: ldaps, or StartTLS and nothing before
//     it. Nothing switches that off.
//   - A bind is asked for with a name and a password that are not empty. A yes
//     to anything less proves nothing (RFC 4513 §5.1.1, §5.1.2).
//   - An account's name is escaped wherever it stands: in a filter (RFC 4515
//     §3) and in a name (RFC 4514 §2.4).
//   - Referrals are not followed: passwords go to the configured servers alone.
//   - A question ends within Config.Timeout, reads at most maxAnswer octets,
//     and fails at once while the breaker is open or too many are under way.
//   - Yes, no and "cannot say" are told apart by a closed list of result codes;
//     what is not on it is an outage.
//
// Each question has a connection of its own, which no other inherits: a
// connection that was bound as one must never answer for another. cmd/postern
// makes a Directory; broker/session asks it.
package ldap
