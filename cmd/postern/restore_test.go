// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestRestoreTellsWhatToDoAgain: what guards or keeps something is not lost among
// the rest.
func TestRestoreTellsWhatToDoAgain(t *testing.T) {
	var out bytes.Buffer
	tellLost(&out, map[broker.EventType]int64{
		"hold.created": 1, "person.removed": 2, "delegation.revoked": 3, "canary.created": 4, "witness.removed": 5, "message.open": 60, "agent.created": 7,
	})
	for _, want := range []string{"1 × hold.created", "2 × person.removed", "3 × delegation.revoked", "4 × canary.created", "5 × witness.removed", "67 events more"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}
