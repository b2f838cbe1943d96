// SPDX-License-Identifier: Apache-2.0

package session

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestMailboxOf(t *testing.T) {
	tests := []struct {
		username, identity, agent string
		want                      string
	}{
		{"info@firm.example", "", "anna", "info@firm.example"},
		{"INFO@Firm.Example", "", "anna", "info@firm.example"},
		{"anna/info@firm.example", "", "anna", "info@firm.example"},
		{"Anna/Info@firm.example", "", "ANNA", "info@firm.example"},
		{"bob/info@firm.example", "", "anna", "bob/info@firm.example"}, // nobody's address
		{"anna@bpo.example/info@firm.example", "", "anna@bpo.example", "info@firm.example"},
		{"a/b@firm.example", "", "anna", "a/b@firm.example"},
		{"anna/a/b@firm.example", "", "anna", "a/b@firm.example"},
		{"anna", "", "anna", "anna"}, // nobody's address
		{"", "", "anna", ""},
		{"anna/", "", "anna", ""},
		{"/info@firm.example", "", "", "/info@firm.example"},
		{"anna", "info@firm.example", "anna", "info@firm.example"},
		{"ANNA", "anna/info@firm.example", "anna", "info@firm.example"},
		{"", "info@firm.example", "anna", "info@firm.example"},
		{"info@firm.example", "INFO@firm.example", "anna", "info@firm.example"},
		{"anna/info@firm.example", "info@firm.example", "anna", "info@firm.example"},
		{"bob", "info@firm.example", "anna", ""},
		{"bob/info@firm.example", "info@firm.example", "anna", ""},
		{"info@firm.example", "other@firm.example", "anna", ""},
		{"info@firm.example", "bob/info@firm.example", "anna", ""},
		{"info@firm.example\r\n", "", "anna", ""},
		{"info@firm.example", "info@firm.example\x00", "anna", ""},
		{"\xff@firm.example", "", "anna", ""},
		{strings.Repeat("a", maxUsername) + "@firm.example", "", "anna", ""},
	}
	for _, test := range tests {
		got, ok := mailboxOf(test.username, test.identity, test.agent)
		if got != test.want && ok || ok != (test.want != "") {
			t.Errorf("mailboxOf(%.40q, %q, %q) = %q, %v; want %q", test.username, test.identity, test.agent, got, ok, test.want)
		}
	}
}

func FuzzMailboxOf(f *testing.F) {
	f.Add("anna/info@firm.example", "info@firm.example", "anna")
	f.Fuzz(func(t *testing.T, username, identity, agent string) {
		address, ok := mailboxOf(username, identity, agent)
		if !ok {
			return
		}
		// The address stands, whole and at the end, in what names the mailbox.
		named := identity
		if named == "" {
			named = username
		}
		if address == "" || !strings.HasSuffix(strings.ToLower(named), address) {
			t.Errorf("mailboxOf(%q, %q, %q) = %q", username, identity, agent, address)
		}
	})
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\r\nb\xff", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 1000 {
			return
		}
		got := oneLine(s, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x00") {
			t.Errorf("oneLine(%q, %d) = %q", s, limit, got)
		}
	})
}

func TestAdvise(t *testing.T) {
	for _, test := range []struct{ text, contact, want string }{
		{"Locked.", "Priya", "Locked. Ask Priya."},
		{"Locked", "Priya.", "Locked. Ask Priya."},
		{"Stop!", "", "Stop! Ask your supervisor."},
		{"Stop\r\nA1 OK", "x\r\ny", "Stop  A1 OK. Ask x  y."},
	} {
		if got := advise(test.text, test.contact); got != test.want {
			t.Errorf("advise(%q, %q) = %q, want %q", test.text, test.contact, got, test.want)
		}
	}
}
