// SPDX-License-Identifier: Apache-2.0

//go:build unix

package submission

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether a connection has something to read, its end
// included, without reading it. What cannot be asked counts as readable.
func readable(c net.Conn) bool {
	asked, ok := socket(c).(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := asked.SyscallConn()
	if err != nil {
		return true
	}
	waiting := false
	err = raw.Control(func(fd uintptr) {
		var octet [1]byte
		_, _, err := unix.Recvfrom(int(fd), octet[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waiting = err != unix.EAGAIN && err != unix.EINTR
	})
	return waiting || err != nil
}
