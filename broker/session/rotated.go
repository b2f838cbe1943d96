// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// loginAmid is for a credential that the upstream has refused. While a rotation
// is under way, or has ended without knowing what the provider made of it, the
// password that it has made may be the mailbox's; when it has just ended, that
// has become the credential. Only what is refused after both is drift.
//
// The journal is read before the credential: a rotation that ends between the
// two has committed before.
func loginAmid[C any](ctx context.Context, s *live, open opener[C], tried *broker.Credential, refusal error) (*C, error) {
	m := s.manager
	s.usesNot(tried.Version, "")
	journal, err := m.rotations.PendingRotation(ctx, s.record.MailboxID)
	if err != nil {
		m.metrics.stateFailures.Inc()
		return nil, broker.Errorf(broker.Unavailable, textUnavailable).WithCause(err)
	}
	if journal != nil && mayBeSet(journal) {
		pending, err := m.pending.PendingCredential(ctx, s.record.FirmID, s.record.MailboxID, journal.PendingID())
		switch broker.CodeOf(err) {
		case "":
			defer pending.Secret.Wipe()
			s.uses(0, journal.PendingID())
			conn, err := open(ctx, s.mailbox, pending)
			if err == nil {
				return conn, nil
			}
			s.usesNot(0, journal.PendingID())
			if broker.CodeOf(err) != broker.CredentialRefused {
				return nil, s.upstreamError(err, pending)
			}
		case broker.NotFound: // destroyed: the rotation is over
		default:
			return nil, s.credentialError(err)
		}
	}
	again, err := m.credentials.Credential(ctx, s.record.FirmID, s.record.MailboxID)
	if err != nil {
		return nil, s.credentialError(err)
	}
	defer again.Secret.Wipe()
	if again.Version != tried.Version {
		s.uses(again.Version, "")
		conn, err := open(ctx, s.mailbox, again)
		if err == nil {
			return conn, nil
		}
		tried, refusal = again, err
	}
	if journal != nil && journal.State != broker.RotationEnded && broker.CodeOf(refusal) == broker.CredentialRefused {
		m.logger.Warn("the upstream refused the credential amid a rotation", append(s.fields(), zap.String("rotation", string(journal.ID)))...)
		e := broker.Errorf(broker.Unavailable, textRotating)
		e.Reason = "rotation"
		return nil, e
	}
	return nil, s.upstreamError(refusal, tried)
}

// mend begins a rotation where the mailbox wants one for drift.
func (m *Manager) mend(s *live) {
	if m.rotations == nil || s.mailbox.Rotation == nil || !slices.Contains(s.mailbox.Rotation.On, broker.RotateOnDrift) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	err := m.rotations.RequestRotation(ctx, m.system(), &broker.Rotation{MailboxID: s.mailbox.ID, Cause: broker.RotateOnDrift})
	switch broker.CodeOf(err) {
	case "", broker.Conflict, broker.Limit: // one is under way, or has just ended
	default:
		m.logger.Error("no rotation could be begun for a drift", append(s.fields(), zap.Error(err))...)
	}
}

// mayBeSet reports whether the provider may have been asked for the journal's
// latest password, and it is not yet the credential.
func mayBeSet(r *broker.Rotation) bool {
	switch r.State {
	case broker.RotationRequested, broker.RotationPrepared:
		return r.Asked > 0 || r.Entered
	case broker.RotationEnded:
		return r.Outcome == broker.RotationKeptOld || r.Outcome == broker.RotationLost
	}
	return len(r.Pending) > 0
}

// used is a credential that a session has logged in with, or is about to.
type used struct {
	// version is the stored credential's, pending names a rotation's password
	// instead.
	version int
	pending broker.ID
}

// uses notes a credential before it goes to the upstream: whatever change of
// the mailbox is followed from then on finds it.
func (s *live) uses(version int, pending broker.ID) {
	s.mu.Lock()
	s.used = append(s.used, used{version, pending})
	outdated := s.outdated()
	s.mu.Unlock()
	if outdated != nil {
		s.kill(outdated, s.manager.system())
	}
}

// usesNot takes back a credential that was refused.
func (s *live) usesNot(version int, pending broker.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.used, used{version, pending}); i >= 0 {
		s.used = slices.Delete(s.used, i, i+1)
	}
}

// rotated notes what credential sessions must have at least, and returns how the
// session ends; nil: it lives on.
func (s *live) rotated(m *broker.Mailbox) *broker.End {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least, s.leastPending = m.MinCredential, m.MinCredentialID
	return s.outdated()
}

// outdated reports whether a credential was used that a rotation has replaced.
// The caller holds the lock.
func (s *live) outdated() *broker.End {
	if s.leastPending == s.mailbox.MinCredentialID {
		return nil // no rotation since the session was opened
	}
	for _, u := range s.used {
		if u.pending != "" && u.pending != s.leastPending || u.pending == "" && u.version < s.least {
			return &broker.End{Reason: broker.EndRotated, Text: textRotated}
		}
	}
	return nil
}
