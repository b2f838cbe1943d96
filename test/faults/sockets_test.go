// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/test/e2e"
)

// socket is one TCP connection as the kernel lists it: of the two ends of a
// connection on loopback, one.
type socket struct {
	local, remote uint16 // ports; both ends are on 127.0.0.1
	state         string
	// unsent and unread are octets in its queues.
	unsent, unread int
}

// States of a connection that is not over for its owner's peer: in FIN_WAIT1
// there is something left that the peer may still get.
var openStates = map[string]string{"01": "ESTABLISHED", "04": "FIN_WAIT1", "08": "CLOSE_WAIT", "02": "SYN_SENT"}

// sockets reads the kernel's list (proc(5), /proc/net/tcp), which no process
// can embellish.
func sockets(t testing.TB) []socket {
	t.Helper()
	var all []socket
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 5 || openStates[f[3]] == "" {
				continue
			}
			s := socket{local: portOf(f[1]), remote: portOf(f[2]), state: openStates[f[3]]}
			if _, err := fmt.Sscanf(f[4], "%X:%X", &s.unsent, &s.unread); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
	}
	return all
}

func portOf(s string) uint16 {
	_, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(port)
	if err != nil || len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// leg names connections by their two ports, as Postern's end sees them; 0
// stands for any.
type leg struct{ local, remote uint16 }

func (l leg) find(all []socket) []socket {
	var found []socket
	for _, s := range all {
		if (l.local == 0 || s.local == l.local) && (l.remote == 0 || s.remote == l.remote) {
			found = append(found, s)
		}
	}
	return found
}

// clientLeg is Postern's end of a client's connection.
func clientLeg(t testing.TB, c net.Conn) leg {
	t.Helper()
	return leg{local: portIn(t, c.RemoteAddr()), remote: portIn(t, c.LocalAddr())}
}

func portIn(t testing.TB, a net.Addr) uint16 {
	t.Helper()
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return ap.Port()
}

// closedAt waits until no socket of any leg is open, and returns when each was
// first seen closed.
func closedAt(t testing.TB, within time.Duration, legs map[string]leg) map[string]time.Time {
	t.Helper()
	at := make(map[string]time.Time)
	var left []string
	for end := time.Now().Add(within); ; {
		all := sockets(t)
		now := time.Now()
		left = left[:0]
		for name, l := range legs {
			if open := l.find(all); len(open) > 0 {
				left = append(left, fmt.Sprintf("%s %+v", name, open[0]))
			} else if at[name].IsZero() {
				at[name] = now
			}
		}
		if len(left) == 0 {
			return at
		}
		if now.After(end) {
			t.Errorf("after %v these sockets are still open: %s", within, strings.Join(left, "; "))
			for name := range legs {
				if at[name].IsZero() {
					at[name] = now
				}
			}
			return at
		}
		time.Sleep(2 * time.Millisecond) // the kernel has no event for this
	}
}

// awaitStuck waits until Postern's end of a connection has octets that its
// client does not take, and no more are added: a write of Postern's hangs.
func awaitStuck(t testing.TB, c *e2e.Conn) {
	t.Helper()
	l := clientLeg(t, c)
	last, same := 0, 0
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		unsent := 0
		for _, s := range l.find(sockets(t)) {
			unsent = s.unsent
		}
		if unsent == 0 || unsent != last {
			last, same = unsent, 0
			continue
		}
		if same++; same == 10 {
			return
		}
	}
	t.Fatal("the client's connection does not fill up")
}
