// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"

	"golang.org/x/sys/unix"
)

// writeMore writes b and lets the kernel wait for what comes next, so that the
// FIN of a CloseWrite travels in the same segment (MSG_MORE, send(2)): to end a
// session then takes one segment instead of two. What does not follow within
// 200 ms is sent without it.
func writeMore(c *net.TCPConn, b []byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		for len(b) > 0 {
			n, err := unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
			switch err {
			case nil:
				b = b[n:]
			case unix.EINTR:
			case unix.EAGAIN:
				return false
			default:
				failed = err
				return true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}
