// SPDX-License-Identifier: Apache-2.0

package store

import "testing"

// TestMessageIDsAsPeopleAsk: whatever the sender writes around a Message-ID, it is
// found as mail clients show it.
func TestMessageIDsAsPeopleAsk(t *testing.T) {
	for field, want := range map[string]string{
		"<a@x.example>":        "<a@x.example>",
		"a@x.example":          "<a@x.example>",
		"<a@x.example> (x)":    "<a@x.example>",
		"a@x.example b":        "<a@x.example>",
		"a@x.example>":         "<a@x.example>",
		"(c) < a @ x.example>": "<a@x.example>",
		"<a@x.example":         "<a@x.example>",
		"":                     "",
		" ":                    " ",
		"<>":                   "<>",
	} {
		if got := messageID(field); got != want {
			t.Errorf("%q is %q, want %q", field, got, want)
		}
	}
}
