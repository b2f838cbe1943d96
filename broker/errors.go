// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"fmt"
)

// Code tells one kind of failure from another. A refusal and an outage never
// share one.
type Code string

// The codes.
const (
	// Invalid: the input is wrong; Field says where. Repeating it won't help.
	Invalid Code = "invalid"
	// NotFound: no such thing, or none that the caller may know of.
	NotFound Code = "not-found"
	// Conflict: it exists already, or changed meanwhile.
	Conflict Code = "conflict"
	// Denied: an unknown token, certificate or combination. The public text
	// is one for all of them.
	Denied Code = "denied"
	// Refused: a known agent at his own workstation may not do this now; the
	// public text says why, and whom to ask.
	Refused Code = "refused"
	// Limit: a budget is used up; later it may work.
	Limit Code = "limit"
	// Unavailable: Vault, the upstream or the store is out of reach or too
	// slow; the client may retry.
	Unavailable Code = "unavailable"
	// CredentialRefused: the upstream refused the credential. Never used for
	// an outage.
	CredentialRefused Code = "credential-refused"
	// Internal: a fault of Postern's.
	Internal Code = "internal"
)

// Reasons of CredentialRefused that are about a consent and not about a login:
// the issuer of tokens gives none any more, until the firm consents again.
// ReasonConsentKnown is for those who are told after the first: the issuer was
// not asked again.
const (
	ReasonConsent      = "consent"
	ReasonConsentKnown = "consent-known"
)

// Error is a failure with a public text. Public alone reaches a client; Cause
// is for the log.
type Error struct {
	Code   Code
	Public string
	// Field is the input's name for Invalid, in the API's spelling.
	Field string
	// Reason is a short constant for records and metrics, such as
	// policy.ReasonLocked; it may be empty.
	Reason string
	Cause  error
}

// Error returns everything, for logs.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Public
	if e.Field != "" {
		s = string(e.Code) + ": " + e.Field + ": " + e.Public
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an error whose public text is formatted. What must not be
// public goes into WithCause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Public: fmt.Sprintf(format, args...)}
}

// WithCause sets the cause and returns e.
func (e *Error) WithCause(err error) *Error {
	e.Cause = err
	return e
}

// InvalidField makes an Invalid error about one input.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{Code: Invalid, Field: field, Public: fmt.Sprintf(format, args...)}
}

// CodeOf returns err's code; what has none is Internal, and nil is "".
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// PublicText returns what a client may be told of err.
func PublicText(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Public != "" {
		return e.Public
	}
	return "internal error"
}
