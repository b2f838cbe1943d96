// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"encoding/json"
)

// Driver replaces passwords at one kind of provider: the upstream part of a
// rotation. Those there are lie in broker/rotation/driver.
//
// A driver keeps nothing of a change after Set has returned, writes no secret
// anywhere but to the provider, and is safe for concurrent use.
type Driver interface {
	// Check reports what is wrong with the settings of a provider and of one of
	// its mailboxes: Invalid, with the field's name below "provider." or
	// "mailbox.". It talks to nobody.
	Check(provider, mailbox json.RawMessage) error
	// Set asks the provider to make change.New the password. nil says that the
	// provider says so, which is not believed until a login has shown it. Else
	// the error is a *DriverError. It ends soon after ctx does, and may be called
	// again with the same change.
	Set(ctx context.Context, change *PasswordChange) error
}

// PasswordChange is one change that a driver is asked for. Whoever made it
// wipes its secrets when Set has returned.
type PasswordChange struct {
	Mailbox *Mailbox
	// Username is the login name upstream.
	Username string
	// Old is empty where it is not known.
	Old, New Secret
	// Provider and Settings are the settings of the provider and of the mailbox
	// there, neither of them secret; nil: none.
	Provider, Settings json.RawMessage
	// Account is what the driver logs in to the provider with; nil: it has none.
	Account *ProviderAccount
}

// ProviderAccount is what a driver logs in to a provider with. It lives in
// Vault, where only the rotator's role reads it.
type ProviderAccount struct {
	Username string
	Secret   Secret
	// Version is the storage's, for check-and-set; 0: not stored yet.
	Version int
}

// Kicker is a driver that can end what sessions the provider has of a mailbox,
// other people's among them.
type Kicker interface {
	Kick(ctx context.Context, change *PasswordChange) error
}

// Inspector is a driver that can list what else leads into a mailbox.
type Inspector interface {
	Inspect(ctx context.Context, change *PasswordChange) (*Inspection, error)
}

// Inspection is what else leads into a mailbox, or out of it, in the provider's
// own words: names and addresses, never a secret.
type Inspection struct {
	ForwardingRules []string `json:"forwarding_rules,omitempty"`
	AppPasswords    []string `json:"app_passwords,omitempty"`
	Delegates       []string `json:"delegates,omitempty"`
}

// PasswordPolicy is what a generated password is made of.
type PasswordPolicy struct {
	// Length is in characters.
	Length int
	// Classes are sets of ASCII characters; each gives at least one.
	Classes []string
}

// PasswordRules is a driver whose provider wants other passwords than the
// usual: 32 letters and digits.
type PasswordRules interface {
	PasswordPolicy(provider, mailbox json.RawMessage) PasswordPolicy
}

// DriverOutcome is what is known of a change that did not succeed.
type DriverOutcome string

// The outcomes. Neither is believed before logins have shown what is true.
const (
	// NotApplied: the provider refused, or was never asked.
	NotApplied DriverOutcome = "not-applied"
	// OutcomeUnknown: it was asked, and no answer that can be understood came.
	OutcomeUnknown DriverOutcome = "unknown"
)

// DriverReason is why a change did not succeed.
type DriverReason string

// The reasons.
const (
	// DriverAccountRefused: the provider refused the provider account, or
	// allows it no such change.
	DriverAccountRefused DriverReason = "account-refused"
	// DriverPasswordPolicy: the new password breaks the provider's rules.
	DriverPasswordPolicy DriverReason = "password-policy"
	// DriverUnavailable: it is out of reach, too slow, or says to try later.
	DriverUnavailable DriverReason = "unavailable"
	// DriverMisconfigured: the settings do not fit the provider.
	DriverMisconfigured DriverReason = "misconfigured"
	// DriverUnknownMailbox: the provider knows no such mailbox.
	DriverUnknownMailbox DriverReason = "unknown-mailbox"
)

// MaxDriverWords bounds a provider's words, in octets.
const MaxDriverWords = 200

// DriverError is why a change did not succeed.
type DriverError struct {
	Outcome DriverOutcome
	Reason  DriverReason
	// Words are the provider's own, without controls and without anything of the
	// secrets, at most MaxDriverWords octets; may be empty.
	Words string
	Cause error
}

// Error returns everything, for logs.
func (e *DriverError) Error() string {
	s := "the provider: " + string(e.Reason) + ", " + string(e.Outcome)
	if e.Words != "" {
		s += ": " + e.Words
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *DriverError) Unwrap() error { return e.Cause }
