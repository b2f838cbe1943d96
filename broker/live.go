// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"

	"github.com/postern-mail/postern/policy"
)

// Login is what a client presented.
type Login struct {
	Protocol Protocol
	// Username and AuthorizationID are as SASL gave them: the mailbox's
	// address, or agent/mailbox, in either.
	Username        string
	AuthorizationID string
	// Token is the app password, or the agent's in the directory; the caller
	// wipes it.
	Token Secret
	// External says that the certificate alone is to let him in (RFC 4422,
	// appendix A); Token is empty then.
	External bool
	// Certificate is the client's leaf, verified against the workstation CAs
	// by the TLS layer; nil: none was presented.
	Certificate *x509.Certificate
	// RemoteAddr is the client's own address, after PROXY protocol.
	RemoteAddr netip.AddrPort
}

// Gate lets clients in: broker/session.
type Gate interface {
	// Open authenticates, decides and records; when it returns a session, the
	// session.open event is durable. The caller must End it.
	//
	// Errors: Denied (one text for all, after a back-off that Open itself
	// waits), Refused (the text says why and whom to ask), Limit, Unavailable.
	Open(ctx context.Context, l Login) (LiveSession, error)
	// OffersExternal reports whether a login with this certificate alone could
	// succeed: whether its machine is somebody's whom it may let in. Nobody else
	// is told, so that who holds a workstation's key learns nothing that a login
	// would not tell him, and other clients try nothing that must fail.
	OffersExternal(ctx context.Context, certificate *x509.Certificate) bool
}

// EndReason says why a session ended.
type EndReason string

// The reasons.
const (
	EndLogout         EndReason = "logout"          // the client said LOGOUT or QUIT
	EndClientClosed   EndReason = "client-closed"   // the client's connection closed or broke
	EndUpstreamClosed EndReason = "upstream-closed" // the upstream's did
	EndUpstreamFailed EndReason = "upstream-failed" // no login upstream
	EndProtocol       EndReason = "protocol"        // the client broke the protocol
	EndIdle           EndReason = "idle"            // silent for too long
	EndRevoked        EndReason = "revoked"         // delegation, assignment, app password or thing is gone or narrower
	EndLocked         EndReason = "locked"
	EndExpired        EndReason = "expired"  // the decision's end
	EndByAdmin        EndReason = "by-admin" // postern session end
	EndBudget         EndReason = "budget"   // closed to make room for another agent
	EndDrain          EndReason = "drain"    // the server is stopping
	EndRecord         EndReason = "record"   // the audit log cannot be written
	EndRotated        EndReason = "rotated"  // a rotation replaced the credential it logged in with
	EndStale          EndReason = "stale"    // its node died
	EndLease          EndReason = "lease"    // the state could not be read for too long
	EndInternal       EndReason = "internal"
)

// End is why a session is over; it is the cancellation cause of its context.
type End struct {
	Reason EndReason
	// Text is for the agent.
	Text string
	// Detail is for the record.
	Detail string
}

// Error returns the reason and the text.
func (e *End) Error() string { return string(e.Reason) + ": " + e.Text }

// LiveSession is one open session. Its methods may be called from any
// goroutine.
type LiveSession interface {
	// Record returns the session's record; the caller must not change it.
	Record() *Session
	// Mailbox is the mailbox as it was when the session was opened.
	Mailbox() *Mailbox
	// Decision never changes: a narrower one ends the session.
	Decision() *policy.Decision
	// Context is cancelled when the session must end, with an *End as its
	// cause. Whoever relays must then tell the client within a bounded time
	// and close both connections; it must wait for no slow peer.
	Context() context.Context
	// Check decides anew and returns nil if the session may go on; otherwise
	// it ends the session.
	Check(ctx context.Context) error
	// AppendChecked is Append, and then Check by the policy as it stood in the
	// very transaction that made the event durable. SMTP calls it before the
	// final dot.
	AppendChecked(ctx context.Context, t EventType, data any) (recorded, checked error)
	// SetIdle tells the connection budget whether the client is idle.
	SetIdle(idle bool)
	// Append and Submit record an event with the session's ids filled in.
	// Append returns when it is durable.
	Append(ctx context.Context, t EventType, data any) error
	Submit(t EventType, data any) *Receipt
	// DialIMAP fetches the credential now, logs in upstream and drops it.
	// Errors: Unavailable (Vault or upstream out of reach), CredentialRefused
	// (drift; already recorded), Internal.
	DialIMAP(ctx context.Context) (*IMAPConn, error)
	// DialSubmission does the same for submission.
	DialSubmission(ctx context.Context) (*SubmissionConn, error)
	// End records the end; the first call counts. counters may be nil.
	End(e *End, counters *SessionEnd)
}

// IMAPConn is an upstream connection in the authenticated state.
type IMAPConn struct {
	net.Conn
	// Buffered are octets already read after the login's tagged answer.
	Buffered []byte
	// Capabilities are the upstream's after login, in its own spelling.
	Capabilities []string
}

// SubmissionConn is an upstream connection after EHLO and AUTH; nothing was
// read past the last reply.
type SubmissionConn struct {
	net.Conn
	// Extensions are the EHLO keywords, upper case, with their parameters.
	Extensions map[string]string
}

// Upstream opens connections that are logged in: broker/upstream, and
// broker/oauth before it for credentials from which access tokens are minted.
//
// Errors: Unavailable when it cannot be reached, times out, its certificate
// does not verify (Reason "tls"), or it answers "try again"; CredentialRefused
// when it refuses the credential, or the issuer of tokens does (ReasonConsent); Invalid when no login could carry the
// credential or the login name (a NUL in a password). The cause may hold the
// server's words; they are cleared of the credential.
type Upstream interface {
	OpenIMAP(ctx context.Context, m *Mailbox, c *Credential) (*IMAPConn, error)
	OpenSubmission(ctx context.Context, m *Mailbox, c *Credential) (*SubmissionConn, error)
	// Probe logs in to both and out again. c is what is stored, or what is to be
	// stored over c.Version. It may replace c.Secret, where an issuer gave a new
	// refresh token in exchange for the one in it: what is in c afterwards is
	// what to store.
	Probe(ctx context.Context, m *Mailbox, c *Credential) error
}
