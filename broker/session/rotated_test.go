// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// amid is a mailbox whose password is being rotated.
type amid struct {
	journal *broker.Rotation
	err     error
	pending string
	missing error
	begun   []broker.RotationCause
}

func (a *amid) RequestRotation(_ context.Context, _ broker.Actor, r *broker.Rotation) error {
	a.begun = append(a.begun, r.Cause)
	return nil
}

func (a *amid) PendingRotation(context.Context, broker.ID) (*broker.Rotation, error) {
	return a.journal, a.err
}

func (a *amid) PendingCredential(_ context.Context, _, _, id broker.ID) (*broker.Credential, error) {
	if a.missing != nil {
		return nil, a.missing
	}
	if a.journal == nil || id != a.journal.PendingID() {
		return nil, broker.Errorf(broker.NotFound, "none")
	}
	return &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret(bytes.Clone([]byte(a.pending))), Version: 1}, nil
}

func journalIn(state broker.RotationState, outcome broker.RotationOutcome) *broker.Rotation {
	return &broker.Rotation{ID: broker.NewID(), State: state, Outcome: outcome, Asked: 1, Pending: []broker.ID{broker.NewID()}}
}

// TestLoginAmidARotation: where the credential is refused, the journal says
// what else may be the password; only what is refused after that is drift, and
// not while a rotation is under way.
func TestLoginAmidARotation(t *testing.T) {
	const old, made = "correct horse battery", "new 5ecret"
	away := broker.Errorf(broker.Unavailable, "out of reach")
	for _, test := range []struct {
		name  string
		amid  amid
		opens string // the password that the upstream takes
		code  broker.Code
		drift bool
	}{
		{"the old one still opens", amid{journal: journalIn(broker.RotationAsking, ""), pending: made}, old, "", false},
		{"the new one opens", amid{journal: journalIn(broker.RotationAsking, ""), pending: made}, made, "", false},
		{"verified", amid{journal: journalIn(broker.RotationVerified, ""), pending: made}, made, "", false},
		{"set late", amid{journal: journalIn(broker.RotationEnded, broker.RotationKeptOld), pending: made}, made, "", false},
		{"neither opens, under way", amid{journal: journalIn(broker.RotationAsked, ""), pending: made}, "another", broker.Unavailable, false},
		{"neither opens, ended", amid{journal: journalIn(broker.RotationEnded, broker.RotationLost), pending: made}, "another", broker.CredentialRefused, true},
		{"no rotation", amid{}, "another", broker.CredentialRefused, true},
		{"one that has done", amid{journal: journalIn(broker.RotationEnded, broker.RotationDone), pending: made}, made, broker.CredentialRefused, true},
		{"the journal cannot be read", amid{err: errors.New("no database")}, made, broker.Unavailable, false},
		{"Vault is sealed", amid{journal: journalIn(broker.RotationAsked, ""), missing: away}, made, broker.Unavailable, false},
	} {
		for kind, dial := range dials() {
			t.Run(kind+" "+test.name, func(t *testing.T) {
				w := newWorld(t, func(c *Config) { c.Rotations, c.Pending = &test.amid, &test.amid })
				w.mailbox.Rotation = &broker.RotationMethod{On: []broker.RotationCause{broker.RotateOnDrift}}
				test.amid.begun = nil
				w.run(t)
				s := w.open(t)
				tried := map[string]int{}
				w.upstream.login = func(_ context.Context, c *broker.Credential) error {
					tried[string(c.Secret.Reveal())]++
					if string(c.Secret.Reveal()) != test.opens {
						return broker.Errorf(broker.CredentialRefused, "refused")
					}
					return nil
				}
				if err := dial(s, t.Context()); broker.CodeOf(err) != test.code {
					t.Errorf("error %v, want code %q", err, test.code)
				}
				if drift := len(w.log.of(broker.EventDrift)) > 0; drift != test.drift {
					t.Errorf("drift: %v", drift)
				}
				if mended := len(test.amid.begun) == 1; mended != test.drift {
					t.Errorf("rotations begun: %v", test.amid.begun)
				}
				for secret, n := range tried {
					if n > 1 {
						t.Errorf("%q was tried %d times", secret, n)
					}
				}
			})
		}
	}
}

// TestRotationEndsOldSessions: a commit ends the sessions that logged in with
// an older version, and no other: not those that logged in with the password
// that it made the credential.
func TestRotationEndsOldSessions(t *testing.T) {
	const made = "new 5ecret"
	a := &amid{journal: journalIn(broker.RotationAsked, ""), pending: made}
	w := newWorld(t, func(c *Config) { c.Rotations, c.Pending = a, a })
	w.run(t)
	onOld, onPending, notYet := w.open(t), w.open(t), w.open(t)
	dial := dials()["imap"]
	if err := dial(onOld, t.Context()); err != nil {
		t.Fatal(err)
	}
	w.upstream.login = func(_ context.Context, c *broker.Credential) error {
		if string(c.Secret.Reveal()) != made {
			return broker.Errorf(broker.CredentialRefused, "refused")
		}
		return nil
	}
	if err := dial(onPending, t.Context()); err != nil {
		t.Fatal(err)
	}
	commit := func(version int, id broker.ID) {
		m := *w.mailbox
		m.MinCredential, m.MinCredentialID = version, id
		w.set(broker.Change{Kind: "mailbox", ID: m.ID}, func() { w.boxes[m.ID] = &m })
	}
	commit(1000, a.journal.PendingID())
	<-onOld.Context().Done()
	if e := ended(t, onOld); e.Reason != broker.EndRotated {
		t.Errorf("ended as %v", e)
	}
	for _, s := range []broker.LiveSession{onPending, notYet} {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("a session that is not on the old password: %v", err)
		}
		alive(t, s)
	}
	// One that read the old credential before the commit ends when it comes to
	// use it.
	w.upstream.login = nil
	if err := dial(notYet, t.Context()); err == nil {
		t.Error("a session logged in with a credential that was replaced")
	}
	if e := ended(t, notYet); e.Reason != broker.EndRotated {
		t.Errorf("ended as %v", e)
	}
	commit(1001, broker.NewID())
	<-onPending.Context().Done()
	if e := ended(t, onPending); e.Reason != broker.EndRotated {
		t.Errorf("ended as %v", e)
	}
}
