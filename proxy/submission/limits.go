// SPDX-License-Identifier: Apache-2.0

package submission

import "time"

// Limits that no operator needs to change.
const (
	// maxCommandLine is RFC 5321 §4.5.3.1.4's 512 with room for the
	// parameters that are taken: ENVID 100 and ORCPT 500 octets (RFC 3461
	// §5.4), SIZE, BODY, RET, NOTIFY. CRLF included.
	maxCommandLine = 2048
	// maxAuthLine is for AUTH and its continuations: RFC 4954 §4 wants
	// 12,288 octets of base64, tokens come longer. CRLF included.
	maxAuthLine = 16 << 10
	// maxHeader is a message's header, maxHeaderLine one line of it without
	// CRLF (RFC 5322 §2.1.1). A longer one would be cut somewhere on its way,
	// and what follows the cut would be a line that nobody judged.
	maxHeader     = 256 << 10
	maxHeaderLine = 998
	// maxBadCommands is how many a connection may send before 421, and
	// maxAuthFailures how many refused AUTHs; an outage is not one of them.
	maxBadCommands  = 10
	maxAuthFailures = 3
	// maxIdentity bounds a SASL user name.
	maxIdentity = 512

	// Upstream's replies: octets of a line, lines of a reply.
	maxReplyLine  = 2048
	maxReplyLines = 64
	// What of them goes to the client.
	maxRelayedLines = 8
	maxRelayedText  = 400

	// bufferAtRest is a connection's read buffer; bufferInData is the one
	// it takes from a pool while a message flows, and upstream's write buffer
	// likewise.
	bufferAtRest = 2 << 10
	bufferInData = 32 << 10

	// lastWords is how long the 421 of a session that must end may take to be
	// written, lastReply how much longer an upstream that holds the final dot
	// may take to answer it, and endWithin when both connections are closed
	// whatever happened: well within the second of section 3.
	lastWords = 250 * time.Millisecond
	lastReply = 400 * time.Millisecond
	endWithin = 700 * time.Millisecond
	// linger is how long what a client still sends is read and thrown away
	// after the last words, since a reset would take them from it.
	linger = 200 * time.Millisecond
	// earlyReply is how long an answer may take to be read whose first octets
	// came before it was due.
	earlyReply = 50 * time.Millisecond
	// quitTimeout is for QUIT upstream, which nobody needs to succeed.
	quitTimeout = 2 * time.Second

	// outcomesFor is how long a submission is remembered, and outcomesKept how
	// many at most, about 300 octets each.
	outcomesFor  = time.Hour
	outcomesKept = 1 << 14
)

// Defaults of Limits.
const (
	// DefaultCommandTimeout is RFC 5321 §4.5.3.2.7.
	DefaultCommandTimeout = 5 * time.Minute
	// DefaultDataTimeout is §4.5.3.2.5, for each read and each write of data.
	DefaultDataTimeout = 3 * time.Minute
	// DefaultMessageTimeout is for a whole message: a client that sends an
	// octet a minute must not keep an upstream connection for ever.
	DefaultMessageTimeout = time.Hour
	// DefaultLoginTimeout is for the gate and the login upstream together.
	DefaultLoginTimeout = time.Minute
	// DefaultFinalReplyTimeout is §4.5.3.2.6, for upstream's answer to the dot.
	DefaultFinalReplyTimeout = 10 * time.Minute
	// DefaultRecordTimeout is for an event to become durable.
	DefaultRecordTimeout = 10 * time.Second
	// DefaultSentTimeout is for looking in Sent, all tries together.
	DefaultSentTimeout = 20 * time.Second
	// DefaultMessageOctets is a message's size.
	DefaultMessageOctets = 50 << 20
	// DefaultRecipients is how many a message may have; §4.5.3.1.8 asks for 100.
	DefaultRecipients = 500
)

// Limits of a Gateway; a zero field is its default.
type Limits struct {
	CommandTimeout    time.Duration
	DataTimeout       time.Duration
	MessageTimeout    time.Duration
	LoginTimeout      time.Duration
	FinalReplyTimeout time.Duration
	RecordTimeout     time.Duration
	SentTimeout       time.Duration
	// MessageOctets is announced as SIZE; the upstream's own may be less.
	MessageOctets int64
	Recipients    int
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.CommandTimeout, DefaultCommandTimeout)
	setDefault(&l.DataTimeout, DefaultDataTimeout)
	setDefault(&l.MessageTimeout, DefaultMessageTimeout)
	setDefault(&l.LoginTimeout, DefaultLoginTimeout)
	setDefault(&l.FinalReplyTimeout, DefaultFinalReplyTimeout)
	setDefault(&l.RecordTimeout, DefaultRecordTimeout)
	setDefault(&l.SentTimeout, DefaultSentTimeout)
	setDefault(&l.MessageOctets, DefaultMessageOctets)
	setDefault(&l.Recipients, DefaultRecipients)
	return l
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}
