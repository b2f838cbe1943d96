// SPDX-License-Identifier: Apache-2.0

package oauth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// errAddress says that an issuer's name leads where no issuer should be.
var errAddress = errors.New("the issuer's address is not allowed")

// reserved are networks beside those that netip knows by name and in which no
// issuer is (RFC 6890): a credential's token_url must not make Postern knock at
// doors of the BPO's own.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared address space
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"),   // NAT64 of any IPv4 address
	netip.MustParsePrefix("64:ff9b:1::/48"), // the same, local
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), // Teredo and others
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4 of any IPv4 address
	netip.MustParsePrefix("fec0::/10"),
}

// allowed reports whether an issuer may be at an address: a public one, on
// port 443; anywhere in the networks that the configuration names.
func allowed(to netip.AddrPort, networks []netip.Prefix) bool {
	addr := to.Addr().Unmap().WithZone("")
	if slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return true
	}
	return to.Port() == 443 && addr.IsGlobalUnicast() && !addr.IsPrivate() &&
		!slices.ContainsFunc(reserved, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// newClient makes the client for issuers' endpoints. The address counts, not
// the name: a name may resolve to anything, and to something else each time.
func newClient(roots *x509.CertPool, networks []netip.Prefix, now func() time.Time) *http.Client {
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil || !allowed(to, networks) {
				return fmt.Errorf("%w: %s", errAddress, address)
			}
			return nil
		},
	}
	return &http.Client{
		Transport: &http.Transport{
			// No proxy: the environment has no say, and a proxy would hide
			// the address.
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Time: now},
			TLSHandshakeTimeout:    dialTimeout,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxHeader,
		},
		// A redirect is an answer like any other that is none.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
