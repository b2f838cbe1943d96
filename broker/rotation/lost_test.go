// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern-mail/postern/broker"
)

// calm is a model in which nothing goes wrong by itself.
func calm(t *rapid.T) *model {
	m := &model{
		t: t, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), imap: "old-5ecret", submission: "old-5ecret",
		pending: make(map[broker.ID]*broker.Credential), secrets: map[string]bool{"old-5ecret": true},
	}
	m.mailbox = broker.Mailbox{ID: broker.NewID(), FirmID: broker.NewID(), Address: "desk@firm.example"}
	m.provider = broker.Provider{ID: broker.NewID(), FirmID: m.mailbox.FirmID, Driver: "model"}
	m.mailbox.Rotation = &broker.RotationMethod{ProviderID: m.provider.ID}
	m.committed = &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("old-5ecret")), Version: 3}
	m.journal = broker.Rotation{
		ID: broker.NewID(), FirmID: m.mailbox.FirmID, MailboxID: m.mailbox.ID, ProviderID: m.provider.ID,
		State: broker.RotationRequested, CreatedAt: m.now, Revision: 1,
	}
	return m
}

// until takes steps until the journal is in a state, or has ended.
func (m *model) until(state broker.RotationState, drivers map[string]broker.Driver) {
	r := m.rotator(m, drivers)
	w := &worker{Rotator: r, journal: m.journal}
	defer w.forget()
	for steps := 0; m.journal.State != state && m.journal.State != broker.RotationEnded; steps++ {
		if steps > 50 {
			m.t.Fatalf("it does not come to %s: %+v", state, m.journal)
		}
		if m.journal.NextAt.After(m.now) {
			m.now = m.journal.NextAt
		}
		s := next(&w.journal)
		entry := (&machine{Limits: r.Limits, now: m.now, id: broker.NewID}).after(w.journal, s, w.do(m.t.Context(), s))
		w.write(m.t.Context(), s, entry)
	}
}

func (m *model) rob() {
	m.robbed = true
	clear(m.pending)
}

func (m *model) drivers() map[string]broker.Driver { return map[string]broker.Driver{"model": m} }

// TestNever7NewPasswordGoneFromVault: somebody deletes the new password in Vault,
// or restores Vault from a backup of before. Wherever the rotation stands it ends,
// with what is true, and does not wait for ever without a word.
func TestNever7NewPasswordGoneFromVault(t *testing.T) {
	for state, want := range map[broker.RotationState]broker.RotationOutcome{
		broker.RotationPrepared:  broker.RotationCancelled, // nobody was asked
		broker.RotationAsked:     broker.RotationLost,
		broker.RotationVerified:  broker.RotationLost,
		broker.RotationOldDead:   broker.RotationLost,
		broker.RotationCommitted: broker.RotationDone,
	} {
		rapid.Check(t, func(t *rapid.T) {
			m := calm(t)
			m.until(state, m.drivers())
			m.rob()
			m.until(broker.RotationEnded, m.drivers())
			if m.journal.Outcome != want {
				t.Fatalf("gone in state %s, it ended as %s: %+v", state, m.journal.Outcome, m.journal)
			}
			if want != broker.RotationDone && (!Alarming(&m.journal) || !strings.Contains(m.journal.Words, "gone")) {
				t.Fatalf("nobody is told why: %+v", m.journal)
			}
		})
	}
	// Where the old one still works, it stays.
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		m.until(broker.RotationAsked, m.drivers())
		m.rob()
		m.imap, m.submission = "old-5ecret", "old-5ecret"
		m.until(broker.RotationEnded, m.drivers())
		if m.journal.Outcome != broker.RotationKeptOld {
			t.Fatalf("it ended as %s: %+v", m.journal.Outcome, m.journal)
		}
	})
}

// TestNever7DriverGoneAmidARotation: a driver that is configured no more once the
// provider may have been asked does not end the rotation as if it had not been:
// the new password is kept until it is known that it opens nothing.
func TestNever7DriverGoneAmidARotation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		m.until(broker.RotationPrepared, m.drivers())
		m.journal.Asked = 1 // an ask came to nothing, and may yet come to something
		m.until(broker.RotationEnded, nil)
		if m.journal.Outcome != broker.RotationKeptOld || !m.journal.NextAt.After(m.now.Add(time.Hour)) || len(m.pending) != 1 {
			t.Fatalf("it ended as %s, cleaned at %s: %+v", m.journal.Outcome, m.journal.NextAt, m.journal)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		m.until(broker.RotationPrepared, m.drivers())
		m.until(broker.RotationEnded, nil)
		if m.journal.Outcome != broker.RotationCancelled {
			t.Fatalf("before anybody was asked it ended as %s", m.journal.Outcome)
		}
	})
}

// TestNever7SamePasswordEntered: a person enters the password that is stored
// already. It works, and proves nothing: the old one is alive.
func TestNever7SamePasswordEntered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		id := broker.NewID()
		m.journal.Entered, m.journal.Pending = true, []broker.ID{id}
		m.pending[id] = &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("old-5ecret"))}
		m.until(broker.RotationEnded, m.drivers())
		if m.journal.Outcome == broker.RotationDone || !Alarming(&m.journal) || !strings.Contains(m.journal.Words, "is the one that is stored") {
			t.Fatalf("it ended as %s, unproved %v (%s)", m.journal.Outcome, m.journal.Unproved, m.journal.Words)
		}
	})
}

// TestNever7LostKeepsItsPasswords: a rotation that has found neither password to
// open the mailbox keeps the new ones. The provider may set one yet, or have
// refused it for a moment alone, and a person may need it.
func TestNever7LostKeepsItsPasswords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		id := broker.NewID()
		m.journal.Entered, m.journal.Pending = true, []broker.ID{id}
		m.pending[id] = &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("entered-5ecret"))}
		m.imap, m.submission = "an intruder's", "an intruder's"
		m.run()
		if m.journal.Outcome != broker.RotationLost {
			t.Fatalf("it ended as %s: %+v", m.journal.Outcome, m.journal)
		}
		if !m.journal.CleanedAt.IsZero() || m.pending[id] == nil {
			t.Fatalf("the password that was entered is destroyed: %+v", m.journal)
		}
	})
}

// TestNever7SubmissionThatRefusesEverythingProvesNothing: the old password is dead
// where each service refuses it and takes the new one. One that refuses both, as for
// an account that may not send, or does not answer, says nothing of the old one.
func TestNever7SubmissionThatRefusesEverythingProvesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		submission verdict
		proved     bool
	}{"takes the new one": {accepted, true}, "refuses it too": {refused, false}, "does not answer": {unreached, false}} {
		m := &machine{Limits: Limits{}.withDefaults(), now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), id: broker.NewID}
		r := broker.Rotation{State: broker.RotationVerified, OldVersion: 3, Asked: 1, Pending: []broker.ID{broker.NewID()}, CreatedAt: m.now}
		for tries := 0; r.State == broker.RotationVerified; tries++ {
			if tries > 1000 {
				t.Fatalf("%s: no end: %+v", name, r)
			}
			r = m.after(r, stepProveDead, finding{old: both{refused, refused}, new: both{accepted, c.submission}})
			m.now = m.now.Add(max(time.Second, r.NextAt.Sub(m.now)))
		}
		if proved := !slices.Contains(r.Unproved, broker.UnprovedOldDead); r.State != broker.RotationOldDead || proved != c.proved {
			t.Errorf("submission %s: the old one is proved dead: %v: %+v", name, proved, r)
		}
	}
}

// TestNever7ProcessThatStoodStillSetsNothing: one that is suspended between the entry
// that the provider is about to be asked and the asking finds its claim lapsed.
// Another may have gone on meanwhile, and committed another password.
func TestNever7ProcessThatStoodStillSetsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := calm(t)
		m.standsStill = true
		m.run()
		if m.standsStill || m.sets != 1 || m.journal.Asked != 2 || m.journal.Outcome != broker.RotationDone {
			t.Fatalf("the provider was asked %d times; it ended as %s: %+v", m.sets, m.journal.Outcome, m.journal)
		}
	})
}

// TestNever1ProviderRepeatsSecrets: what a provider says is written down without
// any of the secrets that it was given, in whatever form it repeats them.
func TestNever1ProviderRepeatsSecrets(t *testing.T) {
	const account, old, fresh = "acc0unt-t0ken", "0ld-passw0rd", "fre5h-passw0rd"
	secret := func(s string) broker.Secret { return broker.NewSecret([]byte(s)) }
	change := &broker.PasswordChange{Old: secret(old), New: secret(fresh), Account: &broker.ProviderAccount{Secret: secret(account)}}
	for _, words := range []string{
		"unknown token " + account, "not " + fresh + "!", "was " + old,
		"Basic " + base64.StdEncoding.EncodeToString([]byte(account)),
		"cut " + fresh[:8],
	} {
		f := said(&broker.DriverError{Outcome: broker.NotApplied, Reason: broker.DriverAccountRefused, Words: words}, change)
		if slices.ContainsFunc([]string{account, old, fresh, fresh[:8], base64.StdEncoding.EncodeToString([]byte(account))}, func(s string) bool {
			return strings.Contains(f.words, s)
		}) {
			t.Errorf("%q is written down as %q", words, f.words)
		}
		if f.said != broker.SaidNotApplied || f.words == "" {
			t.Errorf("%q came to %+v", words, f)
		}
	}
}
