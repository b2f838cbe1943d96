// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestPeerUIDIsWhoConnected(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if uid, known, err := peerUID(server); err != nil || !known || uid != uint32(os.Geteuid()) {
			t.Errorf("%s: user %d, known %v, %v", address, uid, known, err)
		}
		_, _, _ = client.Close(), server.Close(), l.Close()
	}
}

// TestHolderTakesNoClosedSocketForRoots: the kernel shows user 0 for sockets
// whose process is gone.
func TestHolderTakesNoClosedSocketForRoots(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0477 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 301 1 0 100 0 0 10 0
   1: 0100007F:D431 0100007F:0477 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   2: 0100007F:D432 0100007F:0477 01 00000000:00000000 00:00000000 00000000  1002        0 302 1 0 20 4 30 10 -1
   3: 0100007F:0477 0100007F:D432 01 00000000:00000000 00:00000000 00000000  1001        0 303 1 0 20 4 30 10 -1
`
	remote := netip.MustParseAddrPort("127.0.0.1:1143")
	for client, want := range map[string]struct {
		uid   uint32
		found bool
	}{
		"127.0.0.1:54321": {0, false},
		"127.0.0.1:54322": {1002, true},
		"127.0.0.1:54323": {0, false},
	} {
		uid, found, err := holder(strings.NewReader(table), netip.MustParseAddrPort(client), remote)
		if err != nil || uid != want.uid || found != want.found {
			t.Errorf("%s: user %d, found %v, %v", client, uid, found, err)
		}
	}
}
