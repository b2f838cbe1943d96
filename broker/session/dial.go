// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// DialIMAP fetches the credential, logs in to the mailbox's IMAP service with
// it and wipes it.
func (s *live) DialIMAP(ctx context.Context) (*broker.IMAPConn, error) {
	return dial(ctx, s, s.manager.upstream.OpenIMAP, func(c *broker.IMAPConn) error { return c.Close() })
}

// DialSubmission does the same for submission.
func (s *live) DialSubmission(ctx context.Context) (*broker.SubmissionConn, error) {
	return dial(ctx, s, s.manager.upstream.OpenSubmission, func(c *broker.SubmissionConn) error { return c.Close() })
}

type opener[C any] func(context.Context, *broker.Mailbox, *broker.Credential) (*C, error)

// dial gives up as soon as the session is over, whatever the caller's ctx.
func dial[C any](ctx context.Context, s *live, open opener[C], shut func(*C) error) (*C, error) {
	if end := s.cause(); end != nil {
		return nil, endError(end)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	defer stop()

	conn, err := login(ctx, s, open)
	if end := s.cause(); end != nil {
		// The end came while the login was under way.
		if err == nil {
			_ = shut(conn) // nothing was sent on it that could be lost
		}
		return nil, endError(end)
	}
	return conn, err
}

// login reads the credential, uses it once and wipes it. Where it is refused, a
// rotation may be the reason.
func login[C any](ctx context.Context, s *live, open opener[C]) (*C, error) {
	m := s.manager
	credential, err := m.credentials.Credential(ctx, s.record.FirmID, s.record.MailboxID)
	if err != nil {
		return nil, s.credentialError(err)
	}
	defer credential.Secret.Wipe()
	s.uses(credential.Version, "")
	conn, err := open(ctx, s.mailbox, credential)
	switch {
	case err == nil:
		return conn, nil
	case broker.CodeOf(err) == broker.CredentialRefused && credential.Kind == broker.KindPassword && m.rotations != nil:
		return loginAmid(ctx, s, open, credential, err)
	}
	return nil, s.upstreamError(err, credential)
}

// credentialError says what the agent can do about a credential that could not
// be read: nothing, but ask or wait.
func (s *live) credentialError(err error) *broker.Error {
	s.manager.logger.Error("the credential could not be read", append(s.fields(), zap.Error(err))...)
	switch broker.CodeOf(err) {
	case broker.NotFound:
		e := broker.Errorf(broker.Unavailable, "%s", advise(textNoMailbox, s.contact)).WithCause(err)
		e.Reason = "no-credential"
		return e
	case broker.Unavailable:
		return broker.Errorf(broker.Unavailable, textVault).WithCause(err)
	}
	return broker.Errorf(broker.Internal, "%s", advise(textInternal, s.contact)).WithCause(err)
}

// upstreamError turns a failed login into what the agent is told. A refused
// credential is drift, and recorded at once; the server's words reach the
// record and the log only after anything like the credential was cut out.
func (s *live) upstreamError(err error, c *broker.Credential) *broker.Error {
	m := s.manager
	answer := withhold(answerOf(err), s.mailbox.LoginName(c), c.Secret.Reveal())
	fields := append(s.fields(), zap.String("answer", answer))
	cause := errors.New(answer)
	var reason string
	if e := (*broker.Error)(nil); errors.As(err, &e) {
		reason = e.Reason
	}
	switch broker.CodeOf(err) {
	case broker.CredentialRefused:
		if reason == broker.ReasonConsent || reason == broker.ReasonConsentKnown {
			return s.consentError(reason, answer, c.Kind)
		}
		m.logger.Warn("the upstream refused the credential: it was changed elsewhere, or the account was closed", fields...)
		m.metrics.drift.WithLabelValues(string(s.record.Protocol)).Inc()
		event := s.event(broker.EventDrift, broker.Drift{Protocol: s.record.Protocol, Answer: answer})
		event.Actor = m.system()
		m.submit(event)
		m.mend(s)
		return &broker.Error{Code: broker.CredentialRefused, Public: advise(textDrift, s.contact), Reason: reason, Cause: cause}
	case broker.Unavailable:
		m.logger.Error("the upstream is out of reach", fields...)
		return &broker.Error{Code: broker.Unavailable, Public: textUpstream, Reason: reason, Cause: cause}
	}
	m.logger.Error("the upstream login failed", fields...)
	return &broker.Error{Code: broker.Internal, Public: advise(textInternal, s.contact), Reason: reason, Cause: cause}
}

// consentError is for a mailbox whose access tokens nobody gives any more: for
// the firm to mend. It is recorded once, and told to all.
func (s *live) consentError(reason, answer string, kind broker.CredentialKind) *broker.Error {
	m := s.manager
	if reason == broker.ReasonConsent {
		m.logger.Warn("a consent was withdrawn, or has ended", append(s.fields(), zap.String("answer", answer))...)
		m.metrics.consents.WithLabelValues(string(s.record.Protocol)).Inc()
		event := s.event(broker.EventConsentWithdrawn, broker.ConsentWithdrawn{Protocol: s.record.Protocol, Kind: kind, Answer: answer})
		event.Actor = m.system()
		m.submit(event)
	}
	return &broker.Error{Code: broker.CredentialRefused, Public: advise(textConsent, s.contact), Reason: reason, Cause: errors.New(answer)}
}

// answerOf returns the upstream's words.
func answerOf(err error) string {
	var e *broker.Error
	if errors.As(err, &e) && e.Cause != nil {
		return e.Cause.Error()
	}
	return err.Error()
}
