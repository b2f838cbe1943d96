// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation"
)

// newDrivers makes the drivers that change passwords at providers.
func newDrivers(*Config) (map[string]broker.Driver, error) {
	return map[string]broker.Driver{rotation.ManualDriver: byHand{}}, nil
}

// byHand is the driver of providers that a person changes passwords at: he
// enters them.
type byHand struct{}

// Check refuses settings: there is nobody to read them.
func (byHand) Check(provider, mailbox json.RawMessage) error {
	if len(provider) > 0 {
		return broker.InvalidField("provider", "there are no settings for a person")
	}
	if len(mailbox) > 0 {
		return broker.InvalidField("mailbox", "there are no settings for a person")
	}
	return nil
}

// Set changes nothing, and says so.
func (byHand) Set(context.Context, *broker.PasswordChange) error {
	return &broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverMisconfigured}
}
