// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"encoding/json"

	"github.com/postern-mail/postern/broker"
)

// Manual is for providers that only a person can change passwords at: he sets
// the new one there and enters it, and the rotation verifies it.
type Manual struct{}

var _ broker.Driver = Manual{}

// Check refuses all settings.
func (Manual) Check(provider, mailbox json.RawMessage) error {
	if err := decode(fieldProvider, provider, &struct{}{}); err != nil {
		return err
	}
	return decode(fieldMailbox, mailbox, &struct{}{})
}

// Set changes nothing, and says so.
func (Manual) Set(context.Context, *broker.PasswordChange) error {
	return &broker.DriverError{
		Outcome: broker.NotApplied, Reason: broker.DriverMisconfigured,
		Words: "a person sets the password at the provider, and enters it",
	}
}
