// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// acknowledged returns nil when the other side's kernel has everything that was
// sent (tcp(7), SIOCOUTQ).
func acknowledged(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var unsent int
	var failed error
	if err := raw.Control(func(fd uintptr) { unsent, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return err
	}
	if failed == nil && unsent > 0 {
		failed = fmt.Errorf("the connection ended with %d octets on the way", unsent)
	}
	return failed
}
