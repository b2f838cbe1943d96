// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-mail/postern/policy"
)

func TestSliceKeys(t *testing.T) {
	// The day is that of the zone, though it is still the day before in UTC.
	day := time.Date(2026, 3, 1, 2, 0, 0, 0, time.FixedZone("IST", 19800))
	tests := []struct{ slice, keys string }{
		{"ALL", "ALL"},
		{"SINCE @-30d NOT KEYWORD Privileged", "SINCE 30-Jan-2026 NOT KEYWORD Privileged"},
		{"since @-0d", "SINCE 1-Mar-2026"},
		{"before @-1d", "BEFORE 28-Feb-2026"},
		{`SENTSINCE "01-feb-2024" ON 29-Feb-2024`, "SENTSINCE 1-Feb-2024 ON 29-Feb-2024"},
		{`OR (FROM a@b.example SUBJECT "x \"y\" \\z") NOT (TO c UNSEEN)`, `OR (FROM "a@b.example" SUBJECT "x \"y\" \\z") NOT (TO "c" UNSEEN)`},
		{`HEADER List-Id "" LARGER 10 SMALLER 2000000 BODY a]b`, `HEADER "List-Id" "" LARGER 10 SMALLER 2000000 BODY "a]b"`},
		{`NOT NOT FLAGGED`, `NOT NOT FLAGGED`},
	}
	for _, test := range tests {
		program, err := policy.Slice(test.slice).Parse()
		if err != nil {
			t.Errorf("%s: %v", test.slice, err)
			continue
		}
		if got := program.Keys(day); got != test.keys {
			t.Errorf("%s\n got %s\nwant %s", test.slice, got, test.keys)
		}
	}
}

func TestSliceRefused(t *testing.T) {
	tests := []struct{ slice, reason string }{
		{"", "wanted here"},
		{" ALL", "wanted here"},
		{"ALL ", "wanted here"},
		{"ALL  SEEN", "wanted here"},
		{"ALL\tSEEN", "one space"},
		{"ALL\r\nA1 LOGOUT", "one space"},
		{"ALL\x00", "one space"},
		{"EVERYTHING", "at octet 1: there is no search key EVERYTHING"},
		{"1:*", "slice cannot use"},
		{"SEEN 4,7", "at octet 6"},
		{"*", "wanted here"},
		{"$", "slice cannot use"},
		{"UID 1", "slice cannot use"},
		{"RECENT", "slice cannot use"},
		{"MODSEQ 1", "slice cannot use"},
		{"YOUNGER 60", "slice cannot use"},
		{"CHARSET UTF-8 ALL", "slice cannot use"},
		{"FROM {1}", "literal"},
		{"FROM {1+}\r\nx", "literal"},
		{"FROM", "one space"},
		{"FROM ", "wanted here"},
		{`FROM "x`, "not closed"},
		{`FROM "x\n"`, "quoted by"},
		{"FROM \"x\r\ny\"", "control"},
		{"FROM \"ü\"", "ASCII"},
		{"FROM ü", "ASCII"},
		{`FROM "x"y`, "one space"},
		{"KEYWORD \\Seen", "keyword"},
		{`KEYWORD "a"`, "keyword"},
		{"HEADER", "one space"},
		{`HEADER "a b" x`, "header field"},
		{`HEADER "" x`, "header field"},
		{"LARGER -1", "number"},
		{"LARGER +1", "number"},
		{"LARGER 99999999999999999999", "number"},
		{"SINCE 30-Feb-2026", "date"},
		{"SINCE 1-Feb-26", "date"},
		{"SINCE @-30", "@-30d"},
		{"SINCE @--3d", "@-30d"},
		{"SINCE @-d", "@-30d"},
		{"SINCE @-99999d", "days"},
		{"SINCE @30d", "date"},
		{"NOT", "one space"},
		{"NOT ", "wanted here"},
		{"OR SEEN", "one space"},
		{"(SEEN", "missing"},
		{"SEEN)", "too many"},
		{"()", "wanted here"},
		{"( SEEN)", "wanted here"},
		{strings.Repeat("NOT ", policy.MaxSliceDepth+1) + "SEEN", "deeper"},
		{strings.Repeat("(", policy.MaxSliceDepth+1), "deeper"},
		{`FROM "` + strings.Repeat("a", policy.MaxSlice) + `"`, "longer"},
		{"SEEN UNSEEN", "contradicts"},
		{"NOT KEYWORD a FROM x KEYWORD a", "contradicts"},
		{"KEYWORD a UNKEYWORD a", "contradicts"},
		{"NOT UNSEEN UNSEEN", "contradicts"},
		{"NOT ALL", "contradicts"},
	}
	for _, test := range tests {
		program, err := policy.Slice(test.slice).Parse()
		if err == nil {
			t.Errorf("%q is taken for %s", test.slice, program)
		} else if !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%q: %v; want %q", test.slice, err, test.reason)
		}
		if test.slice == "" {
			continue
		}
		if field, reason := (policy.Terms{Actions: policy.List, Slice: policy.Slice(test.slice)}).Validate(); field != "slice" || reason != err.Error() {
			t.Errorf("%q: Validate = %q, %q", test.slice, field, reason)
		}
	}
}

func TestSliceFlags(t *testing.T) {
	program, err := policy.Slice("NOT KEYWORD Privileged OR UNSEEN (FLAGGED UNKEYWORD privileged) SINCE 1-Jan-2026").Parse()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Privileged", `\Seen`, `\Flagged`}, program.Flags()); diff != "" {
		t.Error(diff)
	}
	if program.Relative() {
		t.Error("it is said to change from day to day")
	}
	if program, _ = policy.Slice("NOT (OR BEFORE @-1d ALL)").Parse(); !program.Relative() {
		t.Error("it is said not to change from day to day")
	}
}

// FuzzSlice holds what is sent upstream: one line of ASCII that parses to
// itself, and holds no literal.
func FuzzSlice(f *testing.F) {
	for _, s := range []string{"ALL", "SINCE @-30d NOT KEYWORD x", `OR (FROM "a\"b") HEADER a {3}`, "NOT 1:*", "FROM \"\r\n\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		program, err := policy.Slice(s).Parse()
		if err != nil {
			return
		}
		keys := program.Keys(now)
		for i := range len(keys) {
			if keys[i] < ' ' || keys[i] > '~' {
				t.Fatalf("%q renders as %q", s, keys)
			}
		}
		again, err := policy.Slice(keys).Parse()
		if len(keys) > policy.MaxSlice {
			return // quotes were added
		}
		if err != nil || again.Keys(now) != keys || again.Relative() {
			t.Fatalf("%q renders as %q, which renders as %q, %v", s, keys, again, err)
		}
		if program.String() != keys && !program.Relative() {
			t.Fatalf("%q is %q, and renders as %q", s, program, keys)
		}
	})
}

// message is what a slice looks at, in a small world.
type message struct {
	seen, keyword bool
	day           int
	// fromProvider: it is from provider.example; code: its subject speaks of one.
	fromProvider, code bool
}

// shows is an independent reading of the few keys that drawSlice draws.
func shows(s policy.Slice, m message) bool {
	switch { // what recovery mail is hidden by
	case s == `NOT FROM "provider.example"`:
		return !m.fromProvider
	case strings.HasPrefix(string(s), "NOT SUBJECT "):
		return !m.code
	}
	words := strings.Fields(string(s))
	for i := 0; i < len(words); i++ {
		want := true
		if words[i] == "NOT" {
			want = false
			i++
		}
		var holds bool
		switch words[i] {
		case "SEEN":
			holds = m.seen
		case "KEYWORD":
			i++
			holds = m.keyword
		case "SINCE":
			i++
			holds = m.day >= int(words[i][0]-'0')
		}
		if holds != want {
			return false
		}
	}
	return true
}

func drawSlice(t *rapid.T, label string) policy.Slice {
	keys := rapid.SliceOfN(rapid.SampledFrom([]string{
		"SEEN", "NOT SEEN", "KEYWORD x", "NOT KEYWORD x", "SINCE 2-Jan-2026", "SINCE 3-Jan-2026", "NOT SINCE 3-Jan-2026",
	}), 0, 3).Draw(t, label+" slice")
	return policy.Slice(strings.Join(keys, " "))
}

func drawMessage(t *rapid.T) message {
	return message{
		rapid.Bool().Draw(t, "seen"), rapid.Bool().Draw(t, "keyword"), rapid.IntRange(1, 4).Draw(t, "day"),
		rapid.Bool().Draw(t, "from the provider"), rapid.Bool().Draw(t, "code"),
	}
}
