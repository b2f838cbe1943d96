// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"strings"
	"testing"
	"time"
)

// beginIdle takes a session into IDLE.
func beginIdle(c, u *peer) {
	c.send("a IDLE")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	c.expect("+ idling")
}

// The upstream ends IDLE by itself, and the client's DONE crosses that.
func TestDoneThatCrossesTheEndOfIdle(t *testing.T) {
	for _, answer := range []string{"DONE BAD Error in IMAP command", "DONE NO what", "* BAD what"} {
		gate, upstreams := scripted(t)
		c := newRig(t, gate).login()
		u := <-upstreams
		beginIdle(c, u)
		// The upstream sends its answer when it has not read DONE yet: to
		// Postern they cross when DONE has gone before the answer is read.
		c.send("DONE")
		u.expect("DONE")
		u.raw("a OK Idle timed out\r\n" + answer + "\r\n")
		c.expect("a OK")
		c.send("b NOOP")
		u.expect("b NOOP")
		u.raw("b OK\r\n")
		if got := c.until("b OK"); strings.Contains(strings.Join(got, ""), "DONE") {
			t.Fatalf("got %q", got)
		}
	}
}

// The upstream ends IDLE before the client does.
func TestUpstreamEndsIdle(t *testing.T) {
	for _, then := range []string{"DONE\r\nb NOOP\r\n", "b NOOP\r\n"} {
		gate, upstreams := scripted(t)
		c := newRig(t, gate).login()
		u := <-upstreams
		beginIdle(c, u)
		u.raw("a OK Idle timed out\r\n")
		c.expect("a OK Idle timed out")
		c.raw(then)
		u.expect("b NOOP")
		u.raw("b OK\r\n")
		c.expect("b OK")
	}
}

// Commands behind DONE wait for the end of IDLE.
func TestPipelinedBehindIdle(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	c.raw("a IDLE\r\nDONE\r\nb NOOP\r\nc IDLE\r\nDONE\r\n")
	u.expect("a IDLE")
	u.raw("+ idling\r\n")
	u.expect("DONE")
	u.raw("a OK\r\n")
	u.expect("b NOOP")
	u.raw("b OK\r\n")
	u.expect("c IDLE")
	u.raw("+ idling\r\n")
	u.expect("DONE")
	u.raw("c OK\r\n")
	c.until("c OK")
}

// A command in IDLE is an error that ends the session; it is not carried out.
func TestCommandInIdle(t *testing.T) {
	gate, upstreams := scripted(t)
	c := newRig(t, gate).login()
	u := <-upstreams
	beginIdle(c, u)
	c.send("b DELETE INBOX")
	u.expect("DONE")
	u.raw("a OK\r\n")
	c.expect("a OK")
	c.expect("* BAD only DONE ends IDLE")
	c.expect("* BYE")
	if s, err := u.tryLine(); err == nil {
		t.Fatalf("the upstream got %q", s)
	}
}

// IDLE is renewed while the client says DONE, over and over: at no moment of a
// renewal may the two be confused.
func TestRenewalRacesDone(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	rig.filter.reIdle, rig.filter.reIdleJitter, rig.filter.stillHere = 2*time.Millisecond, 1, time.Millisecond
	c := rig.login()
	u := <-upstreams
	// An upstream that ends IDLE by itself now and then.
	served := make(chan struct{})
	go func() {
		defer close(served)
		idle, n := "", 0
		for {
			line, err := u.tryLine()
			if err != nil {
				return
			}
			tag, rest, _ := strings.Cut(line, " ")
			switch {
			case rest == "IDLE":
				idle = tag
				u.raw("+ idling\r\n")
				if n++; n%7 == 0 {
					u.raw(idle + " OK Idle timed out\r\n")
					idle = ""
				}
			case line == "DONE" && idle == "":
				u.raw("DONE BAD no IDLE here\r\n")
			case line == "DONE":
				u.raw(idle + " OK Idle completed\r\n")
				idle = ""
			default:
				u.raw(tag + " OK done\r\n")
			}
		}
	}()
	for i := range 300 {
		c.send("a IDLE")
		c.expect("+ idling")
		<-time.After(time.Duration(i%5) * 500 * time.Microsecond)
		c.send("DONE")
		if got := c.until("a OK"); strings.Contains(strings.Join(got, "|"), "pn") {
			t.Fatalf("got %q", got)
		}
		c.send("b NOOP")
		c.until("b OK")
	}
	c.conn.Close()
	<-served
}
