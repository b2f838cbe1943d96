// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// echoServer sends back whole lines.
func echoServer(t *testing.T) (target string, received <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	all := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					all <- line
					if err != nil {
						return
					}
					if _, err := io.WriteString(c, line); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), all
}

func connect(t *testing.T, tap *Tap) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", tap.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func TestTapFaults(t *testing.T) {
	tests := []struct {
		name     string
		fault    Fault
		received string
		answered bool
	}{
		{"cut after a pattern", Fault{Pattern: []byte("b\r\n"), Action: Cut}, "ab\r\n", false},
		{"cut before a pattern", Fault{Pattern: []byte("b\r\n"), Before: true, Action: Cut}, "a", false},
		{"cut after octets", Fault{AfterOctets: 3, Action: Cut}, "ab\r", false},
		{"stall after octets", Fault{AfterOctets: 1, Action: Stall}, "ab\r\n", true},
		{"cut in the answer", Fault{Direction: ToClient, AfterOctets: 2, Action: Cut}, "ab\r\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			target, received := echoServer(t)
			tap := NewTap(t, target)
			c, r := connect(t, tap)
			struck := tap.Arm(test.fault)
			say(t, c, "ab\r\n")
			<-struck
			tap.Release()
			if got := <-received; got != test.received {
				t.Errorf("the server received %q, want %q", got, test.received)
			}
			line, err := r.ReadString('\n')
			if answered := err == nil && line == "ab\r\n"; answered != test.answered {
				t.Errorf("the client received %q, %v", line, err)
			}
		})
	}
}

func TestTapKeepsEveryOctet(t *testing.T) {
	target, _ := echoServer(t)
	tap := NewTap(t, target)
	tap.SetDelay(time.Millisecond)
	for range 2 {
		c, r := connect(t, tap)
		say(t, c, "line\r\n")
		if line, err := r.ReadString('\n'); err != nil || line != "line\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		c.Close()
		WaitFor(t, 5*time.Second, func() bool { return tap.Connections() == 0 }, "the connection to end")
	}
	for _, d := range []Direction{ToServer, ToClient} {
		if got := string(tap.Seen(d)); got != "line\r\nline\r\n" {
			t.Errorf("direction %d saw %q", d, got)
		}
	}
}
