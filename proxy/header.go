// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerBuffer holds any v1 header (107 octets) and a v2 header with the
// usual attributes; it is dropped as soon as the header is read.
const headerBuffer = 256

var errHeaderNotTCP = errors.New("proxy: the PROXY header holds no TCP address")

// readHeader takes the PROXY header off a trusted balancer's connection, and
// sets the client's address. It returns the address, and whether the balancer
// told one: LOCAL (v2: the balancer's own health checks) and UNKNOWN (v1)
// leave the balancer's.
func (t *transport) readHeader(timeout time.Duration) (remote netip.AddrPort, told bool, err error) {
	if err := t.Conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return netip.AddrPort{}, false, err
	}
	reader := bufio.NewReaderSize(t.Conn, headerBuffer)
	header, err := proxyproto.Read(reader)
	if err != nil {
		return netip.AddrPort{}, false, err
	}
	if n := reader.Buffered(); n > 0 {
		t.rest = make([]byte, n)
		if _, err := reader.Read(t.rest); err != nil {
			return netip.AddrPort{}, false, err
		}
	}
	if header.Command.IsLocal() || header.TransportProtocol == proxyproto.UNSPEC {
		return addrPort(t.Conn.RemoteAddr()), false, nil
	}
	remote = addrPort(header.SourceAddr)
	if !remote.IsValid() {
		return netip.AddrPort{}, false, errHeaderNotTCP
	}
	t.remote = net.TCPAddrFromAddrPort(remote)
	return remote, true, nil
}
