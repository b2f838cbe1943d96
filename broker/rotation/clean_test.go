// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/broker"
)

// answers is a mail server that says of each password what came of it.
type answers struct {
	*model
	imap, submission map[string]verdict
}

func (a *answers) login(says map[string]verdict, c *broker.Credential) error {
	switch says[string(c.Secret.Reveal())] {
	case accepted:
		return nil
	case refused:
		return broker.Errorf(broker.CredentialRefused, "refused")
	}
	return outage()
}

func (a *answers) OpenIMAP(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	if err := a.login(a.imap, c); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{Conn: closed()}, nil
}

func (a *answers) OpenSubmission(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if err := a.login(a.submission, c); err != nil {
		return nil, err
	}
	return &broker.SubmissionConn{Conn: closed()}, nil
}

// ended is a model whose rotation has ended, and has kept two passwords.
func ended(t *rapid.T, how broker.RotationOutcome) *model {
	m := calm(t)
	m.robbed = true // answers says what opens the mailbox
	for _, secret := range []string{"first", "second"} {
		id := broker.NewID()
		m.journal.Pending = append(m.journal.Pending, id)
		m.pending[id] = &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte(secret))}
	}
	m.journal.State, m.journal.Outcome = broker.RotationEnded, how
	return m
}

// look has the ended rotation looked at once.
func (m *model) look(says *answers) {
	says.model = m
	if m.journal.NextAt.After(m.now) {
		m.now = m.journal.NextAt
	}
	journal := m.journal
	m.rotator(says, nil).work(m.t.Context(), &journal)
}

// TestNever7CleaningKeepsWhatMayOpenTheMailbox: what a rotation has made is
// destroyed only while both services take the mailbox's credential. A service that
// refuses it, for good or for a moment, may take what was made.
func TestNever7CleaningKeepsWhatMayOpenTheMailbox(t *testing.T) {
	type says = map[string]verdict
	for name, c := range map[string]struct {
		imap, submission says
		cleaned          bool
		requested        int
	}{
		"the old one is taken":                      {imap: says{"old-5ecret": accepted}, submission: says{"old-5ecret": accepted}, cleaned: true},
		"nothing is heard":                          {},
		"submission is not heard":                   {imap: says{"old-5ecret": accepted}},
		"the old one is refused, then silence":      {imap: says{"old-5ecret": refused}, submission: says{"old-5ecret": refused}},
		"everything is refused":                     {imap: says{"old-5ecret": refused, "first": refused, "second": refused}, submission: says{"old-5ecret": refused, "first": refused, "second": refused}},
		"submission refuses everything":             {imap: says{"old-5ecret": accepted, "first": refused, "second": refused}, submission: says{"old-5ecret": refused, "first": refused, "second": refused}},
		"the last is set":                           {imap: says{"old-5ecret": refused, "second": accepted}, submission: says{"old-5ecret": refused, "second": accepted}, requested: 1},
		"an earlier one is set":                     {imap: says{"old-5ecret": refused, "second": refused, "first": accepted}, submission: says{"old-5ecret": refused, "second": refused, "first": accepted}, requested: 1},
		"an earlier one is set, at submission only": {imap: says{"old-5ecret": accepted, "second": refused, "first": refused}, submission: says{"old-5ecret": refused, "second": refused, "first": accepted}, requested: 1},
	} {
		for _, how := range []broker.RotationOutcome{broker.RotationKeptOld, broker.RotationLost, broker.RotationDone} {
			rapid.Check(t, func(t *rapid.T) {
				m := ended(t, how)
				m.look(&answers{imap: c.imap, submission: c.submission})
				if cleaned := !m.journal.CleanedAt.IsZero(); cleaned != c.cleaned || (len(m.pending) == 0) != c.cleaned || m.requested != c.requested {
					t.Fatalf("%s, %s: cleaned: %v, %d passwords left, %d rotations begun: %+v", name, how, cleaned, len(m.pending), m.requested, m.journal)
				}
				if !c.cleaned && (m.journal.Waiting == "" || !m.journal.NextAt.After(m.now)) {
					t.Fatalf("%s, %s: it does not say for what and until when it waits: %+v", name, how, m.journal)
				}
			})
		}
	}
}

// TestNever7KeptOldThatOpensNothingIsLost: that a rotation kept the old password is
// no news for long where that is dead. Whoever is told of lost mailboxes is told,
// and the passwords stay. Refused logins come a day apart, and then less often.
func TestNever7KeptOldThatOpensNothingIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := ended(t, broker.RotationKeptOld)
		dead := map[string]verdict{"old-5ecret": refused, "first": refused, "second": refused}
		var outcomes []broker.RotationOutcome
		for range 5 {
			at := m.now
			m.look(&answers{imap: dead, submission: dead})
			outcomes = append(outcomes, m.journal.Outcome)
			if len(outcomes) > 1 && m.now.Sub(at) < 24*time.Hour {
				t.Fatalf("looked at again after %v", m.now.Sub(at))
			}
		}
		kept, lost := broker.RotationKeptOld, broker.RotationLost
		if !slices.Equal(outcomes, []broker.RotationOutcome{kept, kept, kept, lost, lost}) || !Alarming(&m.journal) || len(m.pending) != 2 {
			t.Fatalf("day by day %v, %d passwords left: %+v", outcomes, len(m.pending), m.journal)
		}
		// Whoever mends it ends it.
		well := map[string]verdict{"old-5ecret": accepted}
		if m.look(&answers{imap: well, submission: well}); m.journal.CleanedAt.IsZero() {
			t.Fatalf("the credential opens it, and it is not cleaned: %+v", m.journal)
		}
	})
}
