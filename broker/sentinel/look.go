// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/redact"
)

const (
	// maxAnswer cuts what upstreams wrote, in octets.
	maxAnswer = 200
	// maxUnread is how many looks on end may fail to read the mailbox before a person
	// is told.
	maxUnread  = 3
	unreadText = "it opens, and cannot be read as a whole"
)

// look is one look at one mailbox, and what it came to.
type look struct {
	*Sentinel
	mailbox *broker.Mailbox
	result  broker.WatchResult
	// mend says that the mailbox may want a rotation for what was found.
	mend bool
	// findings are what was done without Postern.
	findings []broker.Bypass
	// watched says that the mailbox was read, unread why it could not be read as a
	// whole.
	watched bool
	unread  error
}

// look looks at a mailbox.
func (s *Sentinel) look(ctx context.Context, w broker.Watch) *look {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	l := &look{Sentinel: s, result: broker.WatchResult{Watch: w}}
	l.result.Watch.NextAt = s.next(s.Interval)
	m, err := s.State.Mailbox(ctx, w.MailboxID)
	if err != nil {
		// One that is gone is forgotten when watches are next prepared.
		l.found(broker.WatchUnavailable, "the mailbox cannot be read", err)
		return l
	}
	l.mailbox = m
	if m.Watch != nil && m.Watch.Off {
		l.found(broker.WatchOff, "", nil)
		l.noteRead()
		l.forget(ctx) // what is done meanwhile is nobody's business
		return l
	}
	l.logIn(ctx)
	return l
}

// found notes what was found.
func (l *look) found(o broker.WatchOutcome, detail string, err error) {
	w := &l.result.Watch
	w.Outcome, w.Detail = o, detail
	if err != nil {
		l.Logger.Info("a look at a mailbox", zap.String("mailbox", string(w.MailboxID)),
			zap.String("outcome", string(o)), zap.String("detail", detail), zap.Error(err))
	}
}

// logIn tries the mailbox's credential.
func (l *look) logIn(ctx context.Context) {
	if l.rotating(ctx) {
		return
	}
	c, err := l.Credentials.Credential(ctx, l.mailbox.FirmID, l.mailbox.ID)
	switch {
	case broker.CodeOf(err) == broker.NotFound:
		l.found(broker.WatchNoCredential, "no credential is stored", nil)
		l.result.Watch.RefusedVersion, l.result.Watch.Refusals = 0, 0 // the next is counted from 1
		return
	case err != nil:
		l.found(broker.WatchUnavailable, "the credential storage is out of reach", err)
		return
	}
	defer func() { c.Secret.Wipe() }()
	w := &l.result.Watch
	source := fmt.Sprintf("%s@%s:%d", l.mailbox.LoginName(c), l.mailbox.IMAP.Host, l.mailbox.IMAP.Port)
	if w.Source != source {
		if !l.forget(ctx) {
			return
		}
		l.noteRead()
		w.Source, w.RefusedVersion, w.Refusals = source, 0, 0
	}
	now := l.Now().UTC()
	if w.RefusedVersion == c.Version && w.Refusals >= maxRefusals && now.Sub(w.ProbedAt) < refusedPause {
		return // it was refused, and nobody has stored another
	}
	w.ProbedAt = now
	for again := false; ; again = true {
		protocol, err := l.try(ctx, c)
		if broker.CodeOf(err) != broker.CredentialRefused {
			l.tried(c.Version, err)
			return
		}
		// A rotation may have begun, or ended, since the credential was read.
		if l.rotating(ctx) {
			return
		}
		stored, storedErr := l.Credentials.Credential(ctx, l.mailbox.FirmID, l.mailbox.ID)
		if storedErr != nil {
			l.found(broker.WatchUnavailable, "the credential storage is out of reach", storedErr)
			return
		}
		c.Secret.Wipe()
		changed := stored.Version != c.Version
		c = stored
		if !changed || again {
			l.refused(protocol, c, err)
			return
		}
	}
}

// forget drops what is known of the mailbox's folders. What is in them when they are
// looked at again is what there is.
func (l *look) forget(ctx context.Context) (ok bool) {
	w := &l.result.Watch
	if len(w.Folders) == 0 && len(w.Suspects) == 0 {
		return true
	}
	kept, err := l.State.WatchedFolders(ctx, w.MailboxID)
	if err != nil {
		l.found(broker.WatchUnavailable, "what was kept of its folders cannot be read", err)
		return false
	}
	l.result.Folders = make(map[string][]byte)
	for name := range kept {
		l.result.Folders[name] = nil
	}
	w.Folders, w.Suspects = nil, nil
	return true
}

// rotating reports whether the mailbox's password is being replaced: then a
// refusal says nothing.
func (l *look) rotating(ctx context.Context) bool {
	journal, err := l.State.PendingRotation(ctx, l.mailbox.ID)
	switch {
	case err != nil:
		l.found(broker.WatchUnavailable, "the journals of rotations cannot be read", err)
		return true
	case journal != nil && journal.State != broker.RotationEnded:
		l.found(broker.WatchRotating, "rotation "+string(journal.ID), nil)
		l.result.Watch.NextAt = l.next(min(l.Interval, rotateTime))
		return true
	}
	return false
}

// try logs in to IMAP and then to submission.
func (l *look) try(ctx context.Context, c *broker.Credential) (broker.Protocol, error) {
	var imap *broker.IMAPConn
	var err error
	l.patiently(func() { imap, err = l.Upstream.OpenIMAP(ctx, l.mailbox, c) })
	if err != nil {
		return broker.ProtocolIMAP, err
	}
	// Once: with another credential, what was found would be compared with itself.
	if !l.watched {
		if l.watched, l.unread = true, l.watch(ctx, imap); l.unread == nil {
			l.noteRead()
		} else {
			l.noteUnread()
		}
	}
	leave(imap, "logout LOGOUT\r\n")
	var submission *broker.SubmissionConn
	l.patiently(func() { submission, err = l.Upstream.OpenSubmission(ctx, l.mailbox, c) })
	if err != nil {
		return broker.ProtocolSubmission, err
	}
	leave(submission, "QUIT\r\n")
	return "", nil
}

// noteUnread counts a look that could not read the mailbox. Whoever has its password
// can see to it that there is too much to read: a person is told after a few.
func (l *look) noteUnread() {
	w := &l.result.Watch
	if w.Unread == 0 {
		w.UnreadSince = w.ProbedAt
	}
	if w.Unread++; w.Unread == maxUnread {
		l.record(broker.EventUnwatched, broker.Unwatched{Since: w.UnreadSince, Text: unreadText})
	}
}

// noteRead ends that: the mailbox was read, or is no more to be.
func (l *look) noteRead() {
	w := &l.result.Watch
	if w.Unread >= maxUnread {
		l.record(broker.EventUnwatched, broker.Unwatched{Since: w.UnreadSince, Until: l.Now().UTC()})
	}
	w.Unread, w.UnreadSince = 0, time.Time{}
}

// leave ends a connection, in an orderly way if the server listens.
func leave(c net.Conn, goodbye string) {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, goodbye) // what was to be known is known
	_ = c.Close()
}

// tried notes a login that was not refused.
func (l *look) tried(version int, err error) {
	w := &l.result.Watch
	switch broker.CodeOf(err) {
	case "":
		if w.RefusedVersion == version {
			l.record(broker.EventDriftOver, broker.CredentialSetData{Version: version})
		}
		w.GoodAt, w.RefusedVersion, w.Refusals = w.ProbedAt, 0, 0
		l.found(broker.WatchOK, "", nil)
		if l.unread != nil {
			l.found(broker.WatchUnavailable, unreadText, l.unread)
		}
	case broker.Invalid:
		l.found(broker.WatchUnavailable, "no login can carry the credential", err)
	default:
		l.found(broker.WatchUnavailable, broker.PublicText(err), err)
	}
}

// refused records a refusal, once for each version of the credential.
func (l *look) refused(protocol broker.Protocol, c *broker.Credential, err error) {
	w := &l.result.Watch
	first := w.RefusedVersion != c.Version
	if first {
		w.RefusedVersion, w.Refusals = c.Version, 0
	}
	w.Refusals++
	var e *broker.Error
	consent, answer := false, ""
	if errors.As(err, &e) {
		consent = e.Reason == broker.ReasonConsent || e.Reason == broker.ReasonConsentKnown
		if e.Cause != nil {
			answer = withhold(e.Cause.Error(), c.Secret)
		}
	}
	if consent {
		l.found(broker.WatchDrift, "the issuer of access tokens gives none any more", err)
		if first {
			l.record(broker.EventConsentWithdrawn, broker.ConsentWithdrawn{Protocol: protocol, Kind: c.Kind, Answer: answer})
		}
		return
	}
	l.found(broker.WatchDrift, "the credential is refused ("+string(protocol)+")", err)
	l.mend = true
	if !first {
		return
	}
	l.Logger.Warn("the upstream refused the credential: it was changed elsewhere, or the account was closed",
		zap.String("mailbox", l.mailbox.Address), zap.String("protocol", string(protocol)), zap.String("answer", answer))
	l.record(broker.EventDrift, broker.Drift{Protocol: protocol, Answer: answer, Probe: true})
	if l.mailbox.Watch != nil && l.mailbox.Watch.LockOnDrift {
		l.result.Lock = "the mailbox's password was changed elsewhere, and is being sorted out"
	}
}

// withhold returns a server's words without the secret, in case it repeats what
// it was sent. broker/upstream does this as well; here it is done once more,
// where words become a record.
func withhold(words string, secret broker.Secret) string {
	forms := redact.Forms(secret.Reveal())
	defer func() {
		for _, f := range forms {
			clear(f)
		}
	}()
	return redact.Words([]byte(words), maxAnswer, forms)
}

func (l *look) record(t broker.EventType, data any) {
	l.result.Events = append(l.result.Events, &broker.Event{Type: t, Data: data})
}

// mend begins a rotation where the mailbox wants one for drift. It is asked for
// at each refusal: a crash may have come before the last.
func (s *Sentinel) mend(ctx context.Context, m *broker.Mailbox) {
	if m.Rotation == nil || !slices.Contains(m.Rotation.On, broker.RotateOnDrift) {
		return
	}
	err := s.State.RequestRotation(ctx, broker.Actor{Kind: "system", Name: s.Node},
		&broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDrift})
	switch broker.CodeOf(err) {
	case "", broker.Conflict, broker.Limit: // one is under way, or has just ended
		// What came of it is to be seen soon.
		s.note("a watch cannot be made due", s.State.ProbeSoon(ctx, m.ID))
	default:
		s.note("no rotation could be begun for a drift", err)
	}
}
