// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd

package httpapi

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerUID asks the kernel who connected (LOCAL_PEERCRED, unix(4)).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

// solLocal is SOL_LOCAL, the level of the options of local sockets.
const solLocal = 0
