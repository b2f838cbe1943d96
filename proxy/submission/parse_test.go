// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

func TestParseAddress(t *testing.T) {
	label := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"alice@own.example": "alice@own.example", `"alice"@own.example`: "alice@own.example", `"al\ice"@own.example`: "alice@own.example",
		`"a b"@x.example`: `"a b"@x.example`, `"a\"b\\"@x.example`: `"a\"b\\"@x.example`, `"a@b"@x.example`: `"a@b"@x.example`, `".a"@x.example`: `".a"@x.example`,
		"a+b=c/d@x.example": "a+b=c/d@x.example", "a@[192.0.2.1]": "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]": "a@[IPv6:2001:db8::1]", "a@localhost": "a@localhost",
		strings.Repeat("a", 64) + "@x.example": strings.Repeat("a", 64) + "@x.example",
		"a@" + label + ".example":              "a@" + label + ".example",
	} {
		if got, err := ParseAddress(in, false); err != nil || got.String() != want {
			t.Errorf("%q: got %q (%v), want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "a", "@x.example", "a@", "a@@x", ".a@x.example", "a.@x.example", "a..b@x.example", "a b@x.example", `""@x.example`, `"a@x.example`,
		"\"a\r\n\"@x.example", "\"a\x00\"@x.example", "\"a\tb\"@x.example", `"a\` + "\n" + `b"@x.example`, "a@x.example ", " a@x.example", "<a@x.example>",
		"a@-x.example", "a@x-.example", "a@x..example", "a@x.example.", "a@.example", "a@x_y.example", "a@[192.0.2.300]", "a@[x]", "a@[192.0.2.1", "a@[IPv6:fe80::1%eth0]",
		"a@x.example>", "@y.example:a@x.example", "a,b@x.example", "a(b)@x.example", "é@x.example", "a@é.example", "a@" + label + "a.example",
		strings.Repeat("a", 65) + "@x.example", "a@" + strings.Repeat(label+".", 4) + "example", "a@x.example\n",
	} {
		if got, err := ParseAddress(in, false); err == nil {
			t.Errorf("%q was accepted as %q", in, got)
		}
	}
	for in, ok := range map[string]bool{
		"é@x.example": true, "a@é.example": true, "a@\u212a.example": true, "\"é \"@x.example": true,
		"\u202ea@x.example": false, "a\u2028@x.example": false, "a\u0085@x.example": false, "a\xff@x.example": false, "a@x\u3002example": false,
	} {
		if _, err := ParseAddress(in, true); (err == nil) != ok {
			t.Errorf("%q with SMTPUTF8: %v", in, err)
		}
	}
	kelvin, _ := ParseAddress("a@\u212a.example", true)
	if kelvin.Key() == "a@k.example" {
		t.Error("the Kelvin sign is taken for a k")
	}
}

func own(a Address) bool { return a.Key() == ownAddress || a.Key() == ownAlias }

func TestHeaderFromIsWhatEveryReaderTakesItFor(t *testing.T) {
	for name, h := range map[string]string{
		"plain":        "From: alice@own.example\r\n",
		"name":         "From: Alice <alice@own.example>\r\n",
		"upper case":   "FROM: <Alice@OWN.Example>\r\n",
		"quoted name":  "From: \"Alice (Sales), Ltd.\" <alice@own.example>\r\n",
		"folded":       "From: Alice\r\n of Own\r\n\t<alice@own.example>\r\n",
		"encoded":      "From: =?utf-8?Q?J=C3=B6rg?= =?utf-8?B?w5Y=?= <alice@own.example>\r\n",
		"japanese":     "From: =?ISO-2022-JP?B?GyRCOzNFRBsoQg==?= <alice@own.example>\r\n",
		"dots":         "From: John Q. Public <alice@own.example>\r\n",
		"own in name":  "From: \"alice@own.example\" <alice@own.example>\r\n",
		"a shop at":    "From: \"Max @ Company\" <alice@own.example>\r\n",
		"other fields": "Received: x\r\nFrom: <alice@own.example>\r\nSender: sales@own.example\r\nX-From: boss@own.example\r\nResent-From: alice@own.example\r\n",
		"quoted local": "From: \"alice\"@own.example\r\n",
	} {
		if _, refused := judgeHeader([]byte(h), own, false); refused != nil {
			t.Errorf("%s: refused: %s", name, refused.text)
		}
	}
	const good = "From: alice@own.example\r\n"
	for name, tt := range map[string]struct{ header, rule string }{
		"none":                  {"To: x@y.example\r\n", ruleHeaderFrom},
		"empty header":          {"", ruleHeaderFrom},
		"empty":                 {"From:\r\n", ruleHeaderFrom},
		"blank":                 {"From: \r\n", ruleHeaderFrom},
		"other":                 {"From: boss@own.example\r\n", ruleHeaderFrom},
		"two addresses":         {"From: alice@own.example, boss@own.example\r\n", ruleHeaderFrom},
		"two angles":            {"From: <alice@own.example> <boss@own.example>\r\n", ruleHeaderFrom},
		"two fields":            {good + "From: boss@own.example\r\n", ruleMalformedHeader},
		"two fields, cases":     {good + "fROM: alice@own.example\r\n", ruleMalformedHeader},
		"two subjects":          {good + "Subject: a\r\nSubject: b\r\n", ruleMalformedHeader},
		"group":                 {"From: friends: alice@own.example;\r\n", ruleHeaderFrom},
		"comment":               {"From: alice@own.example (boss@own.example)\r\n", ruleHeaderFrom},
		"comment inside":        {"From: alice(x)@own.example\r\n", ruleHeaderFrom},
		"comment first":         {"From: (<boss@own.example>) alice@own.example\r\n", ruleHeaderFrom},
		"route":                 {"From: <@evil.example:alice@own.example>\r\n", ruleHeaderFrom},
		"name is an address":    {"From: boss@own.example <alice@own.example>\r\n", ruleHeaderFrom},
		"quoted address":        {"From: \"boss@own.example\" <alice@own.example>\r\n", ruleHeaderFrom},
		"encoded address":       {"From: =?utf-8?Q?boss=40own.example?= <alice@own.example>\r\n", ruleHeaderFrom},
		"fullwidth at":          {"From: =?utf-8?B?Ym9zc++8oG93bi5leGFtcGxl?= <alice@own.example>\r\n", ruleHeaderFrom},
		"encoded angle":         {"From: =?utf-8?Q?boss_=3Cboss=40own.example=3E?= <alice@own.example>\r\n", ruleHeaderFrom},
		"encoded line break":    {"From: =?utf-8?Q?x=0D=0AFrom:_boss?= <alice@own.example>\r\n", ruleHeaderFrom},
		"encoded in quotes":     {"From: \"=?utf-8?Q?boss=40own.example?=\" <alice@own.example>\r\n", ruleHeaderFrom},
		"unknown charset":       {"From: =?x-none?Q?a?= <alice@own.example>\r\n", ruleHeaderFrom},
		"utf-7":                 {"From: =?utf-7?Q?+AEA-?= <alice@own.example>\r\n", ruleHeaderFrom},
		"right to left":         {"From: =?utf-8?B?4oCuYQ==?= <alice@own.example>\r\n", ruleHeaderFrom},
		"blank in address":      {"From: alice @own.example\r\n", ruleHeaderFrom},
		"blank in angle":        {"From: < alice@own.example>\r\n", ruleHeaderFrom},
		"text after angle":      {"From: <alice@own.example> x\r\n", ruleHeaderFrom},
		"unclosed angle":        {"From: <alice@own.example\r\n", ruleHeaderFrom},
		"unclosed quote":        {"From: \"x <alice@own.example>\r\n", ruleHeaderFrom},
		"raw 8 bit":             {"From: J\xf6rg <alice@own.example>\r\n", ruleHeaderFrom},
		"space before colon":    {"From : boss@own.example\r\n" + good, ruleMalformedHeader},
		"tab before colon":      {"From\t: boss@own.example\r\n" + good, ruleMalformedHeader},
		"leading space":         {" From: boss@own.example\r\n" + good, ruleMalformedHeader},
		"mbox From":             {"From boss@own.example Mon\r\n" + good, ruleMalformedHeader},
		"no colon":              {good + "Hello\r\n", ruleMalformedHeader},
		"blank line of spaces":  {good + "X: y\r\n \r\n", ruleMalformedHeader},
		"blank line inside":     {good + "X: y\r\n \t\r\n z\r\n", ruleMalformedHeader},
		"name with NUL":         {good + "X\x00: y\r\n", ruleMalformedHeader},
		"control":               {good + "X: \x0b\r\n", ruleMalformedHeader},
		"8 bit name":            {good + "Fr\xf6m: y\r\n", ruleMalformedHeader},
		"no name":               {good + ": y\r\n", ruleMalformedHeader},
		"dot":                   {good + ".x: y\r\n", ruleMalformedHeader},
		"long line":             {good + "X: " + strings.Repeat("y", 1000) + "\r\n", ruleMalformedHeader},
		"sender":                {good + "Sender: boss@own.example\r\n", ruleHeaderSender},
		"two senders":           {good + "Sender: alice@own.example\r\nSender: alice@own.example\r\n", ruleMalformedHeader},
		"resent-from":           {good + "Resent-From: boss@own.example\r\n", ruleHeaderResent},
		"second resent-from":    {good + "Resent-From: alice@own.example\r\nResent-From: boss@own.example\r\n", ruleHeaderResent},
		"resent-sender":         {good + "Resent-Sender: boss@own.example\r\n", ruleHeaderResent},
		"folded second address": {"From: alice@own.example\r\n , boss@own.example\r\n", ruleHeaderFrom},
	} {
		_, refused := judgeHeader([]byte(tt.header), own, false)
		switch {
		case refused == nil:
			t.Errorf("%s: accepted", name)
		case refused.rule != tt.rule:
			t.Errorf("%s: refused by %s, want %s: %s", name, refused.rule, tt.rule, refused.text)
		}
	}
}

func TestHeaderIsJudgedOnTheWire(t *testing.T) {
	for name, tt := range map[string]struct{ message, want, rule string }{
		"forged From":   {"From: boss@own.example\r\nTo: x@y.example\r\n\r\nhi\r\n", "550 5.7.1", ruleHeaderFrom},
		"no empty line": {"From: alice@own.example\r\nTo: x@y.example\r\n", "554 5.6.0", ruleMalformedHeader},
		"nothing":       {"", "554 5.6.0", ruleMalformedHeader},
		"no header":     {"\r\nFrom: alice@own.example\r\n", "550 5.7.1", ruleHeaderFrom},
		"From in body":  {"To: x@y.example\r\n\r\nFrom: alice@own.example\r\n\r\n", "550 5.7.1", ruleHeaderFrom},
		"huge header":   {"From: alice@own.example\r\n" + strings.Repeat("X: y\r\n", maxHeader/6) + "\r\nx\r\n", "554 5.6.0", ruleMalformedHeader},
	} {
		s, k := start(t)
		c := s.login(t)
		c.data()
		c.raw(stuffed(tt.message))
		c.expect(tt.want)
		wantList(t, name, s.gate.rules(), []string{tt.rule})
		if refused := eventsOf[broker.SendRefused](s.gate, broker.EventSendRefused)[0]; name == "forged From" && refused.Address != "boss@own.example" {
			t.Errorf("recorded: %+v", refused)
		}
		c.data() // client and upstream are still in step
		c.raw(stuffed(message1("x\r\n")))
		c.expect("250 ")
		k.only(t)
		c.quit()
	}
}

// wireOf is a wire whose client sends b, in pieces of the given size.
func wireOf(t *testing.T, b []byte, piece int) *wire {
	t.Helper()
	g, err := New(Config{Gate: newGate(), Counts: uncounted{}, Hostname: "x.example"})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(b) > 0 {
			n := min(piece, len(b))
			if _, err := near.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
		_ = near.Close()
	}()
	t.Cleanup(func() { _ = far.Close(); <-done })
	w := newWire(newPlainConn(far), &g.limits, g.buffers, zapNop)
	w.session = &session{gateway: g, wire: w}
	return w
}

// undot is RFC 5321 §4.5.2 in its plainest form: the message in front of the
// end of data, if everything up to there is in CR LF lines.
func undot(in []byte) (message []byte, whole bool) {
	for {
		line, rest, found := bytes.Cut(in, []byte("\r\n"))
		if !found || bytes.ContainsAny(line, "\r\n\x00") {
			return nil, false
		}
		if string(line) == "." {
			return message, true
		}
		message = append(append(message, bytes.TrimPrefix(line, []byte("."))...), '\r', '\n')
		in = rest
	}
}

func TestReplyIsOneOfOurs(t *testing.T) {
	r := newReply(550, "5.7.1", "a\r\nb\x00\xff\nc")
	if got := string(r.append(nil)); got != "550-5.7.1 a?\r\n550-5.7.1 b??\r\n550 5.7.1 c\r\n" {
		t.Errorf("got %q", got)
	}
	if got := replyToEnd(&broker.End{Reason: broker.EndDrain}).text; got == "" {
		t.Error("an end without a text has none")
	}
}
