// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
)

// TestProgressSaysWhatKeepsPasswords: an ended rotation that still keeps what it made
// says why, beside how it ended.
func TestProgressSaysWhatKeepsPasswords(t *testing.T) {
	for want, r := range map[string]broker.Rotation{
		"kept-old (no); a server is out of reach": {State: broker.RotationEnded, Outcome: broker.RotationKeptOld, Words: "no", Waiting: "a server is out of reach"},
		"done":                 {State: broker.RotationEnded, Outcome: broker.RotationDone, Words: "thanks"},
		"asked: for the while": {State: broker.RotationAsked, Waiting: "for the while"},
	} {
		if got := progress(&httpapi.Rotation{Rotation: r}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
