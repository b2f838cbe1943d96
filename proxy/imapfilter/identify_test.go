// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// TestNever2OwnCommandsDoNotRenumber: Postern asks for Message-IDs by a command
// in which the upstream may expunge. Before a command that names messages by
// their numbers, that would make the numbers mean other messages.
func TestNever2OwnCommandsDoNotRenumber(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("* OK [UIDVALIDITY 1]\r\na OK\r\n")
	c.until("a OK")
	c.send("b UID FETCH 3 BODY[TEXT]")
	u.expect("b UID FETCH")
	u.raw("* 1 FETCH (UID 3 BODY[TEXT] {1}\r\nx)\r\nb OK\r\n")
	c.until("b OK")
	for _, command := range []string{
		"STORE 1 +FLAGS (\\Deleted)", "FETCH 1 FLAGS", "COPY 1 x", "MOVE 1 x", "SEARCH 1:5 SEEN", "UID SEARCH 1:5 SEEN",
		"SORT (SUBJECT) UTF-8 1:5", "UID SORT (SUBJECT) UTF-8 1:5", "THREAD REFERENCES UTF-8 1:5", "UID THREAD REFERENCES UTF-8 1:5",
	} {
		c.send("c %s", command)
		u.expect("c " + command)
		u.raw("c OK\r\n")
		c.until("c OK")
	}
	c.raw("d REPLACE 1 x {3+}\r\nabc\r\n")
	u.expect("d REPLACE 1 x {3}")
	u.raw("d NO\r\n")
	c.expect("d NO")
	// A command that names none: now it asks. Flags that come with the answer
	// are for the client.
	c.send("e UID STORE 3 +FLAGS (\\Seen)")
	own, rest, _ := strings.Cut(u.line(), " ")
	if !strings.HasPrefix(rest, "UID FETCH 3 ") {
		t.Fatalf("got %q", rest)
	}
	u.raw("* 1 FETCH (FLAGS (\\Answered) UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)] {17}\r\nMessage-ID: <x>\r\n)\r\n* 1 EXPUNGE\r\n" + own + " OK\r\n")
	c.expect("* 1 FETCH (FLAGS (\\Answered) UID 3)")
	c.expect("* 1 EXPUNGE")
	u.expect("e UID STORE")
	u.raw("e OK\r\n")
	c.expect("e OK")
	if got := gate.last().recorded(broker.EventMessageIdentify); len(got) != 1 || got[0].(broker.MessageIdentify).MessageID != "<x>" {
		t.Fatalf("identified %+v", got)
	}
}

// TestNever2OwnFetchTellsNoHeader: what Postern alone asks for does not reach a
// client that may see no headers, though flags come with it.
func TestNever2OwnFetchTellsNoHeader(t *testing.T) {
	for line, want := range map[string]string{
		"* 1 FETCH (FLAGS (x) UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)] {17}\r\nMessage-ID: <x>\r\n)\r\n":                 "* 1 FETCH (FLAGS (x) UID 3)\r\n",
		"* 1 FETCH (BODY[HEADER.FIELDS (MESSAGE-ID)] {17}\r\nMessage-ID: <x>\r\n UID 3 FLAGS (x))\r\n":                 "* 1 FETCH (UID 3 FLAGS (x))\r\n",
		"* 1 FETCH (UID 3 body[header.fields (\"Message-ID\")] \"Message-ID: \\\"] \" FLAGS (BODY[HEADER.FIELDS))\r\n": "* 1 FETCH (UID 3 FLAGS (BODY[HEADER.FIELDS))\r\n",
		"* 1 FETCH (UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)] NIL FLAGS (x))\r\n":                                         "* 1 FETCH (UID 3 FLAGS (x))\r\n",
		"* 1 FETCH (UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)] {99}\r\nMessage-ID: <x>\r\n)\r\n":                           "",
		"* 1 FETCH (UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)]":                                                            "",
		"* 1 FETCH (UID 3 FLAGS (x))\r\n":                                                                              "",
	} {
		if got := string(withoutHeader([]byte(line))); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestNever3HangingUpHidesNoMessageID: a client that reads a body without its header
// and hangs up at once does not keep it from being known which message it was.
func TestNever3HangingUpHidesNoMessageID(t *testing.T) {
	gate, upstreams := scripted(t)
	r := newRig(t, gate)
	r.filter.listenAfter = time.Minute // whatever a busy machine takes
	c := r.login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("* OK [UIDVALIDITY 1]\r\na OK\r\n")
	c.until("a OK")
	c.send("b UID FETCH 3 BODY.PEEK[TEXT]")
	u.expect("b UID FETCH")
	u.raw("* 1 FETCH (UID 3 BODY[TEXT] {1}\r\nx)\r\nb OK\r\n")
	c.until("b OK")
	c.conn.Close()
	own, rest, _ := strings.Cut(u.line(), " ")
	if !strings.HasPrefix(rest, "UID FETCH 3 ") {
		t.Fatalf("got %q", rest)
	}
	u.raw("* 1 FETCH (UID 3 BODY[HEADER.FIELDS (MESSAGE-ID)] {17}\r\nMessage-ID: <x>\r\n)\r\n" + own + " OK\r\n")
	u.closed()
	<-r.served
	session := gate.last()
	if got := session.recorded(broker.EventMessageIdentify); len(got) != 1 || got[0].(broker.MessageIdentify).MessageID != "<x>" {
		t.Errorf("identified %+v", got)
	}
	if reason := session.endReason(); reason != broker.EndClientClosed {
		t.Errorf("it ended as %s", reason)
	}
}

// TestClientThatHasGoneWaitsForNoUpstream: an upstream that does not answer what it
// is asked then does not keep the session.
func TestClientThatHasGoneWaitsForNoUpstream(t *testing.T) {
	gate, upstreams := scripted(t)
	r := newRig(t, gate)
	c := r.login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("* OK [UIDVALIDITY 1]\r\na OK\r\n")
	c.until("a OK")
	c.send("b UID FETCH 3 BODY.PEEK[TEXT]")
	u.expect("b UID FETCH")
	u.raw("* 1 FETCH (UID 3 BODY[TEXT] {1}\r\nx)\r\nb OK\r\n")
	c.until("b OK")
	c.conn.Close()
	u.closed() // after what it was asked
	<-r.served
}
