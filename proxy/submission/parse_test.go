// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

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

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@x.example", `"a b"@x.example`, `"\""@[IPv6:::1]`, "é@é.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s, true)
		if err != nil {
			return
		}
		wire := a.String()
		if strings.ContainsAny(wire, "\r\n\x00") || len(wire) > maxAddress {
			t.Fatalf("%q became %q", s, wire)
		}
		again, err := ParseAddress(wire, true)
		if err != nil || again != a {
			t.Fatalf("%q became %q, which becomes %q (%v)", s, wire, again, err)
		}
		// In a command line it is one path, and nothing after it.
		c, refused := parseCommand("RCPT TO:<" + wire + ">")
		if refused != nil || c.rcpt.to != a || c.rcpt.dsn() {
			t.Fatalf("%q is not read back: %+v", wire, c)
		}
		if a.utf8 {
			return
		}
		// And who reads RFC 5322 sees the same.
		if m, err := mail.ParseAddress("<" + wire + ">"); err == nil {
			if local, _, _ := scanLocalPart(wire); !strings.HasPrefix(m.Address, local+"@") {
				t.Fatalf("%q is %q to net/mail", wire, m.Address)
			}
		}
	})
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"MAIL FROM:<a@x.example> SIZE=1", `RCPT TO:<"> "@x.example> NOTIFY=NEVER`, "AUTH PLAIN =", "EHLO x", "STARTTLS"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, refused := parseCommand(line)
		if refused != nil {
			return
		}
		for _, s := range []string{c.arg, c.mail.envid, c.rcpt.orcpt, c.rcpt.notify, c.mail.from.String(), c.rcpt.to.String()} {
			if strings.ContainsAny(s, "\r\n\x00\t") {
				t.Fatalf("%q kept a control character: %q", line, s)
			}
		}
		for _, s := range []string{c.mail.envid, c.rcpt.orcpt, c.rcpt.notify, c.mail.ret, c.mail.body} {
			if strings.Contains(s, " ") {
				t.Fatalf("%q kept a space in a parameter: %q", line, s)
			}
		}
	})
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

func FuzzJudgeHeader(f *testing.F) {
	for _, s := range []string{"From: alice@own.example\r\n", "From: \"a\" <alice@own.example>\r\nTo: x\r\n y\r\n", "From: =?utf-8?q?a?= <alice@own.example>\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, refused := judgeHeader(raw, own, false)
		if refused != nil {
			return
		}
		if !own(h.from) {
			t.Fatalf("accepted %q from %q", raw, h.from)
		}
		// net/mail is another reader: where it understands the header at all, it
		// must see the same sender.
		m, err := mail.ReadMessage(io.MultiReader(bytes.NewReader(raw), strings.NewReader("\r\n")))
		if err != nil {
			return
		}
		if n := len(m.Header["From"]); n != 1 {
			t.Fatalf("net/mail sees %d From fields in %q", n, raw)
		}
		list, err := m.Header.AddressList("From")
		if err == nil && (len(list) != 1 || !strings.EqualFold(list[0].Address, h.from.String())) {
			t.Fatalf("net/mail sees %v in %q", list, raw)
		}
	})
}

// wireOf is a wire whose client sends b, in pieces of the given size.
func wireOf(t *testing.T, b []byte, piece int) *wire {
	t.Helper()
	g, err := New(Config{Gate: newGate(), Hostname: "x.example"})
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

func FuzzDataReader(f *testing.F) {
	for _, s := range []string{"a\r\n.\r\n", "..\r\n.x\r\n.\r\nNOOP\r\n", ".\r\n", "a\n.\r\n", "\r\n.\r\r\n"} {
		f.Add([]byte(s), 1)
		f.Add([]byte(s), 100)
	}
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		if piece < 1 || piece > 1<<10 || len(in) > 4<<10 {
			t.Skip("the size of the pieces is not what is fuzzed")
		}
		d := dataReader{wire: wireOf(t, in, piece), until: time.Now().Add(time.Minute)}
		var got []byte
		for {
			run, startsLine, err := d.next()
			if err != nil {
				if d.ended != (errors.Is(err, io.EOF) && d.ended) {
					t.Fatal(err)
				}
				break
			}
			if !startsLine && bytes.Contains(append([]byte("x"), run...), []byte("\r\n.")) || startsLine && bytes.Contains(run, []byte("\r\n.")) {
				t.Fatalf("a dot hides in the run %q", run)
			}
			got = append(got, run...)
		}
		want, whole := undot(in)
		if d.ended != whole || whole && !bytes.Equal(got, want) {
			t.Fatalf("%q: ended %v with %q, want %v with %q", in, d.ended, got, whole, want)
		}
	})
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
