// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/test/servers"
)

// A stalled log does not keep a session that has ended.
func TestNever4AStalledLogDoesNotKeepASession(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	gate.last().mu.Lock()
	gate.stall = make(chan struct{})
	gate.last().mu.Unlock()
	defer close(gate.stall)
	c.send("a FETCH 1 BODY[]")
	u.expect("a FETCH")
	go func() {
		_, _ = fmt.Fprintf(u.conn, "* 1 FETCH (UID 1 BODY[] {%d}\r\n", 8<<20)
		_, _ = u.conn.Write(make([]byte, 8<<20))
	}()
	c.expect("* 1 FETCH")
	if _, err := c.r.Discard(aheadOfRecord - submitAfter); err != nil {
		t.Fatal(err)
	}
	c.conn.Close()
	select {
	case <-rig.served:
	case <-time.After(2 * time.Second):
		t.Fatal("still served")
	}
}

// TestNever4SaysByeThoughARecordHasJustBecomeDurable: the end of a session and
// that of a record come together, and the client is told why all the same.
func TestNever4SaysByeThoughARecordHasJustBecomeDurable(t *testing.T) {
	for range 10 { // of two that are ready, one is chosen at random
		gate, upstreams := scripted(t)
		c := newRig(t, gate).login()
		u := <-upstreams
		gate.last().mu.Lock()
		stall := make(chan struct{})
		gate.stall = stall
		gate.last().mu.Unlock()
		c.send("a IDLE")
		u.expect("a IDLE")
		u.raw("+ idling\r\n")
		c.expect("+ idling")
		u.raw("* 1 FETCH (UID 9 BODY[TEXT] {3}\r\nabc)\r\n")
		c.until("abc)")
		<-time.After(5 * time.Millisecond) // for the record to be on its way, and then there; nothing depends on it
		close(stall)
		<-time.After(5 * time.Millisecond)
		gate.last().cancel(&broker.End{Reason: broker.EndRevoked, Text: "over"})
		if got := c.closed(); len(got) != 1 || got[0] != "* BYE [NOPERM] over" {
			t.Fatalf("the client is told %q", got)
		}
	}
}

// What is pushed in IDLE is recorded while IDLE lasts.
func TestPushedBodiesAreRecordedInIdle(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a IDLE")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	c.expect("+ idling")
	u.raw("* 1 FETCH (UID 9 BODY[TEXT] {3}\r\nabc)\r\n")
	c.until("abc)")
	for began := time.Now(); len(gate.last().recorded(broker.EventMessageOpen)) == 0; {
		if time.Since(began) > 5*time.Second {
			t.Fatal("nothing is recorded")
		}
		<-time.After(time.Millisecond)
	}
}

// The record of changes: COPYUID of MOVE comes untagged, REPLACE expunges.
func TestChangesAreRecordedWhole(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT x")
	u.expect("a SELECT x")
	u.raw("* OK [UIDVALIDITY 5]\r\na OK\r\n")
	c.until("a OK")
	c.send("b UID MOVE 1:2 y")
	u.expect("b UID MOVE 1:2 y")
	u.raw("* OK [COPYUID 7 1:2 3:4]\r\n* 1 EXPUNGE\r\nb OK\r\n")
	c.until("b OK")
	c.send("c UID COPY 1 y")
	u.expect("c UID COPY 1 y")
	u.raw("c OK\r\n")
	c.until("c OK")
	c.raw("d UID REPLACE 8 x {3+}\r\nabc\r\n")
	u.expect("d UID REPLACE 8 x {3}")
	u.raw("+ go\r\n")
	u.expect("abc")
	u.raw("* OK [APPENDUID 5 9]\r\n* 3 EXPUNGE\r\nd OK\r\n")
	c.until("d OK")
	s := gate.last()
	for kind, want := range map[broker.EventType]string{
		broker.EventMessageMove:    "[{x 5 1:2 true y  7 1:2 3:4 }]",
		broker.EventMessageCopy:    "[{x 5 1 true y   }]",
		broker.EventMessageExpunge: "[{x 5 8 true    }]",
	} {
		if got := fmt.Sprint(s.recorded(kind)); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	if got := s.recorded(broker.EventMessageAppend); len(got) != 1 || got[0].(broker.MessageAppend).AppendUID != "5 9" {
		t.Errorf("appended %+v", got)
	}
}

// TestChangesWithoutAnOKAreRecorded: what a session may have changed is in the
// record, though nobody can tell: a command that was refused, one that the
// session's end cut off. So is what reading header fields sets, and no more of
// reading a body than its opening.
func TestChangesWithoutAnOKAreRecorded(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT x")
	u.expect("a SELECT x")
	u.raw("* OK [UIDVALIDITY 5]\r\na OK\r\n")
	c.until("a OK")
	for _, x := range []struct{ command, answer string }{
		{`b UID STORE 1 +FLAGS (\Flagged)`, "b NO a part of it"},
		{"c UID MOVE 2 y", "c NO a part of it"},
		{"d UID COPY 3 y", "d NO nothing"},
		{"e EXPUNGE", "e BAD no"},
		{"f UID FETCH 4 BODY[HEADER]", "* 4 FETCH (UID 4 BODY[HEADER] \"\")\r\nf OK"},
		{"g UID FETCH 5 BODY.PEEK[HEADER]", "* 5 FETCH (UID 5 BODY[HEADER] \"\")\r\ng OK"},
		{"h UID FETCH 6 (UID BODY[])", "* 6 FETCH (UID 6 BODY[] {21}\r\nMessage-ID: <a@b>\r\n\r\n)\r\nh OK"},
	} {
		c.raw(x.command + "\r\n")
		u.expect(x.command)
		u.raw(x.answer + "\r\n")
		c.until(x.answer[strings.LastIndex(x.answer, "\n")+1:][:4])
	}
	c.send(`i UID FETCH 7 (UID BODY[TEXT])`)
	u.expect(`i UID FETCH 7 (UID BODY[TEXT])`)
	c.send(`j STORE 8 -FLAGS (\Seen)`)
	u.expect(`j STORE 8 -FLAGS (\Seen)`)
	c.send("k UID EXPUNGE 9")
	u.expect("k UID EXPUNGE 9")
	s := gate.last()
	u.conn.Close()
	servers.WaitFor(t, 30*time.Second, func() bool { return s.endReason() != "" }, "the session's end")
	for kind, want := range map[broker.EventType]string{
		broker.EventMessageFlag: `[{x 5 1 true  +FLAGS (\Flagged)  refused} {x 5 4 true  +FLAGS (\Seen)  } ` +
			`{x 5 7 true  +FLAGS (\Seen)  unanswered} {x 5 8 false  -FLAGS (\Seen)  unanswered}]`,
		broker.EventMessageMove:    "[{x 5 2 true y   refused}]",
		broker.EventMessageCopy:    "[]",
		broker.EventMessageExpunge: "[{x 5 9 true    unanswered}]",
	} {
		if got := fmt.Sprint(s.recorded(kind)); got != want {
			t.Errorf("%s: %s, want %s", kind, got, want)
		}
	}
	if n := len(s.recorded(broker.EventMessageOpen)); n != 1 {
		t.Errorf("%d openings", n)
	}
}

// TestALongFetchIsRecordedAgainAtItsEnd: what is opened in a long FETCH is recorded
// before the server sets \Seen, which many do at its end. So the record says once
// more, after that, who set it: else it looks like somebody else's work.
func TestALongFetchIsRecordedAgainAtItsEnd(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.send("a SELECT x")
	u.expect("a SELECT x")
	u.raw("* OK [UIDVALIDITY 5]\r\na OK\r\n")
	c.until("a OK")
	fetch := func(tag, uid, item string, octets int) {
		command := fmt.Sprintf("%s UID FETCH %s (UID %s)", tag, uid, item)
		c.raw(command + "\r\n")
		u.expect(command)
		body := "Message-ID: <a@b>\r\n\r\n" + strings.Repeat("x", octets)
		go func() {
			_, _ = fmt.Fprintf(u.conn, "* 1 FETCH (UID %s BODY[] {%d}\r\n%s)\r\n%s OK\r\n", uid, len(body), body, tag)
		}()
		c.until(tag + " OK")
	}
	fetch("b", "1", "BODY[]", submitAfter)
	fetch("c", "2", "BODY[]", 10)
	fetch("d", "3", "BODY.PEEK[]", submitAfter)
	s := gate.last()
	if got, want := fmt.Sprint(s.recorded(broker.EventMessageFlag)), `[{x 5 1 true  +FLAGS (\Seen)  }]`; got != want {
		t.Errorf("recorded %s, want %s", got, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	first := func(kind broker.EventType) int {
		return slices.IndexFunc(s.events, func(e recorded) bool { return e.Type == kind })
	}
	if first(broker.EventMessageFlag) < first(broker.EventMessageOpen) {
		t.Error(`\Seen is recorded before the opening`)
	}
}

// TestPace: messages that are opened faster than anybody reads are recorded as a
// synchronisation, from the twentieth within a minute on.
func TestPace(t *testing.T) {
	p, now := new(pace), time.Unix(1e9, 0)
	for i := range 60 {
		now = now.Add(2 * time.Second)
		if got, want := p.sync(now), i+1 >= broker.SyncMessages; got != want {
			t.Fatalf("message %d, one each two seconds: %v", i+1, got)
		}
	}
	for i := range 60 {
		now = now.Add(4 * time.Second)
		if p.sync(now) && i >= broker.SyncMessages {
			t.Fatalf("message %d, one each four seconds, is a synchronisation", i+1)
		}
	}
}
