// SPDX-License-Identifier: Apache-2.0

// Package driver has the drivers, which change a mailbox's password at its
// provider: the upstream part of a rotation.
//
//	ldap    RFC 3062's password modify, or Active Directory's unicodePwd
//	sql     an UPDATE in the provider's PostgreSQL, with a hash of Dovecot's
//	http    requests to a panel's API, described by settings
//	exec    a program of the operator's
//	manual  nobody but a person
//
// cmd/postern makes them with New and gives them to the rotation; nobody else
// calls them. deployments/README.md says how each is set up.
//
// Invariants:
//
//   - NotApplied is said only of what is certain: nothing that could change the
//     password was sent, or the provider answered that it refuses. All else is
//     OutcomeUnknown.
//   - TLS is verified, always, against the settings' CA or the configured roots.
//     Nothing of the environment has a say, and no redirect, referral or proxy
//     is followed: a secret goes to the configured host alone.
//   - A provider cannot make a driver wait or remember without bound: each
//     conversation ends with the caller's context, and after Config.Timeout at
//     the latest, and its octets are limited.
//   - Names of mailboxes go into a DN, a filter, a path, a form, a statement or
//     a JSON document only escaped for that place, or as a parameter.
//   - No error holds a secret: what a provider or a library said passes through
//     package redact with every secret of the change, in the forms that it may
//     have been written in.
//   - Settings are a firm's people's. They can name hosts, and of programs only
//     those that the server's configuration names.
package driver
