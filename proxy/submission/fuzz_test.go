// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The grammar of RFC 5321 §4.1.2 and RFC 6531 §3.3 as expressions: what goes
// upstream is held against them, and not against the parser that made it.
const (
	atext  = `[A-Za-z0-9!#$%&'*+/=?^_\x60{|}~\-\x{80}-\x{10ffff}]`
	qtext  = `(?:[ !#-\[\]-~\x{80}-\x{10ffff}]|\\[ -~])`
	label  = `[A-Za-z0-9\x{80}-\x{10ffff}](?:[A-Za-z0-9\x{80}-\x{10ffff}-]*[A-Za-z0-9\x{80}-\x{10ffff}])?`
	path   = `((?:` + atext + `+(?:\.` + atext + `+)*|"` + qtext + `+")@(?:` + label + `(?:\.` + label + `)*|\[[A-Za-z0-9.:]+\]))`
	xtext  = `(?:[!-*,-<>-~]|\+[0-9A-F]{2})+`
	params = `(?: SIZE=[0-9]{1,20}| BODY=(?:7BIT|8BITMIME)| SMTPUTF8| RET=(?:FULL|HDRS)| ENVID=` + xtext + `)*`
	notify = `(?: NOTIFY=(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}))?`
	orcpt  = `(?: ORCPT=(?:rfc822|utf-8);` + xtext + `)?`
)

var (
	pathLine = regexp.MustCompile(`^` + path + `$`)
	mailLine = regexp.MustCompile(`^MAIL FROM:<` + path + `?>` + params + `\r\n$`)
	rcptLine = regexp.MustCompile(`^RCPT TO:<` + path + `>` + notify + orcpt + `\r\n$`)
)

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"a@x.example", `"a b"@x.example`, `"\""@[IPv6:::1]`, "é@é.example", `"a@b"@x.example`, `"> NOTIFY=NEVER ORCPT=rfc822;x"@x.example`, `"a\\"@x.example`,
		`"a\"> SIZE=1"@x.example`, "a@[192.0.2.1]", "@y.example:a@x.example", "a@x.example>", "a+tag=x@x.example", "\u202ea@x.example", "a@x\u3002example",
		"bounce+sales=client.example@lists.example", "o'neil@x.example", `"\a"@x.example`, "sales@CLIENT.example", "a@xn--bcher-kva.example",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s, true)
		if err != nil {
			return
		}
		wire := a.String()
		if !pathLine.MatchString(wire) || len(wire) > maxAddress {
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

// FuzzParseCommand: what a line becomes upstream is one line of the grammar,
// whose words all stand in what the client said.
func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{
		"MAIL FROM:<a@x.example> SIZE=1", `RCPT TO:<"> "@x.example> NOTIFY=NEVER`, "AUTH PLAIN =", "EHLO x", "STARTTLS",
		"MAIL FROM:<a@x.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By", "mail from:<> AUTH=<>", "RCPT TO:<b@y.example> NOTIFY=success,FAILURE ORCPT=RFC822;b+40y.example",
		"RCPT TO:<b@y.example> ORCPT=rfc822;x+0D+0ARCPT", "RCPT TO:<b@y.example>\tNOTIFY=NEVER", "RCPT TO:<b@y.example>NOTIFY=NEVER", "RCPT TO: <b@y.example>",
		"MAIL FROM:<a@x.example> SIZE=18446744073709551616", "MAIL FROM:<a@x.example> SIZE=1 size=2", "EHLO [192.0.2.1]", "HELO mail.client.example", "AUTH LOGIN", "AUTH XOAUTH2 dXNlcj0=",
		"BDAT 86 LAST", "XCLIENT ADDR=192.0.2.1", "XFORWARD NAME=x", "NOOP x", "VRFY <a@x.example>", "DATA ", "QUIT x", "RSET", `RCPT TO:<"a\"> X"@y.example>`, "RCPT TO:<é@é.example>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, refused := parseCommand(line)
		if refused != nil {
			return
		}
		if strings.ContainsAny(c.arg, "\r\n\x00\t") {
			t.Fatalf("%q kept a control character: %q", line, c.arg)
		}
		var said string
		switch c.verb {
		case verbMAIL:
			said = saidUpstream(t, func(u *upstream) error { _, err := u.mail(&c.mail, nil); return err })
			if m := mailLine.FindStringSubmatch(said); m == nil || m[1] != c.mail.from.String() {
				t.Fatalf("%q becomes %q", line, said)
			}
		case verbRCPT:
			said = saidUpstream(t, func(u *upstream) error { _, err := u.rcpt(&c.rcpt); return err })
			if m := rcptLine.FindStringSubmatch(said); m == nil || m[1] != c.rcpt.to.String() {
				t.Fatalf("%q becomes %q", line, said)
			}
		}
		// The parameters are behind the path, which may hold spaces.
		_, after, _ := strings.Cut(said, c.mail.from.String()+c.rcpt.to.String()+">")
		for _, word := range strings.Fields(after) {
			if word = strings.TrimLeft(word, "0"); strings.HasPrefix(word, "SIZE=") {
				continue // a number, without its zeros
			}
			if !strings.Contains(strings.ToUpper(line), strings.ToUpper(word)) {
				t.Fatalf("%q becomes %q: nobody said %q", line, said, word)
			}
		}
	})
}

// saidUpstream is what an upstream that offers everything is told.
func saidUpstream(t *testing.T, say func(*upstream) error) string {
	t.Helper()
	w := &cannedConn{answers: strings.NewReader("250 ok\r\n")}
	u := &upstream{conn: w, reader: newReplyReader(w), limits: &Limits{CommandTimeout: time.Minute, DataTimeout: time.Minute}, pipelining: true, eightBit: true, smtputf8: true, dsn: true, size: true}
	if err := say(u); err != nil {
		t.Fatal(err)
	}
	return w.said.String()
}

func FuzzJudgeHeader(f *testing.F) {
	for _, s := range []string{
		"From: alice@own.example\r\n", "From: \"a\" <alice@own.example>\r\nTo: x\r\n y\r\n", "From: =?utf-8?q?a?= <alice@own.example>\r\n",
		"Return-Path: <x@y.example>\r\nReceived: from x\r\n\tby y; Wed, 25 Nov 2026 10:00:00 +0000\r\nDKIM-Signature: v=1; b=x\r\nFrom: Alice (Sales) <alice@own.example>\r\n",
		"FROM:alice@own.example\r\nSender: sales@own.example\r\nReply-To: x@y.example\r\n", "From: \"Alice, Sales\"\r\n <alice@own.example>\r\nSubject: =?UTF-8?B?w6k=?=\r\n",
		"From: alice@own.example (x)\r\n", "From: alice@own.example, b@own.example\r\n", "Resent-From: alice@own.example\r\nFrom: alice@own.example\r\n", "From:\r\n alice@own.example\r\n",
		"From: <@y.example:alice@own.example>\r\n", "From : x@y.example\r\nFrom: alice@own.example\r\n", "X: \xff\r\nFrom: Al\xc3\xafce <alice@own.example>\r\n",
	} {
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
		// Whoever looks for fields line by line finds one From, wherever he
		// takes lines to end, and with or without blanks before the colon.
		for _, end := range []string{"\r\n", "\n", "\r"} {
			if n := len(fieldsNamed(string(raw), end, "from")); n != 1 && end != "\r" || n > 1 {
				t.Fatalf("%d From fields in %q", n, raw)
			}
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

// fieldsNamed returns the first lines of all fields of a name.
func fieldsNamed(raw, end, name string) (all []string) {
	for _, line := range strings.Split(raw, end) {
		field, _, _ := strings.Cut(line, ":")
		if strings.EqualFold(strings.TrimRight(field, " \t\r\n"), name) && strings.Contains(line, ":") {
			all = append(all, line)
		}
	}
	return all
}

func FuzzDataReader(f *testing.F) {
	for _, s := range []string{
		"a\r\n.\r\n", "..\r\n.x\r\n.\r\nNOOP\r\n", ".\r\n", "a\n.\r\n", "\r\n.\r\r\n", "a\r\n.\n", "a\n.\n", "a\r.\r", "a\r\n.\rb\r\n.\r\n", "a\r\n.\x00\r\n.\r\n", "a\r\n..\r\n...\r\n.\r\n",
		"Subject: x\r\n\r\n" + strings.Repeat("x", 998) + "\r\n.\r\nMAIL FROM:<>\r\n",
	} {
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

// FuzzReply: what a server answers reaches the client as one reply of printable
// lines with the code it had, or one in its place, and takes no octet more.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"250 2.1.0 Ok\r\n", "250-mail.example\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n", "354 End data with <CR><LF>.<CR><LF>\r\n", "550 5.1.1 <x@y.example>: Recipient address rejected: User unknown\r\n",
		"421 4.3.2 closing\r\n", "535 5.7.8 no\r\n", "250\r\n", "250 ok\n", "250 a\rb\r\n", "250-a\r\n251 b\r\n", "250-a\r\nx\r\n", "2x0 a\r\n", "699 a\r\n", "250 5.0.0 x\r\n", "550 5.7.1 a\x00\xff\x1b[2J\r\n",
		"250 2.0.0 OK <message@mail.example> [Hostname=X.PROD.EXAMPLE]\r\n", "452-4.2.2 quota\r\n452 4.2.2 see help\r\n", "250 ok\r\n250 another\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &cannedConn{answers: strings.NewReader(string(in))}
		u := &upstream{reader: newReplyReader(c)}
		r, err := u.readReply()
		want, used := naiveReply(in)
		if (err == nil) != (used > 0) && len(in) < 2000 {
			t.Fatalf("%q: %v, naively %d octets", in, err, used)
		}
		if err != nil {
			return
		}
		if left := u.reader.Buffered() + c.answers.Len(); r.code != want || len(in)-left != used {
			t.Fatalf("%q: code %d, want %d, and took %d octets, want %d", in, r.code, want, len(in)-left, used)
		}
		told := string(r.relay().append(nil))
		lines := strings.Split(strings.TrimSuffix(told, "\r\n"), "\r\n")
		for i, line := range lines {
			separator := "-"
			if i == len(lines)-1 {
				separator = " "
			}
			if !replyLine.MatchString(line) || line[3:4] != separator || line[:3] != lines[0][:3] || line[0] != line[4] {
				t.Fatalf("%q: the client is told %q", in, told)
			}
		}
		if strings.ContainsAny(r.line(), "\r\n\x00\x1b") {
			t.Fatalf("%q: the record says %q", in, r.line())
		}
	})
}

var (
	replyLine = regexp.MustCompile(`^[245][0-5][0-9][- ][245]\.[0-9]{1,3}\.[0-9]{1,3} [ -~]*$`)
	codeLine  = regexp.MustCompile(`^([2-5][0-5][0-9])(?:([ -])[^\n]*)?\r\n$`)
)

// naiveReply takes a reply off b; used is 0 where there is none.
func naiveReply(b []byte) (code, used int) {
	for {
		line := b[used:]
		line = line[:bytes.IndexByte(line, '\n')+1]
		m := codeLine.FindSubmatch(line)
		if m == nil {
			return 0, 0
		}
		var n int
		_, _ = fmt.Sscan(string(m[1]), &n)
		if used > 0 && n != code {
			return 0, 0
		}
		code, used = n, used+len(line)
		if string(m[2]) != "-" {
			return code, used
		}
	}
}

// FuzzSASL: a response yields what stands in it, as a reader finds it that
// goes by separators, or nothing.
func FuzzSASL(f *testing.F) {
	for _, s := range []string{
		"\x00box@firm.example\x00secret", "agent\x00box\x00secret", "\x00\x00", "\x00a\x00b\x00c", "n,a=box@firm.example,\x01auth=Bearer secret\x01\x01",
		"n,a=a=2Cb=3D2C,\x01host=x\x01port=1\x01auth=bearer t\x01\x01", "n,,\x01auth=Bearer x\x01\x01", "n,a=x,\x01auth=Bearer x\x01auth=Bearer y\x01\x01", "y,a=x,\x01auth=Bearer x\x01\x01", "box\r\n", "",
	} {
		f.Add([]byte(s), []byte("secret"))
	}
	f.Fuzz(func(t *testing.T, response, password []byte) {
		if _, id, err := plainStep(bytes.Clone(response)); err == nil && id != nil {
			if want := id.authorization + "\x00" + id.username + "\x00" + string(id.token); want != string(response) {
				t.Fatalf("PLAIN: %q of %q", want, response)
			}
			checkNames(t, id)
		}
		if _, id, err := oauthBearerStep(bytes.Clone(response)); err == nil && id != nil {
			escaped := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(id.username)
			fields := strings.Split(strings.TrimPrefix(string(response), "n,a="+escaped+",\x01"), "\x01")
			n := 0
			for _, field := range fields {
				if len(field) > 12 && strings.EqualFold(field[5:12], "bearer ") && field[12:] == string(id.token) && strings.HasPrefix(field, "auth=") {
					n++
				} else if strings.HasPrefix(field, "auth=") {
					n = 2
				}
			}
			if n != 1 || len(fields[0]) == len(response) || strings.Join(fields[len(fields)-2:], "") != "" {
				t.Fatalf("OAUTHBEARER: %q for %q of %q", id.token, id.username, response)
			}
			checkNames(t, id)
		}
		step := loginSteps()
		if _, id, err := step(bytes.Clone(response)); err == nil && id == nil && len(response) > 0 {
			if _, id, err = step(bytes.Clone(password)); err == nil {
				if id.username != string(response) || string(id.token) != string(password) || id.authorization != "" {
					t.Fatalf("LOGIN: %+v of %q and %q", id, response, password)
				}
				checkNames(t, id)
			}
		}
		// What is taken for base64 is the one encoding of what it decodes to.
		if s := string(response); s != "=" && isSASLResponse(s) {
			if b, err := base64.StdEncoding.DecodeString(s); err != nil || len(base64.StdEncoding.EncodeToString(b)) != len(s) {
				t.Fatalf("%q: %v", s, err)
			}
		}
	})
}

func checkNames(t *testing.T, id *identities) {
	t.Helper()
	for _, s := range []string{id.username, id.authorization} {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s) > maxIdentity {
			t.Fatalf("a name with controls: %q", s)
		}
	}
	if id.username == "" || len(id.token) == 0 {
		t.Fatalf("nobody is let in: %+v", id)
	}
}
