// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

// attempt is one change under way: the names that go into templates, and what
// must not be in an error.
type attempt struct {
	*broker.PasswordChange
	names  map[string]string
	hidden [][]byte
}

// The names of a mailbox that templates and statements may use.
const (
	nameAddress  = "address"
	nameLocal    = "local"    // the address before its last @
	nameDomain   = "domain"   // and behind it
	nameUsername = "username" // the login name upstream
)

func isMailboxName(name string) bool {
	return name == nameAddress || name == nameLocal || name == nameDomain || name == nameUsername
}

// newAttempt refuses, as NotApplied, what no provider should be asked. The
// caller calls done.
func newAttempt(c *broker.PasswordChange) (*attempt, error) {
	a := &attempt{PasswordChange: c}
	a.hide(c.Old.Reveal(), c.New.Reveal())
	if c.Account != nil {
		a.hide(c.Account.Secret.Reveal())
	}
	address, at := "", -1
	if c.Mailbox != nil {
		address = c.Mailbox.Address
		at = strings.LastIndexByte(address, '@')
	}
	if at < 0 {
		return a, a.misconfigured(errors.New("the mailbox has no address"))
	}
	a.names = map[string]string{
		nameAddress: address, nameLocal: address[:at], nameDomain: address[at+1:], nameUsername: c.Username,
	}
	for name, value := range a.names {
		if value == "" || !utf8.ValidString(value) || strings.ContainsFunc(value, isControl) {
			return a, a.misconfigured(fmt.Errorf("the mailbox's %s is empty, no UTF-8, or holds a control character", name))
		}
	}
	if c.New.Empty() {
		// LDAP servers make up a password of their own then (RFC 3062 §2).
		return a, a.misconfigured(errors.New("the new password is empty"))
	}
	return a, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// hide keeps secrets out of all errors from now on.
func (a *attempt) hide(secrets ...[]byte) {
	for _, s := range secrets {
		a.hidden = append(a.hidden, redact.Forms(s)...)
	}
}

// done wipes what the attempt has copied.
func (a *attempt) done() {
	for _, h := range a.hidden {
		clear(h)
	}
}

// account returns the provider account, which a driver cannot do without.
func (a *attempt) account() (*broker.ProviderAccount, error) {
	if a.Account == nil || a.Account.Secret.Empty() {
		return nil, a.misconfigured(errors.New("the provider has no account"))
	}
	return a.Account, nil
}

// failed makes the error that leaves this package: all that is in it is cleaned
// of the attempt's secrets.
func (a *attempt) failed(outcome broker.DriverOutcome, reason broker.DriverReason, words string, cause error) *broker.DriverError {
	e := &broker.DriverError{
		Outcome: outcome, Reason: reason,
		Words: strings.TrimSpace(redact.Words([]byte(words), broker.MaxDriverWords, a.hidden)),
	}
	if cause != nil {
		e.Cause = errors.New(redact.Words([]byte(cause.Error()), maxCause, a.hidden))
	}
	return e
}

func (a *attempt) misconfigured(cause error) error {
	return a.failed(broker.NotApplied, broker.DriverMisconfigured, "", cause)
}

// unreached says that nothing was asked, since the provider is out of reach.
func (a *attempt) unreached(ctx context.Context, cause error) error {
	return a.failed(broker.NotApplied, broker.DriverUnavailable, "", because(ctx, cause))
}

// unanswered says that the provider was asked, and that there is no answer.
func (a *attempt) unanswered(ctx context.Context, cause error) error {
	return a.failed(broker.OutcomeUnknown, broker.DriverUnavailable, "", because(ctx, cause))
}

// because adds that the caller gave up, which explains most other errors.
func because(ctx context.Context, cause error) error {
	if gaveUp := context.Cause(ctx); gaveUp != nil && !errors.Is(cause, gaveUp) {
		return fmt.Errorf("%w: %w", gaveUp, cause)
	}
	return cause
}
