// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy/imapwire"
)

// nothingBut fails if the upstream sees anything before the marker command.
func nothingBut(t *testing.T, c, u *peer) {
	t.Helper()
	c.send("zz NOOP")
	u.expect("zz NOOP")
	u.raw("zz OK\r\n")
	c.until("zz OK")
}

// TestNever2MalformedLinesReachNothing: a line that is no command is BAD, or
// the end, and no octet of it goes upstream.
func TestNever2MalformedLinesReachNothing(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		closes    bool
	}{
		{"unknown command", "a FROBNICATE x\r\n", false},
		{"no tag", "\r\n", false},
		{"a tag alone", "a\r\n", false},
		{"bare LF", "a NOOP\nb NOOP\n", true},
		{"bare CR", "a NOOP\rb NOOP\r\n", true},
		{"NUL", "a NO\x00OP\r\n", true},
		{"control in a quoted string", "a SELECT \"x\x07y\"\r\n", false},
		{"CRLF in a quoted string", "a SELECT \"x\r\nb NOOP\"\r\n", false},
		{"trailing space", "a NOOP \r\n", false},
		{"eight bits", "a SELECT \xff\xfe\r\n", false},
		{"an announcement in an open string", "a SELECT \"{5}\r\nb NOOP\r\n", true},
		{"a literal with a huge size", "a SELECT {18446744073709551617}\r\n", true},
		{"a literal with a sign", "a SELECT {+5}\r\n", true},
		{"a buffered literal beyond the limit", "a SELECT {65537+}\r\n", true},
		{"NUL in a literal", "a SELECT {3+}\r\na\x00b\r\n", true},
		{"a folder with CRLF", "a SELECT {10+}\r\nx\r\nb NOOP \r\n", false},
		{"a line beyond the limit", "a SELECT \"" + strings.Repeat("x", 70000) + "\"\r\n", true},
		{"Postern's own tag", "pn NOOP \r\n", false},
		{"an APPEND that announces nothing", "a APPEND INBOX\r\n", false},
		{"an APPEND with a quoted message", "a APPEND INBOX \"Subject: x\"\r\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			gate, upstreams := scripted(t)
			rig := newRig(t, gate)
			c := rig.login()
			u := <-upstreams
			c.raw(tc.raw)
			if !tc.closes {
				if got := c.line(); !strings.Contains(got, " BAD ") {
					t.Fatalf("got %q", got)
				}
				for strings.Count(tc.raw, "\r\n") > 1 && c.r.Buffered() > 0 {
					c.line()
				}
				c.send("zz NOOP")
				u.expect("zz NOOP")
				return
			}
			got := c.closed()
			if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "* BYE ") {
				t.Fatalf("got %q", got)
			}
			if s, err := u.tryLine(); err == nil {
				t.Fatalf("the upstream got %q", s)
			}
		})
	}
}

// TestNever2RefusedLiteralsAreNotCommands: the octets of a refused literal
// never act as commands, whether the client waits or not.
func TestNever2RefusedLiteralsAreNotCommands(t *testing.T) {
	gate, upstreams := scripted(t)
	gate.decision = policy.Decision{Actions: policy.List}
	c := newRig(t, gate).connect()
	c.send("l LOGIN box@firm.example secret")
	u := <-upstreams
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw(tag + " OK\r\n")
	c.expect("l OK")
	smuggled := "x DELETE INBOX\r\n"
	for _, command := range []string{
		"a APPEND INBOX {%d+}", "a UID REPLACE 1 INBOX {%d+}", "a APPEND INBOX (\\Seen) CATENATE (TEXT {%d+}",
	} {
		c.raw(fmt.Sprintf(command+"\r\n", len(smuggled)) + smuggled + map[bool]string{true: ")"}[strings.Contains(command, "(TEXT")] + "\r\n")
		c.expect("a NO [NOPERM]")
	}
	// A client that does not wait for leave has its octets taken as commands,
	// which are judged.
	c.raw("b APPEND INBOX {16}\r\n" + smuggled)
	c.expect("b NO [NOPERM]")
	c.expect("x NO [NOPERM]")
	nothingBut(t, c, u)
}

// TestNever2AnEarlyAnswerDoesNotMakeTheRestACommand: an upstream that refuses
// in mid-APPEND is past the command; what is left of it is not sent.
func TestNever2AnEarlyAnswerDoesNotMakeTheRestACommand(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a APPEND INBOX {50+}\r\nabcde")
	u.expect("a APPEND INBOX {50}")
	u.raw("+ go\r\n")
	_, _ = io.ReadFull(u.r, make([]byte, 5))
	u.raw("a NO too early\r\n")
	c.expect("a NO")
	c.raw(strings.Repeat("x", 45) + " (\\Seen) {16+}\r\nx DELETE INBOX\r\n\r\n")
	c.closed()
	_ = u.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	rest, _ := io.ReadAll(u.r)
	if string(rest) != strings.Repeat("x", 45) {
		t.Fatalf("the upstream got %q", rest)
	}
}

// A command whose literal the upstream must give leave for, and does not: the
// rest of the command is dropped.
func TestNever2ARefusedSynchronisingLiteralIsNotSent(t *testing.T) {
	gate, upstreams := scripted(t, "IMAP4rev1")
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a SEARCH SUBJECT {3}\r\n")
	c.expect("+ ")
	c.raw("\xffab\r\n")
	u.expect("a SEARCH SUBJECT {3}")
	u.raw("a NO [BADCHARSET] no\r\n")
	c.expect("a NO [BADCHARSET] no")
	nothingBut(t, c, u)
	// And granted.
	c.raw("b SEARCH SUBJECT {3}\r\n")
	c.expect("+ ")
	c.raw("\xffab FROM {2}\r\n")
	c.expect("+ ")
	c.raw("\xfec\r\n")
	u.expect("b SEARCH SUBJECT {3}")
	u.raw("+ go\r\n")
	u.expect("\xffab FROM {2}")
	u.raw("+ go\r\n")
	u.expect("\xfec")
	u.raw("* SEARCH 1\r\nb OK done\r\n")
	c.expect("* SEARCH 1")
	c.expect("b OK")
}

// A client's tag can be neither Postern's own nor one that was guessed.
func TestNever2OwnTagsAreRefused(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("* OK [UIDVALIDITY 1]\r\na OK\r\n")
	c.until("a OK")
	c.send("b FETCH 1 BODY[TEXT]")
	u.expect("b FETCH")
	u.raw("* 1 FETCH (UID 3 BODY[TEXT] {1}\r\nx)\r\nb OK\r\n")
	c.until("b OK")
	c.send("c NOOP")
	own, _, _ := strings.Cut(u.line(), " ")
	u.raw(own + " OK\r\n")
	u.expect("c NOOP")
	u.raw("c OK\r\n")
	c.until("c OK")
	for _, tag := range []string{own, strings.ToUpper(own), own + "9"} {
		c.send("%s NOOP", tag)
		if got := c.line(); !strings.Contains(got, " BAD ") {
			t.Fatalf("%s: %q", tag, got)
		}
	}
	nothingBut(t, c, u)
	c.raw(own + " SEARCH TEXT {16+}\r\nx DELETE INBOX\r\n")
	if got := c.closed(); len(got) != 2 || !strings.HasPrefix(got[1], "* BYE ") {
		t.Fatalf("got %q", got)
	}
	if s, err := u.tryLine(); err == nil {
		t.Fatalf("the upstream got %q", s)
	}
}

// TestLyingUpstreams: what follows no grammar ends the session; nothing is
// resynchronised.
func TestLyingUpstreams(t *testing.T) {
	for name, raw := range map[string]string{
		"an answer to no command":       "zzz OK done\r\n",
		"bare LF in a status":           "* OK x\n* BAD y\r\n",
		"bare LF in data":               "* LIST () NIL x\n",
		"a FETCH that breaks off":       "* 1 FETCH (FLAGS\r\n",
		"leave that nobody asked for":   "+ go\r\n",
		"PREAUTH":                       "* PREAUTH hello\r\n",
		"an endless status":             "* OK " + strings.Repeat("x", 70000),
		"an empty line":                 "\r\n",
		"a BYE":                         "* BYE imap.upstream.example is tired\r\n",
		"a CAPABILITY that has no end":  "* CAPABILITY " + strings.Repeat("x", 70000),
		"a FETCH with a huge literal":   "* 1 FETCH (BODY[] {99999999999999999999999}\r\n",
		"a number that is none":         "* 5\r\n",
		"a tagged word that is unknown": "a FINE done\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			gate, upstreams := scripted(t)
			rig := newRig(t, gate)
			c := rig.login()
			u := <-upstreams
			c.send("a NOOP")
			u.expect("a NOOP")
			_, _ = io.WriteString(u.conn, raw)
			got := c.closed()
			for _, line := range got {
				if strings.Contains(line, "upstream.example") {
					t.Errorf("the client learned %q", line)
				}
			}
			<-rig.served
			if r := gate.last().endReason(); r != broker.EndUpstreamClosed {
				t.Errorf("ended for %s", r)
			}
		})
	}
}

// Texts that look like literals are none (RFC 9051 §9, resp-text), and data
// that look like texts are framed all the same.
func TestTextsThatLookLikeLiterals(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT x")
	u.expect("a SELECT x")
	u.raw("* NO folder {100}\r\n* OK [UNSEEN 3] {3}\r\na NO folder does not exist: {7}\r\n")
	c.expect("* NO folder {100}")
	c.expect("* OK [UNSEEN 3] {3}")
	c.expect("a NO folder does not exist: {7}")
	nothingBut(t, c, u)
}

// TestNever2CodesThatAreNotOnTheListDoNotPass: however an upstream puts them.
func TestNever2CodesThatAreNotOnTheListDoNotPass(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	for in, want := range map[string]string{
		"* OK [REFERRAL imap://upstream.example/] moved":                   "* OK moved",
		"* OK  [referral imap://upstream.example/]moved":                   "* OK moved",
		"* NO [REFERRAL x] [CAPABILITY IMAP4rev1 AUTH=PLAIN] y":            "* NO done",
		"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN XEVIL idle STARTTLS] ready": "* OK [CAPABILITY IMAP4rev1 idle] ready",
		"* OK [capability imap4rev1 auth=plain]":                           "* OK [CAPABILITY imap4rev1] done",
		"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN":                            "* OK done",
		"* OK [CAPABILITY AUTH=PLAIN \"x] ready":                           "* OK done",
		"* OK [REFERRAL imap://upstream.example/\"] moved":                 "* OK done",
		"* OK [X-PROXY upstream.example]":                                  "* OK done",
		"* BAD [[CAPABILITY AUTH=PLAIN]] x":                                "* BAD ] x",
		"* OK [UNSEEN 5] [REFERRAL x] y":                                   "* OK [UNSEEN 5] [REFERRAL x] y",
		"* OK [ALERT] read this [now]":                                     "* OK [ALERT] read this [now]",
		"* OK":                                                             "* OK",
		"* OK [READ-ONLY]":                                                 "* OK [READ-ONLY]",
		"* 5 CAPABILITY AUTH=PLAIN":                                        "* 5 CAPABILITY",
		"* capability  AUTH=PLAIN  IMAP4rev1 ":                             "* capability IMAP4rev1",
		"* ENABLED CONDSTORE X-SECRET":                                     "* ENABLED CONDSTORE",
	} {
		u.send("%s", in)
		if got := c.line(); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"OK [REFERRAL x] [CAPABILITY AUTH=PLAIN] y": "OK done",
		"NO [BADCHARSET (\"a]b\")] no":              "NO [BADCHARSET (\"a]b\")] no",
		"OK":                                        "OK",
	} {
		c.send("a NOOP")
		u.expect("a NOOP")
		u.send("a %s", in)
		if got := c.line(); got != "a "+want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// A line may arrive one octet at a time, in both directions.
func TestOctetByOctet(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	for _, b := range "a FETCH 1 (BODY[])\r\n" {
		c.raw(string(b))
	}
	u.expect("a FETCH 1 (UID BODY[])")
	answer := "* 1 FETCH (UID 4 BODY[] {5}\r\na\r\n)b FLAGS (\\Seen))\r\n* OK [REFERRAL x] y\r\n* LIST () NIL {3}\r\n\r\n}\r\na OK [CAPABILITY IMAP4rev1 XBAD] done\r\n"
	for _, b := range []byte(answer) {
		u.raw(string(b))
	}
	var got strings.Builder
	for {
		l := c.line()
		got.WriteString(l + "\n")
		if strings.HasPrefix(l, "a OK") {
			break
		}
	}
	want := "* 1 FETCH (UID 4 BODY[] {5}\na\n)b FLAGS (\\Seen))\n* OK y\n* LIST () NIL {3}\n\n}\na OK [CAPABILITY IMAP4rev1] done\n"
	if got.String() != want {
		t.Fatalf("got %q, want %q", got.String(), want)
	}
}

// A client that vanishes in mid-APPEND leaves nothing behind: the upstream's
// connection is closed with the literal incomplete.
func TestClientVanishesInAppend(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	c.raw("a APPEND INBOX {100+}\r\nSubject: half")
	u.expect("a APPEND INBOX {100}")
	u.raw("+ go\r\n")
	c.conn.Close()
	_ = u.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	rest, err := io.ReadAll(u.r)
	if err != nil || string(rest) != "Subject: half" {
		t.Fatalf("the upstream got %q, %v", rest, err)
	}
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndClientClosed {
		t.Fatalf("ended for %s", r)
	}
}

// TestNever9RefusalsToAClientThatDoesNotReadAreBounded: what Postern answers by
// itself waits for the client, not in memory.
func TestNever9RefusalsToAClientThatDoesNotReadAreBounded(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	<-upstreams
	n := 0
	_ = c.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	line := strings.Repeat("a FROBNICATE\r\n", 1000)
	for n < 256<<20 {
		m, err := io.WriteString(c.conn, line)
		n += m
		if err != nil {
			return
		}
	}
	t.Fatalf("%d octets of commands were answered to nobody", n)
}

// A flood of pipelined commands waits for the upstream instead of memory.
func TestPipelineIsBounded(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	sent := make(chan int, 1)
	go func() {
		n := 0
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		var all strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&all, "a%d NOOP\r\n", i)
		}
		line := all.String()
		for n < 64<<20 {
			m, err := io.WriteString(c.conn, line)
			n += m
			if err != nil {
				break
			}
		}
		sent <- n
	}()
	if n := <-sent; n >= 64<<20 {
		t.Fatalf("%d octets of commands were taken without an answer", n)
	}
	for i := range maxPipelined {
		u.expect(fmt.Sprintf("a%d NOOP", i))
	}
	_ = u.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := u.r.ReadByte(); err == nil {
		t.Fatal("more commands went upstream")
	}
}

// A tag that is under way already waits, so that no answer is taken for
// another's.
func TestDuplicateTagsWait(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a COPY 1 x\r\na NOOP\r\n")
	u.expect("a COPY 1 x")
	_ = u.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := u.r.ReadByte(); err == nil {
		t.Fatal("a command with the same tag went upstream")
	}
	u.raw("a NO\r\n")
	u.expect("a NOOP")
	u.raw("a OK\r\n")
	c.until("a OK")
	if got := gate.last().recorded(broker.EventMessageCopy); len(got) != 0 {
		t.Fatalf("recorded %+v", got)
	}
}

// Answers may come in another order than their commands went.
func TestAnswersOutOfOrder(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	long := strings.Repeat("t", imapwire.MaxTag)
	c.raw("a COPY 1 x\r\nA STORE 1 FLAGS (\\Seen)\r\n" + long + " EXPUNGE\r\n")
	u.expect("a COPY")
	u.expect("A STORE")
	u.expect(long + " EXPUNGE")
	u.raw(long + " OK\r\nA OK\r\na NO\r\n")
	c.until("a NO")
	s := gate.last()
	if len(s.recorded(broker.EventMessageCopy)) != 0 || len(s.recorded(broker.EventMessageFlag)) != 1 || len(s.recorded(broker.EventMessageExpunge)) != 1 {
		t.Fatalf("recorded %+v", s.events)
	}
}

// An APPEND may hold several literals that the upstream must give leave for, before
// its first message and between two.
func TestAppendWithManyLiterals(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a APPEND {2+}\r\n\xffa CATENATE (URL {2+}\r\n/\xfb URL {2+}\r\n/\xfc TEXT {1+}\r\nx URL {2+}\r\n/\xfd URL {2+}\r\n/\xfe)\r\n")
	for _, line := range []string{"a APPEND {2}", "\xffa CATENATE (URL {2}", "/\xfb URL {2}", "/\xfc TEXT {1}", "x URL {2}", "/\xfd URL {2}"} {
		u.expect(line)
		u.raw("+ go\r\n")
	}
	u.expect("/\xfe)")
	u.raw("a OK done\r\n")
	c.expect("a OK")
}

// TestNever2ATagCannotBeDONE: a DONE that crosses the upstream's own end of IDLE is
// answered as a command of that tag. That answer must not be another command's.
func TestNever2ATagCannotBeDONE(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a IDLE")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	c.expect("+ idling")
	c.raw("DONE\r\ndone STORE 1 +FLAGS (x)\r\n")
	u.expect("DONE")
	u.raw("a OK ended by itself\r\nDONE BAD no such command\r\n")
	c.expect("a OK")
	c.expect("done BAD choose another tag")
	nothingBut(t, c, u)
}
