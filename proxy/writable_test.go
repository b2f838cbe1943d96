// SPDX-License-Identifier: Apache-2.0

package proxy_test

import "golang.org/x/sys/unix"

// writable reports whether a write to fd would take anything now.
func writable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}
