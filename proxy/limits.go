// SPDX-License-Identifier: Apache-2.0

package proxy

import "time"

// corkedOctets is how much Cork gathers at most: four TLS records with their
// headers and tags.
const corkedOctets = 4 * (16<<10 + 64)

// Defaults of Limits.
const (
	// DefaultHeaderTimeout is for the PROXY header, which a balancer sends
	// with its first segment.
	DefaultHeaderTimeout = 5 * time.Second
	// DefaultHandshakeTimeout is for TLS: several round trips on a bad line,
	// and a token that wants its PIN typed is done by then or cached.
	DefaultHandshakeTimeout = 10 * time.Second
	// DefaultAuthenticateTimeout is from accept to Authenticated. RFC 9051
	// §5.4 asks for no more of an unauthenticated client.
	DefaultAuthenticateTimeout = 60 * time.Second
	// DefaultPending is how many connections may be unauthenticated at once.
	DefaultPending = 1024
	// DefaultPendingPerAddress is the same for one IPv4 address or IPv6 /64.
	// An office behind one address reconnects at once after a cut line.
	DefaultPendingPerAddress = 256
	// DefaultPendingPerCertificate is the same for one client certificate.
	DefaultPendingPerCertificate = 64
)

// PendingClasses is in how many classes unauthenticated connections count, each
// under Limits.Pending: before they begin a handshake, waiting for it to be
// computed, in the rest of it, and with a verified certificate.
const PendingClasses = 4

const (
	// greedyShare is the part of what one owner may hold, as a divisor, above
	// which he is the first to lose a place.
	greedyShare = 4
	// killGrace is between the deadline for authenticating, at which reads
	// fail so that the handler can say goodbye, and the kill.
	killGrace = 2 * time.Second
	// closeTimeout bounds what a handler's last words may take: an ended
	// session's connection is closed within the second, whether its handler
	// kills it or only returns.
	closeTimeout = 750 * time.Millisecond
	// lingerTimeout and lingerOctets bound how long a client that is still
	// sending is listened to after the last words: closing a socket with
	// octets unread resets it, and the client would not see them.
	lingerTimeout = 250 * time.Millisecond
	lingerOctets  = 1 << 20
	// Accept backs off between these when the system has no descriptors left.
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// Limits hold until a client has authenticated. A zero is the default.
type Limits struct {
	HeaderTimeout       time.Duration
	HandshakeTimeout    time.Duration
	AuthenticateTimeout time.Duration
	// Pending, PendingPerAddress and PendingPerCertificate bound connections
	// that are not authenticated, in each of the PendingClasses apart: in all,
	// of one address, and of one certificate once it was verified.
	Pending               int
	PendingPerAddress     int
	PendingPerCertificate int
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.HeaderTimeout, DefaultHeaderTimeout)
	setDefault(&l.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&l.AuthenticateTimeout, DefaultAuthenticateTimeout)
	setDefault(&l.Pending, DefaultPending)
	setDefault(&l.PendingPerAddress, DefaultPendingPerAddress)
	setDefault(&l.PendingPerCertificate, DefaultPendingPerCertificate)
	return l
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}
