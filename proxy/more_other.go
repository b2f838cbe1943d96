// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package proxy

import "net"

func writeMore(c *net.TCPConn, b []byte) error {
	_, err := c.Write(b)
	return err
}
