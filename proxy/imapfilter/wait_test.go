// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// TestNever9AClientThatIsGoneKeepsNoSession: while a command waits for an
// upstream that does not answer, the client's leaving is noticed all the same.
func TestNever9AClientThatIsGoneKeepsNoSession(t *testing.T) {
	for _, commands := range []string{
		"a SELECT x\r\nb NOOP\r\n", "a NOOP\r\nb IDLE\r\n", "a IDLE\r\n", "a NOOP\r\nb FROBNICATE\r\n",
		"a APPEND x {3}\r\n", "a APPEND x {3+}\r\n", "a SEARCH SUBJECT {1+}\r\n\xff\r\n", "a SELECT x\r\nb LOGOUT\r\n",
	} {
		gate, upstreams := scripted(t)
		rig := newRig(t, gate)
		rig.filter.listenAfter = 10 * time.Millisecond
		c := rig.login()
		u := <-upstreams
		c.raw(commands)
		u.expect("a ")
		c.conn.Close()
		select {
		case <-rig.served:
		case <-time.After(5 * time.Second):
			t.Fatalf("%q: still served", commands)
		}
		if r := gate.last().endReason(); r != broker.EndClientClosed {
			t.Errorf("%q: ended for %s", commands, r)
		}
	}
}

// TestNever2AnAnswerIsWholeBeforeTheNextCommand: an upstream that is quick can
// have a command's answer read while the client's goroutine is still about to wait
// for it. Until what the answer says is noted, it must not go on.
func TestNever2AnAnswerIsWholeBeforeTheNextCommand(t *testing.T) {
	r := &relay{signal: make(chan struct{}, 1)}
	r.push(inFlight{tag: "P1", own: true}, expectForPostern)
	if _, ok := r.completed([]byte("P1")); !ok {
		t.Fatal("no such command")
	}
	if nothingPending(r) || continued(r) {
		t.Error("the command is taken for answered before its answer was handled")
	}
	r.answered()
	if !nothingPending(r) || !continued(r) {
		t.Error("the command is not answered")
	}
}

// What the client sends while it waits is neither lost nor out of order.
func TestReadingAheadLosesNothing(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.listenAfter = time.Millisecond
	c := rig.login()
	u := <-upstreams
	long := strings.Repeat("x", 3000)
	for range 20 {
		c.raw("a SELECT x\r\nb NOOP\r\n")
		u.expect("a SELECT x")
		for _, piece := range []string{"c NO", "OP\r", "\nd SEARCH SUBJECT \"" + long, "\"\r\ne SEARCH SUBJECT {4+}\r\n", "\xffa\r\n\r\nf NOOP\r\n"} {
			c.raw(piece)
			<-time.After(2 * time.Millisecond) // so that it is read by itself; nothing depends on it
		}
		u.raw("a OK\r\n")
		u.expect("b NOOP")
		u.expect("c NOOP")
		u.expect("d SEARCH SUBJECT \"" + long + "\"")
		u.raw("b OK\r\nc OK\r\nd OK\r\n")
		u.expect("e SEARCH SUBJECT {4}")
		u.raw("+ go\r\n")
		u.expect("\xffa")
		u.expect("")
		u.raw("e OK\r\n")
		u.expect("f NOOP")
		u.raw("f OK\r\n")
		c.until("f OK")
	}
}

// A client may pipeline more than is read ahead.
func TestReadingAheadIsBounded(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.listenAfter = time.Millisecond
	c := rig.login()
	u := <-upstreams
	const commands = 40000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.raw("a SELECT x\r\n" + strings.Repeat("b NOOP\r\n", commands))
	}()
	u.expect("a SELECT x")
	u.raw("a OK\r\n")
	for range commands {
		u.expect("b NOOP")
		u.raw("b OK\r\n")
	}
	<-sent
}

func TestNever9AnUpstreamThatDoesNotAnswerEndsTheSession(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.listenAfter, rig.filter.silence = time.Millisecond, 300*time.Millisecond
	c := rig.login()
	u := <-upstreams
	c.raw("a SELECT x\r\nb NOOP\r\n")
	u.expect("a SELECT x")
	for range 4 { // words are a sign of life
		<-time.After(100 * time.Millisecond)
		u.raw("* OK still looking\r\n")
		c.expect("* OK still looking")
	}
	c.expect("* BYE [UNAVAILABLE] the mail server does not answer")
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndUpstreamClosed {
		t.Errorf("ended for %s", r)
	}
}

// An upstream that does not read holds no session up for ever, nor does a
// client.
func TestNever9PeersThatTakeNothingEndTheSession(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.silence = 300 * time.Millisecond
	c := rig.login()
	u := <-upstreams
	c.raw("a APPEND x {1000000000+}\r\n")
	u.expect("a APPEND x")
	u.raw("+ go\r\n")
	go writeOn(c.conn, strings.Repeat("x", 1<<16))
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndUpstreamClosed {
		t.Errorf("ended for %s", r)
	}

	c = rig.login()
	u = <-upstreams
	c.raw("a NOOP\r\n")
	u.expect("a NOOP")
	go writeOn(u.conn, strings.Repeat("* 1 EXISTS\r\n", 5000))
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndIdle {
		t.Errorf("ended for %s", r)
	}
}

// writeOn writes one chunk again and again, until the connection is closed.
func writeOn(conn net.Conn, chunk string) {
	for {
		if _, err := io.WriteString(conn, chunk); err != nil {
			return
		}
	}
}
