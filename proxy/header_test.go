// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/postern-mail/postern/proxy"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func v2(t *testing.T, source string, command proxyproto.ProtocolVersionAndCommand) string {
	t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
	to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.200:993"))
	if from.IP.To4() == nil {
		to = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::200]:993"))
	}
	header := proxyproto.HeaderProxyFromAddrs(2, from, to)
	header.Command = command
	var b bytes.Buffer
	if _, err := header.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// echo tells the client its address, then what it sent first.
func echo(_ context.Context, c *proxy.Conn) {
	fmt.Fprintf(c, "%s %s\n", c.RemoteAddrPort(), c.RemoteAddr())
	_, _ = io.CopyN(c, c, 6)
}

func TestProxyHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		header string
		want   string // empty: closed without a word; "own": the balancer's address
	}{
		"v1 IPv4":                  {"PROXY TCP4 198.51.100.7 192.0.2.200 4711 993\r\n", "198.51.100.7:4711"},
		"v1 IPv6":                  {"PROXY TCP6 2001:db8::7 2001:db8::200 4711 993\r\n", "[2001:db8::7]:4711"},
		"v1 unknown":               {"PROXY UNKNOWN\r\n", "own"},
		"v2 IPv4":                  {v2(t, "198.51.100.7:4711", proxyproto.PROXY), "198.51.100.7:4711"},
		"v2 IPv6":                  {v2(t, "[2001:db8::7]:4711", proxyproto.PROXY), "[2001:db8::7]:4711"},
		"v2 local":                 {v2(t, "198.51.100.7:4711", proxyproto.LOCAL), "own"},
		"none":                     {"", ""},
		"v1 without CR":            {"PROXY TCP4 198.51.100.7 192.0.2.200 4711 993\n", ""},
		"v1 with a name":           {"PROXY TCP4 agent.example 192.0.2.200 4711 993\r\n", ""},
		"v1 endless":               {"PROXY TCP4 " + strings.Repeat("1", 200), ""},
		"v2 of a Unix socket":      {"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("\x00", 216), ""},
		"v2 of UDP":                {"\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c" + strings.Repeat("\x01", 12), ""},
		"v2 shorter than it says":  {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04\x01\x01\x01\x01", ""},
		"v2 longer than we'd hold": {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("\x01", 12), ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, proxy.Limits{})
			h.config.Implicit = false
			h.config.TrustedProxies = loopback
			h.start(echo)
			c := h.dial()
			// One segment: what comes after the header must not be lost.
			if _, err := io.WriteString(c, tc.header+"a NOOP"); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if tc.want == "" {
				if len(got) != 0 {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			want := tc.want
			if want == "own" {
				want = c.LocalAddr().String()
			}
			if want = want + " " + want + "\na NOOP"; string(got) != want {
				t.Fatalf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

// Anyone could claim any address, a network-only site's among them, if a
// header were read from others than trusted balancers.
func TestProxyHeaderOfAStrangerIsNotRead(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.config.Implicit = false
	h.config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	h.start(func(_ context.Context, c *proxy.Conn) {
		b := make([]byte, 5)
		_, _ = io.ReadFull(c, b)
		fmt.Fprintf(c, "%s %s\n", c.RemoteAddrPort(), b)
	})
	c := h.dial()
	if _, err := io.WriteString(c, "PROXY TCP4 198.51.100.7 192.0.2.200 4711 993\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, want := line(t, c), c.LocalAddr().String()+" PROXY\n"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// A balancer that cannot tell the address leaves its own, which may well lie
// in a network-only site.
func TestNetworkOnlyNeedsATrueAddress(t *testing.T) {
	h := newHouse(t, proxy.Limits{})
	h.config.TrustedProxies = loopback
	h.config.NetworkOnly = anywhere
	h.start(whoami)
	for header, want := range map[string]bool{
		"PROXY UNKNOWN\r\n": false,
		"PROXY TCP4 198.51.100.7 192.0.2.200 4711 993\r\n": true,
	} {
		c := h.dial()
		if _, err := io.WriteString(c, header); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(tls.Client(c, h.clientTLS()))
		if (err == nil) != want {
			t.Errorf("%q without a certificate: %q, %v", header, got, err)
		}
	}
}

func TestSilentBalancerIsClosed(t *testing.T) {
	h := newHouse(t, proxy.Limits{HeaderTimeout: 30 * time.Millisecond})
	h.config.TrustedProxies = loopback
	h.start(whoami)
	if got, err := io.ReadAll(h.dial()); err != nil || len(got) != 0 {
		t.Fatalf("got %q, %v", got, err)
	}
	if n := h.metric("postern_proxy_connections_rejected_total", map[string]string{"cause": "proxy-header"}); n != 1 {
		t.Errorf("%v rejections counted", n)
	}
}
