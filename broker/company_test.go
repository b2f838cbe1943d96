// SPDX-License-Identifier: Apache-2.0

package broker_test

import (
	"slices"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// TestRevocationListsAlert: a list that is about to end, or has, is an alert of
// its CA's own, which a newer list ends; one that is refused changes nothing.
func TestRevocationListsAlert(t *testing.T) {
	for state, want := range map[broker.ListState][]broker.AlertChange{
		broker.ListTaken:    {{Kind: broker.AlertRevocationList, Subject: "a/CN=CA", Resolves: true}},
		broker.ListExpiring: {{Kind: broker.AlertRevocationList, Subject: "a/CN=CA", Severity: broker.SeverityWarning, Detail: "expiring"}},
		broker.ListStale:    {{Kind: broker.AlertRevocationList, Subject: "a/CN=CA", Severity: broker.SeverityCritical, Detail: "stale"}},
		broker.ListMissing:  {{Kind: broker.AlertRevocationList, Subject: "a/CN=CA", Severity: broker.SeverityCritical, Detail: "missing"}},
		broker.ListRefused:  nil,
	} {
		got, err := broker.AlertChanges(&broker.Event{
			Type: broker.EventAuthorityList, Data: broker.AuthorityList{Authority: "a", Issuer: "CN=CA", State: state},
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", state, got, err, want)
		}
	}
}
