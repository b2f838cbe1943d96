// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/test/servers"
)

func TestRelayPassesCommandsAndAnswers(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a1 noop")
	u.expect("a1 NOOP")
	u.raw("* 3 EXISTS\r\n* LIST () \"/\" {5}\r\na\r\nb}\r\na1 OK [REFERRAL imap://other.example/] done\r\n")
	for _, want := range []string{"* 3 EXISTS", `* LIST () "/" {5}`, "a", "b}", "a1 OK done"} {
		if got := c.line(); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	c.send("a2 CAPABILITY")
	u.expect("a2 CAPABILITY")
	u.raw("* CAPABILITY IMAP4rev1 IDLE STARTTLS COMPRESS=DEFLATE AUTH=PLAIN XEVIL\r\na2 OK done\r\n")
	if got := c.line(); got != "* CAPABILITY IMAP4rev1 IDLE" {
		t.Fatalf("got %q", got)
	}
	c.expect("a2 OK")
	c.send("a3 LOGOUT")
	u.expect("a3 LOGOUT")
	u.raw("* BYE imap.upstream.example says farewell\r\na3 OK done\r\n")
	if got := c.closed(); fmt.Sprint(got) != "[* BYE Logging out a3 OK done]" {
		t.Fatalf("got %q", got)
	}
}

func TestRelayPipelines(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a NOOP\r\nb CHECK\r\nc NOOP\r\nd SELECT INBOX\r\ne NOOP\r\n")
	u.expect("a NOOP")
	u.expect("b CHECK")
	u.expect("c NOOP")
	u.raw("a OK\r\nb OK\r\nc OK\r\n")
	u.expect("d SELECT INBOX")
	u.raw("* OK [UIDVALIDITY 7] ok\r\nd OK [READ-WRITE] done\r\n")
	u.expect("e NOOP")
	u.raw("e OK done\r\n")
	c.until("e OK")
}

func TestRelayRecordsWhatPasses(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT Work")
	u.expect("a SELECT Work")
	u.raw("* OK [UIDVALIDITY 77] ok\r\na OK done\r\n")
	c.until("a OK")
	c.send("b FETCH 1:2 BODY[]")
	u.expect("b FETCH 1:2 (UID BODY[])")
	m := "Subject: x\r\nMessage-ID:\r\n <1@firm.example>\r\n\r\nbody"
	u.raw(fmt.Sprintf("* 1 FETCH (UID 11 BODY[] {%d}\r\n%s)\r\n* 2 FETCH (BODY[] {4}\r\nabcd UID 12)\r\nb OK done\r\n", len(m), m))
	c.until("b OK")
	c.send("c NOOP")
	tag, rest, _ := strings.Cut(u.line(), " ")
	if rest != "UID FETCH 12 (UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])" {
		t.Fatalf("got %q", rest)
	}
	u.raw("* 2 FETCH (FLAGS (\\Seen))\r\n* 2 FETCH (UID 12 BODY[HEADER.FIELDS (MESSAGE-ID)] {29}\r\nMessage-ID: <2@b.example>\r\n\r\n)\r\n" + tag + " OK done\r\n")
	u.expect("c NOOP")
	u.raw("c OK done\r\n")
	if got := c.until("c OK"); fmt.Sprint(got) != `[* 2 FETCH (FLAGS (\Seen)) c OK done]` {
		t.Fatalf("the client got %q", got)
	}
	s := gate.last()
	opened := s.recorded(broker.EventMessageOpen)
	want := broker.MessageOpen{Folder: "Work", UIDValidity: 77, Messages: []broker.OpenedMessage{
		{UID: 11, Seq: 1, Section: "BODY[]", Octets: int64(len(m)), MessageID: "<1@firm.example>"},
		{UID: 12, Seq: 2, Section: "BODY[]", Octets: 4},
	}}
	if len(opened) != 1 || fmt.Sprint(opened[0]) != fmt.Sprint(want) {
		t.Fatalf("recorded %+v, want %+v", opened, want)
	}
	if got := fmt.Sprint(s.recorded(broker.EventMessageIdentify)); got != "[{Work 77 12 <2@b.example>}]" {
		t.Fatalf("identified %s", got)
	}
}

func TestRelayAppend(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send(`a APPEND "Sent" (\Seen) "01-Jan-2026 10:00:00 +0000" {20}`)
	u.expect(`a APPEND "Sent" (\Seen) "01-Jan-2026 10:00:00 +0000" {20}`)
	u.raw("+ go\r\n")
	c.expect("+ go")
	c.raw("Message-ID: <x>\r\n\r\n!\r\n")
	if got := u.line() + u.line() + u.line(); got != "Message-ID: <x>!" {
		t.Fatalf("got %q", got)
	}
	u.raw("a OK [APPENDUID 7 9] done\r\n")
	c.expect("a OK [APPENDUID 7 9] done")
	got := gate.last().recorded(broker.EventMessageAppend)
	if len(got) != 1 || got[0].(broker.MessageAppend).MessageID != "<x>" || got[0].(broker.MessageAppend).AppendUID != "7 9" {
		t.Fatalf("recorded %+v", got)
	}
	// Refused by the upstream before the literal: the client goes on.
	c.send(`b APPEND Nowhere {5}`)
	u.expect(`b APPEND Nowhere {5}`)
	u.raw("b NO [TRYCREATE] no such folder\r\n")
	c.expect("b NO [TRYCREATE]")
	// Several messages, without waiting.
	c.raw("c APPEND Sent {3+}\r\nabc {2+}\r\nde\r\nd NOOP\r\n")
	u.expect("c APPEND Sent {3}")
	u.raw("+ go\r\n")
	u.expect("abc {2}")
	u.raw("+ go\r\n")
	u.expect("de")
	u.raw("c OK done\r\n")
	c.expect("c OK")
	u.expect("d NOOP")
	u.raw("d OK\r\n")
	c.expect("d OK")
}

func TestRelayIdle(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.reIdle, rig.filter.reIdleJitter, rig.filter.stillHere = 80*time.Millisecond, 1, 30*time.Millisecond
	c := rig.login()
	u := <-upstreams
	c.send("a IDLE")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	c.expect("+ idling")
	c.expect("* OK Still here")
	u.expect("DONE")
	u.raw("a OK done\r\n")
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw("+ idling\r\n* 5 EXISTS\r\n")
	for c.line() != "* 5 EXISTS" {
	}
	c.send("DONE")
	u.expect("DONE")
	u.raw(tag + " OK Idle completed\r\n")
	if got := c.until("a OK"); got[len(got)-1] != "a OK Idle completed" {
		t.Fatalf("got %q", got)
	}
	// Refused: the client goes on.
	c.send("b IDLE")
	u.expect("b IDLE")
	u.raw("b NO not now\r\n")
	c.until("b NO")
	c.send("c NOOP")
	u.expect("c NOOP")
	u.raw("c OK\r\n")
	c.until("c OK")
}

func TestKillInIdle(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a IDLE")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	c.expect("+ idling")
	watch := servers.StartStopwatch(t)
	gate.last().cancel(&broker.End{Reason: broker.EndRevoked, Text: "the firm revoked it"})
	if got := c.closed(); len(got) != 1 || got[0] != "* BYE [NOPERM] the firm revoked it" {
		t.Fatalf("got %q", got)
	}
	watch.Within(t, "the end", time.Second)
	if _, err := u.tryLine(); err == nil {
		t.Fatal("the upstream is still open")
	}
}

// The client does not read, and the upstream keeps sending: the kill must wait
// for neither.
func TestKillInFetchToAClientThatDoesNotRead(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("a OK\r\n")
	c.until("a OK")
	c.send("b FETCH 1 BODY[]")
	u.expect("b FETCH")
	go func() {
		chunk := strings.Repeat("x", 1<<16)
		fmt.Fprintf(u.conn, "* 1 FETCH (UID 1 BODY[] {%d}\r\n", 1<<40)
		for {
			if _, err := u.conn.Write([]byte(chunk)); err != nil {
				return
			}
		}
	}()
	time.Sleep(300 * time.Millisecond) // until the sockets' buffers are full
	watch := servers.StartStopwatch(t)
	gate.last().cancel(&broker.End{Reason: broker.EndRevoked, Text: "over"})
	select {
	case <-rig.served:
	case <-time.After(20 * time.Second):
		t.Fatal("still alive")
	}
	watch.Within(t, "the end", time.Second)
}

func TestRelayEndsWhenTheUpstreamCloses(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	u.conn.Close()
	if got := c.closed(); len(got) != 1 || !strings.HasPrefix(got[0], "* BYE [UNAVAILABLE]") {
		t.Fatalf("got %q", got)
	}
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndUpstreamClosed {
		t.Fatalf("ended for %s", r)
	}
}

func TestRelayNeverPassesMoreThanOneMebibyteAheadOfItsRecord(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT INBOX")
	u.expect("a SELECT")
	u.raw("a OK\r\n")
	c.until("a OK")
	gate.last().mu.Lock()
	gate.stall = make(chan struct{})
	gate.last().mu.Unlock()
	c.send("b FETCH 1 BODY[]")
	u.expect("b FETCH")
	const size = 3 << 20
	go func() {
		fmt.Fprintf(u.conn, "* 1 FETCH (UID 1 BODY[] {%d}\r\n", size)
		_, _ = u.conn.Write([]byte(strings.Repeat("x", size)))
		_, _ = u.conn.Write([]byte(")\r\nb OK\r\n"))
	}()
	c.expect("* 1 FETCH")
	got := 0
	buf := make([]byte, 1<<16)
	_ = c.conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	for {
		n, err := c.r.Read(buf)
		got += n
		if err != nil {
			break
		}
	}
	if got > aheadOfRecord || got < aheadOfRecord/2 {
		t.Fatalf("%d octets passed ahead of the record", got)
	}
	close(gate.stall)
	c.until(strings.Repeat("x", 10))
	c.until("b OK")
}

func TestRelayEndsWhenTheRecordFails(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	gate.last().mu.Lock()
	gate.logFails = true
	gate.last().mu.Unlock()
	c.send("b FETCH 1 BODY[]")
	u.expect("b FETCH")
	u.raw("* 1 FETCH (UID 1 BODY[] {3}\r\nabc)\r\nb OK\r\n")
	c.closed()
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndRecord {
		t.Fatalf("ended for %s", r)
	}
}

func TestLoginRefusals(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{broker.Errorf(broker.Denied, "no"), "a NO [AUTHENTICATIONFAILED] no"},
		{broker.Errorf(broker.Refused, "out of hours"), "a NO [AUTHORIZATIONFAILED] out of hours"},
		{broker.Errorf(broker.Limit, "full"), "a NO [LIMIT] full"},
		{broker.Errorf(broker.Unavailable, "vault"), "a NO [UNAVAILABLE] vault"},
		{broker.Errorf(broker.CredentialRefused, "drift"), "a NO [CONTACTADMIN] drift"},
		{errors.New("secret cause"), "a NO [UNAVAILABLE] internal error"},
	} {
		gate, _ := scripted(t)
		gate.refuse = tc.err
		c := newRig(t, gate).connect()
		c.send("a LOGIN box@firm.example x")
		if got := c.line(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestLoginMechanisms(t *testing.T) {
	for name, lines := range map[string][]string{
		"LOGIN literals":   {"a LOGIN {16}", "box@firm.example {6+}", "secret"},
		"PLAIN initial":    {"a AUTHENTICATE PLAIN AGJveEBmaXJtLmV4YW1wbGUAc2VjcmV0"},
		"PLAIN challenged": {"a AUTHENTICATE PLAIN", "AGJveEBmaXJtLmV4YW1wbGUAc2VjcmV0"},
		"LOGIN mechanism":  {"a AUTHENTICATE LOGIN", "Ym94QGZpcm0uZXhhbXBsZQ==", "c2VjcmV0"},
		"OAUTHBEARER":      {"a AUTHENTICATE OAUTHBEARER bixhPWJveEBmaXJtLmV4YW1wbGUsAWF1dGg9QmVhcmVyIHNlY3JldAEB"},
	} {
		t.Run(name, func(t *testing.T) {
			gate, upstreams := scripted(t)
			c := newRig(t, gate).connect()
			for i, l := range lines {
				c.send("%s", l)
				if i < len(lines)-1 && !strings.HasSuffix(lines[i], "+}") {
					c.expect("+ ")
				}
			}
			c.expect("a OK [CAPABILITY ")
			<-upstreams
		})
	}
}

func TestActionsAreEnforced(t *testing.T) {
	gate, upstreams := scripted(t)
	gate.decision = policy.Decision{Actions: policy.List | policy.Headers | policy.Read}
	r := newRig(t, gate)
	c := r.connect()
	c.send("l LOGIN box@firm.example secret")
	u := <-upstreams
	tag, _, _ := strings.Cut(u.line(), " ")
	u.raw("* LIST (\\Trash) \"/\" Papierkorb\r\n" + tag + " OK\r\n")
	c.expect("l OK")
	c.send("a FETCH 1 (BODY[TEXT])")
	u.expect("a FETCH 1 (UID BODY.PEEK[TEXT])")
	u.raw("a OK\r\n")
	c.expect("a OK")
	for _, refused := range []string{
		`b STORE 1 +FLAGS (\Seen)`, `b STORE 1 FLAGS \Deleted`, "b EXPUNGE", "b COPY 1 x", "b UID MOVE 1 x",
		"b CREATE x", "b DELETE x", "b RENAME x y", "b SUBSCRIBE x", "b FETCH 1 RFC822", "b APPEND x {5}", "b APPEND x {5+}\r\nabcde",
	} {
		c.send("%s", refused)
		if got := c.line(); !strings.HasPrefix(got, "b NO [NOPERM] ") {
			t.Errorf("%s: %s", refused, got)
		}
	}
	c.send("c CLOSE")
	u.expect("c UNSELECT")
	u.raw("c OK\r\n")
	c.expect("c OK")
}
