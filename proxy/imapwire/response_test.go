// SPDX-License-Identifier: Apache-2.0

package imapwire

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseResponse(t *testing.T) {
	for _, tc := range []struct {
		in      string
		kind    ResponseKind
		keyword string
		number  uint32
	}{
		{"* OK [ALERT] {100}\r\n", ResponseStatus, "OK", 0},
		{"* ok Still here\r\n", ResponseStatus, "ok", 0},
		{"*  12  EXISTS\r\n", ResponseData, "EXISTS", 12},
		{"* 12 fetch (FLAGS ())\r\n", ResponseFetch, "fetch", 12},
		{"* 12 FETCH(FLAGS ())\r\n", ResponseFetch, "FETCH", 12},
		{"a1 OK done\r\n", ResponseTagged, "OK", 0},
		{"a1 MAYBE done\r\n", ResponseBroken, "", 0},
		{"+ idling\r\n", ResponseContinue, "", 0},
		{"+\r\n", ResponseContinue, "", 0},
		{"* \r\n", ResponseBroken, "", 0},
		{"\r\n", ResponseBroken, "", 0},
		{"* BYE\r\n", ResponseStatus, "BYE", 0},
		{"a1 NO\t[REFERRAL x] y\r\n", ResponseBroken, "", 0},
		{"* OK\x18[REFERRAL x] y\r\n", ResponseBroken, "", 0},
		{"* 1\t EXISTS\r\n", ResponseBroken, "", 0},
		{"* 1 FETCH\t(FLAGS ())\r\n", ResponseBroken, "", 0},
		{"* SEARCH\r\n", ResponseData, "SEARCH", 0},
		{"* 99999999999 EXISTS\r\n", ResponseData, "99999999999", 0},
	} {
		r := ParseResponse([]byte(tc.in))
		if r.Kind != tc.kind || (tc.keyword != "" && string(r.Keyword) != tc.keyword) || r.Number != tc.number {
			t.Errorf("%q: %+v keyword %q", tc.in, r, r.Keyword)
		}
	}
}

func TestCode(t *testing.T) {
	for in, want := range map[string]string{
		" [UIDNEXT 5] next":                 "UIDNEXT|5|next",
		" [READ-ONLY]":                      "READ-ONLY||",
		" no code [X] here":                 "||no code [X] here",
		` [BADCHARSET ("a]b" c)] text`:      `BADCHARSET|("a]b" c)|text`,
		" [unclosed":                        "||",
		" [ REFERRAL imap://x/] text":       "REFERRAL|imap://x/|text",
		" [] [REFERRAL x] text":             "||",
		" [  ]text":                         "||",
		" \t[REFERRAL x] \t[X] text":        "REFERRAL|x|[X] text",
		" [REFERRAL \"x] text":              "||",
		" [PERMANENTFLAGS (\\Seen \\*)] ok": "PERMANENTFLAGS|(\\Seen \\*)|ok",
	} {
		name, args, rest := Code([]byte(in))
		if got := fmt.Sprintf("%s|%s|%s", name, args, rest); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTrailingLiteral(t *testing.T) {
	for in, want := range map[string]int64{
		"* LIST () {5}\r\n": 5, "* LIST () {5+}\r\n": 5, "x {}\r\n": -1, "x {a}\r\n": -1, "x 5}\r\n": -1,
		"{0}\r\n": 0, "}\r\n": -1, "\r\n": -1, "* X \"{3}\"\r\n": -1, "{99999999999999999999}\r\n": MaxLiteral + 1, "{00000000000000000005}\r\n": MaxLiteral + 1, "{999999999999999}\r\n": 999999999999999,
	} {
		if got := TrailingLiteral([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

// scanFetch runs a scanner over input in pieces of step octets and tells what
// it found.
func scanFetch(in string, step int) (events []string, uid uint32, used int) {
	var s FetchScanner
	s.Reset()
	b := []byte(in)
	skip := int64(0)
	for len(b) > 0 {
		if skip > 0 {
			n := min(skip, int64(len(b)), int64(step))
			b, skip, used = b[n:], skip-n, used+int(n)
			continue
		}
		n, ev := s.Scan(b[:min(step, len(b))])
		b, used = b[n:], used+n
		switch ev {
		case FetchLiteral:
			events = append(events, fmt.Sprintf("literal %s %d %d", s.Section(), s.Size, s.Content))
			skip = s.Size
		case FetchString:
			events = append(events, fmt.Sprintf("string %s %d", s.Section(), s.Size))
		case FetchEnd:
			return append(events, "end"), s.UID, used
		case FetchBroken:
			return append(events, "broken"), s.UID, used
		}
	}
	return append(events, "more"), s.UID, used
}

func TestFetchScanner(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		uid      uint32
	}{
		{" (FLAGS (\\Seen) UID 7)\r\n", "end", 7},
		{" (UID 7 BODY[] {3}\r\na)\r FLAGS ())\r\n", "literal BODY[] 3 2,end", 7},
		{"(uid 7 body[TEXT] \"a\\\"b\" BODY[1] NIL)\r\n", "string body[TEXT] 3,end", 7},
		{" (BODY[HEADER.FIELDS (SUBJECT \"X)Y\")] {2}\r\nab UID 9)\r\n", "literal BODY[HEADER.FIELDS (SUBJECT \"X)Y\")] 2 1,end", 9},
		{" (BODY[HEADER.FIELDS ({3}\r\na]b)] {2}\r\nab)\r\n", "literal BODY[HEADER.FIELDS ( 3 0,literal BODY[HEADER.FIELDS ()] 2 1,end", 0},
		{" (ENVELOPE (\"d\" {4}\r\nU)D( ((\"UID 5\" NIL)))  UID 4)\r\n", "literal ENVELOPE 4 0,end", 4},
		{" (BODY[]<0> ~{1}\r\nx)\r\n", "literal BODY[]<0> 1 2,end", 0},
		{" (BINARY[1.2] {1}\r\nx RFC822.HEADER {1}\r\ny)\r\n", "literal BINARY[1.2] 1 2,literal RFC822.HEADER 1 1,end", 0},
		{" (BODY[1.MIME] {1}\r\nx BODY[1.HEADER] {1}\r\ny)\r\n", "literal BODY[1.MIME] 1 1,literal BODY[1.HEADER] 1 2,end", 0},
		{" (MODSEQ (5) RFC822.SIZE 100 UID 3 )\r\n", "end", 3},
		{" (X-GM-LABELS (\\Inbox \"a b\") PREVIEW \"x\")\r\n", "end", 0},
		{" (BODY[] NIL BODY[1] nil RFC822 Nil)\r\n", "end", 0},
		{" (FLAGS () X-NEW {2}\r\nab X-OTHER \"abc\" X-LIST (\"a\") X-NUMBER 5)\r\n", "literal X-NEW 2 2,string X-OTHER 3,end", 0},
		{" (BODY[TEXT] secret)\r\n", "broken", 0},
		{" (BODY[TEXT] NILS)\r\n", "broken", 0},
		{" (BODY[TEXT] (\"secret\"))\r\n", "broken", 0},
		{" (BODY[] {1+2}\r\n", "broken", 0},
		{" (BODY[] {+}\r\n", "broken", 0},
		{" (BODY[] \"" + strings.Repeat("x", MaxQuotedBody+1) + "\")\r\n", "broken", 0},
		{" (PREVIEW \"" + strings.Repeat("x", MaxQuotedBody+1) + "\")\r\n", "end", 0},
		{" (BINARY.SIZE[1] 12 X-GM-LABELS (\"a\") MODSEQ (1))\r\n", "end", 0},
		{" (FLAGS (\\Seen)\r\n", "broken", 0},
		{" (BODY[] {3}x", "broken", 0},
		{" FLAGS", "broken", 0},
	} {
		for _, step := range []int{1, 2, 3, 7, 1000} {
			events, uid, used := scanFetch(tc.in, step)
			if got := strings.Join(events, ","); got != tc.want || (uid != tc.uid && events[len(events)-1] == "end") {
				t.Errorf("%q by %d: %q uid %d, want %q uid %d", tc.in, step, got, uid, tc.want, tc.uid)
			}
			if events[len(events)-1] == "end" && used != len(tc.in) {
				t.Errorf("%q by %d: used %d of %d", tc.in, step, used, len(tc.in))
			}
		}
	}
}

func TestDecodeMailbox(t *testing.T) {
	for in, want := range map[string]string{
		"INBOX": "INBOX", "Entw&APw-rfe": "Entwürfe", "A&-B": "A&B", "bad&x": "bad&x", "&AGE-": "&AGE-",
		"&2D3eAA-": "😀", "Ü&-": "Ü&-", "\xff": "\uFFFD",
	} {
		if got := DecodeMailbox([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func BenchmarkFetchScanner(b *testing.B) {
	var s FetchScanner
	in := []byte(" (UID 12345 FLAGS (\\Seen) INTERNALDATE \"01-Jan-2026 00:00:00 +0000\" BODY[] {12000}\r\n")
	b.ReportAllocs()
	for b.Loop() {
		s.Reset()
		s.Scan(in)
	}
}
