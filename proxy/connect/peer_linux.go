// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

var errNobody = errors.New("nobody holds its other end any more")

// peerUID returns the user who holds the other end of a connection of this
// machine. known is false for a connection from elsewhere.
func peerUID(c net.Conn) (uid uint32, known bool, err error) {
	theirs, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return 0, false, fmt.Errorf("whose connection it is: %w", err)
	}
	ours, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return 0, false, fmt.Errorf("whose connection it is: %w", err)
	}
	if !theirs.Addr().Unmap().IsLoopback() {
		return 0, false, nil
	}
	// A connection to an IPv4 address may be one of an IPv6 socket.
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // a system without IPv6
		}
		if err != nil {
			return 0, false, err
		}
		uid, found, err := holder(f, theirs, ours)
		if err := errors.Join(err, f.Close()); err != nil {
			return 0, false, err
		}
		if found {
			return uid, true, nil
		}
	}
	return 0, false, errNobody
}

// holder finds the socket from local to remote in a table of the form of
// proc(5)'s /proc/net/tcp.
func holder(table io.Reader, local, remote netip.AddrPort) (uid uint32, found bool, err error) {
	lines := bufio.NewScanner(table)
	lines.Scan() // the heading
	for lines.Scan() {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		a, okA := procAddress(fields[1])
		b, okB := procAddress(fields[2])
		// A socket without an inode is one that its process has closed; the
		// user beside it is nobody's.
		if !okA || !okB || a != unmapped(local) || b != unmapped(remote) || fields[9] == "0" {
			continue
		}
		n, err := strconv.ParseUint(fields[7], 10, 32)
		if err != nil {
			return 0, false, fmt.Errorf("whose connection it is: %w", err)
		}
		return uint32(n), true, nil
	}
	return 0, false, lines.Err()
}

// procAddress reads an address: words of 32 bits in the machine's own order of
// octets, and a port.
func procAddress(s string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok && err == nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
