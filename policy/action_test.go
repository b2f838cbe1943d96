// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/postern-mail/postern/policy"
)

func TestActionsAsJSON(t *testing.T) {
	for set := range policy.All + 1 {
		b, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		var got policy.Actions
		if err := json.Unmarshal(b, &got); err != nil || got != set {
			t.Errorf("%s reads as %v, %v", b, got, err)
		}
	}
}

func TestParseActions(t *testing.T) {
	if got, err := policy.ParseActions([]string{"all"}); err != nil || got != policy.All {
		t.Errorf("all is %v, %v", got, err)
	}
	if got, err := policy.ParseActions([]string{"read", "list", "read"}); err != nil || got != policy.Read|policy.List {
		t.Errorf("read, list is %v, %v", got, err)
	}
	for _, name := range []string{"", "Read", "write", "read "} {
		if got, err := policy.ParseActions([]string{"list", name}); err == nil || got != 0 || !strings.Contains(err.Error(), "headers") {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
}
