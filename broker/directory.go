// SPDX-License-Identifier: Apache-2.0

package broker

import "context"

// Directory is where agents have their passwords who have none of Postern's:
// broker/ldap.
//
// Errors of both methods: Denied, whose Reason says for the log what was wrong
// with the account or its password; Unavailable when the directory is down,
// slow, full, wrongly set up, or answers anything but yes or no. An outage is
// never Denied.
type Directory interface {
	// Check reports whether password is the account's, by a bind. An empty one
	// is Denied without asking anybody: a directory may say yes to it (RFC 4513
	// §5.1.2). It keeps no copy of the password.
	Check(ctx context.Context, account string, password Secret) error
	// Look reports whether the account is there and enabled. Denied with
	// ReasonNoLookUp where the directory cannot be searched.
	Look(ctx context.Context, account string) error
}

// Reasons of a Directory's Denied.
const (
	ReasonPassword  = "directory-password"  // not the account's
	ReasonNoAccount = "directory-account"   // no such account, or several
	ReasonDisabled  = "directory-disabled"  // it is disabled, locked or expired
	ReasonNoLookUp  = "directory-no-lookup" // nobody may search it
)
