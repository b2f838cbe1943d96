// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/test/servers"
)

// A client that was still sending reads why it was cut off, and is not reset.
func TestLastWordsReachAClientThatIsSending(t *testing.T) {
	for range 20 {
		gate, upstreams := scripted(t)
		c := newRig(t, gate).login()
		<-upstreams
		c.raw("a NOOP\nb NOOP\r\n" + strings.Repeat("c NOOP\r\n", 5000))
		for {
			_, err := c.tryLine()
			if errors.Is(err, syscall.ECONNRESET) {
				t.Fatal("reset")
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
		}
	}
}

// LOGOUT's answer reaches a client that has closed its own side behind it.
func TestLogoutBeforeTheEndOfInput(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	c.raw("a NOOP\r\nb LOGOUT\r\n")
	if err := c.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	u.expect("a NOOP")
	u.raw("a OK\r\n")
	u.expect("b LOGOUT")
	<-time.After(50 * time.Millisecond) // for the end of input to be read; nothing depends on it
	u.raw("* BYE\r\nb OK done\r\n")
	c.until("b OK done")
	<-rig.served
	if r := gate.last().endReason(); r != broker.EndLogout {
		t.Errorf("ended for %s", r)
	}
}

// TestNever4KilledInEveryState: a session is over, with both connections, soon
// after its context is cancelled, whatever it is doing and whatever either peer
// does.
func TestNever4KilledInEveryState(t *testing.T) {
	flood := func(p *peer, head, chunk string) {
		p.raw(head)
		go func() {
			for {
				if _, err := io.WriteString(p.conn, chunk); err != nil {
					return
				}
			}
		}()
	}
	big := strings.Repeat("x", 1<<16)
	for name, state := range map[string]func(c, u *peer){
		"at rest": func(c, u *peer) {},
		"in mid-line": func(c, u *peer) {
			c.raw("a NOO")
		},
		"in mid-literal": func(c, u *peer) {
			c.raw("a SEARCH SUBJECT {50}\r\n")
			c.expect("+ ")
			c.raw("abc")
		},
		"waiting for an answer": func(c, u *peer) {
			c.raw("a SELECT x\r\nb NOOP\r\n")
			u.expect("a SELECT")
		},
		"waiting for leave for the client": func(c, u *peer) {
			c.raw("a APPEND x {3}\r\n")
			u.expect("a APPEND")
		},
		"waiting for leave for Postern": func(c, u *peer) {
			c.raw("a SEARCH SUBJECT {2+}\r\n\xffa\r\n")
			u.expect("a SEARCH")
		},
		"in APPEND from a client that sends nothing": func(c, u *peer) {
			c.raw("a APPEND x {300+}\r\nabc")
			u.expect("a APPEND")
			u.raw("+ go\r\n")
		},
		"in APPEND to an upstream that does not read": func(c, u *peer) {
			c.raw("a APPEND x {3000000000+}\r\n")
			u.expect("a APPEND")
			u.raw("+ go\r\n")
			flood(c, "", big)
		},
		"swallowing": func(c, u *peer) {
			c.raw("a APPEND x y z {3000000+}\r\nabc")
		},
		"in FETCH to a client that does not read": func(c, u *peer) {
			flood(u, "* 1 FETCH (UID 1 BODY[] {3000000000}\r\n", big)
		},
		"in data without end": func(c, u *peer) {
			flood(u, "* SEARCH", strings.Repeat(" 1", 1<<15))
		},
		"in a status that has not come whole": func(c, u *peer) {
			u.raw("* OK half of")
		},
		"in IDLE": beginIdle,
		"renewing IDLE": func(c, u *peer) {
			beginIdle(c, u)
			u.expect("DONE")
		},
		"refused to a client that does not read": func(c, u *peer) {
			flood(c, "", strings.Repeat("a FROBNICATE\r\n", 1000))
		},
		"logging out": func(c, u *peer) {
			c.raw("a LOGOUT\r\n")
			u.expect("a LOGOUT")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate, upstreams := scripted(t)
			rig := newRig(t, gate)
			if name == "renewing IDLE" {
				rig.filter.reIdle, rig.filter.reIdleJitter = 10*time.Millisecond, 1
			}
			c := rig.login()
			u := <-upstreams
			state(c, u)
			<-time.After(200 * time.Millisecond) // for buffers to fill; nothing depends on it
			watch := servers.StartStopwatch(t)
			gate.last().cancel(&broker.End{Reason: broker.EndRevoked, Text: "over"})
			select {
			case <-rig.served:
			case <-time.After(20 * time.Second):
				t.Fatal("still served")
			}
			watch.Within(t, "the end", time.Second)
			_ = u.conn.SetReadDeadline(time.Now().Add(15 * time.Second))
			if _, err := io.Copy(io.Discard, u.r); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the upstream is still connected")
			}
			if r := gate.last().endReason(); r != broker.EndRevoked {
				t.Errorf("ended for %s", r)
			}
		})
	}
}

// TestNever4KilledWhileLoggingIn: the session ends while its upstream keeps it
// waiting; the client is told, and may log in again.
func TestNever4KilledWhileLoggingIn(t *testing.T) {
	for _, where := range []string{"dial", "folders"} {
		gate, upstreams := scripted(t)
		gate.decision = policy.Decision{Actions: policy.List}
		if where == "dial" {
			gate.dial = func(ctx context.Context) (*broker.IMAPConn, error) {
				<-ctx.Done()
				return nil, broker.Errorf(broker.Unavailable, "too late").WithCause(ctx.Err())
			}
		}
		c := newRig(t, gate).connect()
		c.send("l LOGIN box@firm.example secret")
		if where == "folders" {
			u := <-upstreams
			u.line()
		} else {
			for gate.count() == 0 {
				<-time.After(time.Millisecond)
			}
		}
		watch := servers.StartStopwatch(t)
		gate.last().cancel(&broker.End{Reason: broker.EndLocked, Text: "locked out"})
		c.expect("l NO [AUTHORIZATIONFAILED] locked out")
		watch.Within(t, where+": the answer", time.Second)
		if r := gate.last().endReason(); r != broker.EndUpstreamFailed {
			t.Errorf("%s: ended for %s", where, r)
		}
	}
}

// A client that logs in too slowly is told.
func TestLoginThatTakesTooLong(t *testing.T) {
	gate, _ := scripted(t)
	f := newRig(t, gate).filter
	client, server := tcpPair(t)
	defer client.Close()
	conn := proxy.NewConn(server, proxy.ConnConfig{IsTLS: true})
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	go func() {
		f.ServeConn(context.Background(), conn)
		linger(server)
	}()
	p := newPeer(t, client)
	p.expect("* OK")
	p.expect("* BYE [UNAVAILABLE] the login took too long")
}

// What waits for more of a literal is not lost when nothing more comes.
func TestOctetsOfACutLiteralPass(t *testing.T) {
	for range 10 {
		gate, upstreams := scripted(t)
		c := newRig(t, gate).login()
		u := <-upstreams
		u.raw("* 1 FETCH (UID 1 BODY[] {100000}\r\n")
		c.expect("* 1 FETCH")
		u.raw(strings.Repeat("x", maxRecord))
		<-time.After(10 * time.Millisecond) // for it to be read by itself; nothing depends on it
		u.conn.Close()
		if got, err := io.ReadAll(c.r); len(got) != maxRecord || err != nil {
			t.Fatalf("%d octets, %v", len(got), err)
		}
	}
}

// TestNever3NoChangeSlipsPastTheEndOfTheRecord: an upstream that says nothing more
// may still do what it is told. What is recorded of the changes that it has not
// answered holds every command that went there.
func TestNever3NoChangeSlipsPastTheEndOfTheRecord(t *testing.T) {
	gate, upstreams := scripted(t)
	rig := newRig(t, gate)
	c := rig.login()
	u := <-upstreams
	c.send("a STORE 1 +FLAGS (one)")
	u.expect("a STORE 1")
	went := make(chan string, 1)
	var once sync.Once
	gate.last().mu.Lock()
	gate.submitting = func(broker.EventType) {
		once.Do(func() {
			_, _ = io.WriteString(c.conn, "b STORE 2 +FLAGS (two)\r\n")
			line, _ := u.tryLine() // what still goes upstream; or it is closed
			went <- line
		})
	}
	gate.last().mu.Unlock()
	_ = u.conn.(*net.TCPConn).CloseWrite()
	<-rig.served
	want := []string{"1"}
	if <-went != "" {
		want = append(want, "2")
	}
	var got []string
	for _, e := range gate.last().recorded(broker.EventMessageFlag) {
		if change := e.(broker.MessageChange); change.Outcome == broker.ChangeUnanswered {
			got = append(got, change.Set)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("of the changes %v there is a record of %v", want, got)
	}
}
