// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"time"

	"github.com/postern-mail/postern/proxy/imapwire"
)

const (
	// maxAuthLine is the longest line before authentication, in octets: an
	// OAUTHBEARER response holds a token of some KB.
	maxAuthLine = 16 << 10
	// maxLoginTries is how many failed logins a connection gets.
	maxLoginTries = 3
	// maxBadCommands is how many lines in a row may be no command at all.
	maxBadCommands = 10
	// maxPipelined is how many commands may be under way upstream; a client
	// that sends more waits.
	maxPipelined = 64
	// maxStatusLine is the longest resp-text and CAPABILITY line of an
	// upstream, in octets; it must fit bigBuffer.
	maxStatusLine = 60 << 10
	// restBuffer is what a session at rest reads the client's lines into, and
	// smallBuffer the upstream's answers; bigBuffer is what it borrows for more,
	// in octets.
	restBuffer  = 256
	smallBuffer = 1 << 10
	bigBuffer   = 64 << 10
	// maxRecord is how many octets one record of TLS holds (RFC 8446 §5.1).
	maxRecord = 16 << 10

	// aheadOfRecord is how many body octets may pass before their event is
	// durable, in all 1 MiB: a quoted string is counted when it has passed.
	// submitAfter is when the event is handed to the log.
	aheadOfRecord = 1<<20 - imapwire.MaxQuotedBody
	submitAfter   = 192 << 10
	// maxOpenedBatch is how many messages one message.open event holds.
	maxOpenedBatch = 500
	// maxReceipts is how many events of a session may be on their way.
	maxReceipts = 64
	// maxHeaderSniff is how far into a message its Message-ID is looked for.
	maxHeaderSniff = 128 << 10
	// maxIdentified is how many messages a session remembers as identified, and
	// how many it keeps in mind to ask for.
	maxIdentified = 1024
	// maxIdentifyBatch is how many messages one look-up asks for.
	maxIdentifyBatch = 100
	// maxLocal is how many octets of Postern's own words may wait for a client
	// that does not read; beyond it, nothing is read from him.
	maxLocal = 4 << 10
	// maxCollected is the largest answer to an own command that is held back.
	maxCollected = 32 << 10
	// maxKept is the longest line of an upstream that a view takes in, maxListed
	// how many folders it knows at most.
	maxKept   = 64 << 10
	maxListed = 20000
	// maxMapped is how many messages a folder may have of which a slice is
	// shown, maxSet how long a set of UIDs that goes upstream, in octets: a line
	// of 8,192 is what a server must take (RFC 7162 §4).
	maxMapped = 500000
	maxSet    = 4000
	// maxAsked is how often a view asks which messages there are while some go.
	maxAsked = 10

	// silence is how long a client may say nothing (RFC 9051 §5.4 asks for at
	// least 30 minutes; IDLE clients return after 29).
	// As long may an upstream leave a command without a word, and either peer
	// take nothing of what is sent to it.
	silence = 31 * time.Minute
	// listenAfter is how long a client is not listened to while a command
	// waits for those before it.
	listenAfter = time.Second
	// reIdle is when an upstream's IDLE is renewed; up to reIdleJitter is
	// taken off, so that sessions do not do it all at once.
	reIdle       = 27 * time.Minute
	reIdleJitter = 4 * time.Minute
	// pollIdle is how often a view asks an upstream for news that does not idle.
	pollIdle = 30 * time.Second
	// stillHere is how long a client in IDLE hears nothing before Postern says
	// "* OK", which keeps NAT tables warm.
	stillHere = 4 * time.Minute
	// killGrace is how long a client has to take the BYE of a killed session: it
	// takes no time but where the kernel's buffer is full, and then as a rule
	// with the middle of a message, behind which no BYE can stand. killClose is
	// when the connections are closed at the latest.
	killGrace = 50 * time.Millisecond
	killClose = 500 * time.Millisecond
	// killStalled is for how long a write may be under way to a client that can
	// still be told why its session ends; one that takes nothing is cut off.
	killStalled = 10 * time.Millisecond
	// killAside is until when a killed session, whose client has been told and
	// sent TCP's FIN, leaves the processor to others that are killed with it.
	killAside = 400 * time.Millisecond
	// lastWords is how long a client has to take a BYE it caused itself.
	lastWords = 2 * time.Second
)
