// SPDX-License-Identifier: Apache-2.0

package wiretest

import "testing"

func TestExplains(t *testing.T) {
	for _, tc := range []struct {
		given, got string
		ok         bool
	}{
		{"a NOOP\r\nb NOOP\r\n", "a NOOP\r\nb NOOP\r\n", true},
		{"a NOOP\r\nb NOOP\r\n", "b NOOP\r\n", true},
		{"a NOOP\r\nb NOOP\r\n", "b NOOP\r\na NOOP\r\n", false},
		{"a NOOP\r\n", "a NOOP\r\na NOOP\r\n", false},
		{"a SEARCH SUBJECT {8+}\r\nb NOOP\r\n\r\n", "b NOOP\r\n", false},
		{"a SEARCH SUBJECT {8}\r\nb NOOP\r\n\r\n", "b NOOP\r\n", true}, // the client may not have waited
		{"a SEARCH SUBJECT {1+}\r\nx\r\n", "a SEARCH SUBJECT \"x\"\r\n", true},
		{"a SEARCH SUBJECT {1+}\r\nx\r\n", "a SEARCH SUBJECT \"y\"\r\n", false},
		{"a FETCH 1 BODY[]\r\n", "a FETCH 1 (UID BODY.PEEK[])\r\n", true},
		{"a FETCH 1 BODY[]\r\n", "a FETCH 1 BODY[1]\r\n", false},
		{"a NOOP\nb NOOP\r\n", "b NOOP\r\n", false},
		{"a NOOP\r\n", "pn0123456789-1 IDLE\r\nDONE\r\na NOOP\r\n", true},
		{"a APPEND x {3+}\r\nabc\r\nb NOOP\r\n", "a APPEND x {3}\r\nabc\r\nb NOOP\r\n", true},
	} {
		got, _ := Lines([]byte(tc.got), false)
		if fault := Unexplained([]byte(tc.given), got); (fault == "") != tc.ok {
			t.Errorf("%q and %q: %q", tc.given, tc.got, fault)
		}
	}
}

// A command that was refused at its literal stands for the whole.
func TestExplainsRefusals(t *testing.T) {
	given := []byte("a SEARCH SUBJECT {15+}\r\nb CREATE x (y\r\n ALL\r\nc NOOP\r\n")
	for got, ok := range map[string]bool{"a SEARCH SUBJECT {15}\r\n": true, "a SEARCH BODY {15}\r\n": false, "b CREATE x\r\n": false} {
		if fault := Unexplained(given, [][]byte{[]byte(got), []byte("c NOOP\r\n")}); (fault == "") != ok {
			t.Errorf("%q: %q", got, fault)
		}
	}
}
