// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/postern-mail/postern/broker"
)

// model is a provider, a Vault and a store in memory, where anything may fail
// and the process may die at any entry of the journal.
type model struct {
	t   *rapid.T
	now time.Time
	// faults is how many more things may go wrong: a rotation whose world has
	// become calm must end.
	faults int

	mu sync.Mutex
	// imap and submission are what the provider takes; late is what it will, after
	// so many more logins.
	imap, submission string
	late             string
	lateAfter        int
	// shut says that submission refuses everything.
	shut bool

	mailbox   broker.Mailbox
	provider  broker.Provider
	journal   broker.Rotation
	requested int
	committed *broker.Credential
	pending   map[broker.ID]*broker.Credential

	// sets counts what the provider was asked, refusals the logins that it
	// refused, logins all.
	sets, refusals, logins int
	// dead says that the process has died: it does nothing more.
	dead bool
	// standsStill says that the process is suspended once the journal says that the
	// provider is asked, entered when the last entry was about to be written.
	standsStill bool
	entered     time.Time
	entries     int
	// robbed says that somebody has deleted passwords in Vault.
	robbed  bool
	secrets map[string]bool
}

var errDead = errors.New("the process is dead")

func (m *model) wrong(what string, odds int) bool {
	if m.faults == 0 || m.dead {
		return m.dead
	}
	if rapid.IntRange(0, odds).Draw(m.t, what) != 0 {
		return false
	}
	m.faults--
	return true
}

func (m *model) one(what string, of ...string) string {
	if m.faults == 0 {
		return of[0]
	}
	got := rapid.SampledFrom(of).Draw(m.t, what)
	if got != of[0] {
		m.faults--
	}
	return got
}

func outage() error { return broker.Errorf(broker.Unavailable, "out of reach") }

// The state.

func (m *model) Mailbox(context.Context, broker.ID) (*broker.Mailbox, error) {
	if m.wrong("state", 30) {
		return nil, outage()
	}
	x := m.mailbox
	return &x, nil
}

func (m *model) Mailboxes(context.Context) ([]*broker.Mailbox, error) { return nil, nil }

func (m *model) Provider(context.Context, broker.ID) (*broker.Provider, error) {
	if m.wrong("state", 30) {
		return nil, outage()
	}
	x := m.provider
	return &x, nil
}

func (m *model) FirmSessions(context.Context, broker.ID, bool, int) ([]*broker.Session, error) {
	if m.wrong("old session", 5) {
		return []*broker.Session{{MailboxID: m.mailbox.ID, OpenedAt: m.journal.CommittedAt.Add(-time.Second)}}, nil
	}
	return nil, nil
}

func (m *model) AdvanceRotation(_ context.Context, c broker.RotationClaim, r *broker.Rotation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	m.holds(r)
	m.entered = m.now
	if m.wrong("dies before the entry", 12) {
		m.dead = true
		return errDead
	}
	if r.Revision != m.journal.Revision {
		m.t.Fatalf("an entry over revision %d, and the journal is at %d", r.Revision, m.journal.Revision)
	}
	n := *r
	n.Revision++
	if n.State == broker.RotationCommitted && m.journal.State != broker.RotationCommitted {
		n.CommittedAt = m.now
	}
	doc, err := json.Marshal(n)
	if err != nil {
		m.t.Fatal(err)
	}
	for secret := range m.secrets {
		if bytes.Contains(doc, []byte(secret)) {
			m.t.Fatalf("the journal holds a secret: %s", doc)
		}
	}
	m.journal = n
	if n.State == broker.RotationAsking && (m.standsStill || m.wrong("stands still", 12)) {
		m.now, m.standsStill = m.now.Add(claimTime), false
	}
	if m.wrong("dies after the entry", 12) {
		m.dead = true
		return errDead
	}
	*r = n
	return nil
}

func (m *model) RequestRotation(context.Context, broker.Actor, *broker.Rotation) error {
	if m.wrong("request", 5) {
		return outage()
	}
	m.requested++
	return nil
}

func (m *model) ClaimRotation(context.Context, broker.RotationClaim) (*broker.Rotation, error) {
	return nil, nil
}

func (m *model) ReleaseRotation(context.Context, broker.RotationClaim, broker.ID) error { return nil }

func (m *model) ReleaseRotations(context.Context, string) error { return nil }

func (m *model) Rotation(context.Context, broker.ID) (*broker.Rotation, error) { return nil, nil }

func (m *model) PendingRotation(context.Context, broker.ID) (*broker.Rotation, error) {
	return nil, nil
}

func (m *model) Rotations(context.Context, broker.RotationQuery) ([]*broker.Rotation, error) {
	return nil, nil
}

// The secrets.

type modelSecrets struct {
	broker.RotationSecrets
	*model
}

func copied(c *broker.Credential) *broker.Credential {
	if c == nil {
		return nil
	}
	n := *c
	n.Secret = broker.NewSecret(bytes.Clone(c.Secret.Reveal()))
	return &n
}

func (m modelSecrets) Credential(context.Context, broker.ID, broker.ID) (*broker.Credential, error) {
	if m.wrong("vault", 15) {
		return nil, outage()
	}
	if m.committed == nil {
		return nil, broker.Errorf(broker.NotFound, "none")
	}
	return copied(m.committed), nil
}

func (m modelSecrets) SetCredential(_ context.Context, _, _ broker.ID, c *broker.Credential) (int, error) {
	if m.dead {
		return 0, outage()
	}
	how := m.one("commit", "done", "out of reach", "answer lost")
	version := 0
	if m.committed != nil {
		version = m.committed.Version
	}
	if how != "out of reach" {
		if c.Version != version {
			return 0, broker.Errorf(broker.Conflict, "changed")
		}
		m.committed = copied(c)
		m.committed.Version = version + 1
	}
	if how != "done" {
		return 0, outage()
	}
	return version + 1, nil
}

func (m modelSecrets) PendingCredential(_ context.Context, _, _, id broker.ID) (*broker.Credential, error) {
	if m.wrong("vault", 15) {
		return nil, outage()
	}
	if m.pending[id] == nil {
		return nil, broker.Errorf(broker.NotFound, "none")
	}
	return copied(m.pending[id]), nil
}

func (m modelSecrets) SetPendingCredential(_ context.Context, _, _, id broker.ID, c *broker.Credential) error {
	if m.dead {
		return outage()
	}
	how := m.one("store", "done", "out of reach", "answer lost")
	if how != "out of reach" {
		if m.pending[id] != nil {
			return broker.Errorf(broker.Conflict, "there")
		}
		m.pending[id] = copied(c)
		m.secrets[string(c.Secret.Reveal())] = true
	}
	if how != "done" {
		return outage()
	}
	return nil
}

func (m modelSecrets) ProviderAccount(context.Context, broker.ID, broker.ID) (*broker.ProviderAccount, error) {
	if m.wrong("vault", 15) {
		return nil, outage()
	}
	return nil, broker.Errorf(broker.NotFound, "none")
}

func (m modelSecrets) DeletePendingCredential(_ context.Context, _, _, id broker.ID) error {
	if m.wrong("vault", 15) {
		return outage()
	}
	delete(m.pending, id)
	return nil
}

func (m modelSecrets) DestroyCredentialsBefore(context.Context, broker.ID, broker.ID, int) error {
	return nil
}

// The provider.

func (m *model) login(at *string, c *broker.Credential) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wrong("login", 12) {
		return outage()
	}
	m.logins++
	if m.late != "" {
		if m.lateAfter--; m.lateAfter <= 0 {
			m.imap, m.submission, m.late = m.late, m.late, ""
		}
	}
	if string(c.Secret.Reveal()) != *at || at == &m.submission && m.shut || m.journal.State == broker.RotationEnded && m.wrong("refused for a moment", 5) {
		m.refusals++
		return broker.Errorf(broker.CredentialRefused, "refused")
	}
	return nil
}

func (m *model) OpenIMAP(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.IMAPConn, error) {
	if err := m.login(&m.imap, c); err != nil {
		return nil, err
	}
	return &broker.IMAPConn{Conn: closed()}, nil
}

func (m *model) OpenSubmission(_ context.Context, _ *broker.Mailbox, c *broker.Credential) (*broker.SubmissionConn, error) {
	if err := m.login(&m.submission, c); err != nil {
		return nil, err
	}
	return &broker.SubmissionConn{Conn: closed()}, nil
}

func (*model) Probe(context.Context, *broker.Mailbox, *broker.Credential) error { return nil }

func closed() net.Conn {
	a, b := net.Pipe()
	b.Close()
	return a
}

func (m *model) Check(_, _ json.RawMessage) error { return nil }

// Set is the driver: honest, lying, slow, strict, or cut off.
func (m *model) Set(_ context.Context, change *broker.PasswordChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	if m.now.Sub(m.entered) > claimTime-setTime {
		m.t.Fatalf("asked %v after the entry, when another may work on it", m.now.Sub(m.entered))
	}
	m.sets++
	set := func() { m.imap, m.submission, m.late = string(change.New.Reveal()), string(change.New.Reveal()), "" }
	no := func(o broker.DriverOutcome, r broker.DriverReason) error {
		return &broker.DriverError{Outcome: o, Reason: r, Words: "no"}
	}
	switch m.one(
		"provider", "sets it", "says so and does nothing", "sets it later", "sets it and is cut off", "is cut off", "is away",
		"refuses the password", "refuses the password and sets it", "refuses the account", "sets IMAP alone",
		"sets submission alone", "sets IMAP alone, and shuts submission",
	) {
	case "sets it":
		set()
	case "sets it later":
		m.late, m.lateAfter = string(change.New.Reveal()), rapid.IntRange(1, 12).Draw(m.t, "logins until then")
	case "sets it and is cut off":
		set()
		return no(broker.OutcomeUnknown, broker.DriverUnavailable)
	case "is cut off":
		return no(broker.OutcomeUnknown, broker.DriverUnavailable)
	case "is away":
		return no(broker.NotApplied, broker.DriverUnavailable)
	case "refuses the password":
		return no(broker.NotApplied, broker.DriverPasswordPolicy)
	case "refuses the password and sets it":
		set()
		return no(broker.NotApplied, broker.DriverPasswordPolicy)
	case "refuses the account":
		return no(broker.NotApplied, broker.DriverAccountRefused)
	case "sets IMAP alone":
		m.imap = string(change.New.Reveal())
	case "sets IMAP alone, and shuts submission":
		m.imap, m.shut = string(change.New.Reveal()), true
	case "sets submission alone":
		m.submission = string(change.New.Reveal())
	}
	return nil
}

// kept reports whether a password lies in Vault.
func (m *model) kept(password string) bool {
	if m.committed != nil && string(m.committed.Secret.Reveal()) == password {
		return true
	}
	for _, c := range m.pending {
		if string(c.Secret.Reveal()) == password {
			return true
		}
	}
	return false
}

// TestNever7Model: whatever the provider does, whatever is out of reach, and
// wherever the process dies, the password that opens the mailbox lies in Vault
// at every moment, and the rotation ends with the truth in its journal.
func TestNever7Model(t *testing.T) {
	outcomes := make(map[broker.RotationOutcome]int)
	deaths, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			t: t, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), faults: rapid.IntRange(0, 40).Draw(t, "faults"),
			imap: "old-5ecret", submission: "old-5ecret", pending: make(map[broker.ID]*broker.Credential),
			secrets: map[string]bool{"old-5ecret": true},
		}
		drifted := rapid.IntRange(0, 4).Draw(t, "drifted") == 0
		m.mailbox = broker.Mailbox{ID: broker.NewID(), FirmID: broker.NewID(), Address: "desk@firm.example"}
		m.provider = broker.Provider{ID: broker.NewID(), FirmID: m.mailbox.FirmID, Driver: "model"}
		m.mailbox.Rotation = &broker.RotationMethod{ProviderID: m.provider.ID}
		m.committed = &broker.Credential{Kind: broker.KindPassword, Secret: broker.NewSecret([]byte("old-5ecret")), Version: 3}
		if drifted {
			m.imap, m.submission = "an intruder's", "an intruder's"
		}
		m.journal = broker.Rotation{
			ID: broker.NewID(), FirmID: m.mailbox.FirmID, MailboxID: m.mailbox.ID, ProviderID: m.provider.ID,
			State: broker.RotationRequested, CreatedAt: m.now, Revision: 1,
		}
		deaths += m.run()
		m.judge(drifted)
		outcomes[m.journal.Outcome]++
		m.cleanUp()
		if m.journal.CleanedAt.IsZero() {
			kept++
		}
	})
	t.Logf("outcomes %v, %d still keep what they made; the process died %d times", outcomes, kept, deaths)
}

// holds wants what opens the mailbox in Vault, whatever the journal says next.
func (m *model) holds(next *broker.Rotation) {
	if m.entries++; m.entries > 2000 {
		m.t.Fatalf("no end: %+v", next)
	}
	needed := []string{m.imap, m.late}
	if !slices.Contains(next.Unproved, broker.UnprovedSubmission) {
		needed = append(needed, m.submission)
	}
	for _, password := range needed {
		if password != "" && password != "an intruder's" && !m.robbed && !m.kept(password) {
			m.t.Fatalf("what opens the mailbox is not in Vault: %+v", next)
		}
	}
}

// run works on the rotation in one process after another until it has ended.
func (m *model) run() (deaths int) {
	for m.journal.State != broker.RotationEnded {
		m.process()
		if m.dead {
			deaths++
		}
	}
	return deaths
}

// process works on the rotation until it waits or has died. When the next begins,
// what this one waited for is over.
func (m *model) process() {
	m.dead = false
	if m.journal.NextAt.After(m.now) {
		m.now = m.journal.NextAt
	}
	m.work(m.t.Context(), m.drivers())
}

func (m *model) work(ctx context.Context, drivers map[string]broker.Driver) {
	journal := m.journal
	m.rotator(m, drivers).work(ctx, &journal)
}

func (m *model) rotator(at broker.Upstream, drivers map[string]broker.Driver) *Rotator {
	r, err := New(Config{
		State: m, Secrets: modelSecrets{model: m}, Upstream: at, Drivers: drivers,
		Node: "node", Logger: zap.NewNop(), Now: func() time.Time { return m.now },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// cleanUp has the ended rotation cleaned, at a provider that has done by then what
// it was to do late.
func (m *model) cleanUp() {
	if m.late != "" && rapid.Bool().Draw(m.t, "set after all") {
		m.imap, m.submission = m.late, m.late
	}
	m.late, m.shut = "", false
	for looks := 0; m.journal.CleanedAt.IsZero() && looks < 100; looks++ {
		m.process()
	}
	opens := m.committed != nil && m.imap == string(m.committed.Secret.Reveal()) && m.submission == m.imap
	if cleaned := !m.journal.CleanedAt.IsZero(); cleaned == (len(m.pending) > 0) || opens && !cleaned {
		m.t.Errorf("cleaned: %v, with %d passwords left, while the credential opens the mailbox: %v: %+v", cleaned, len(m.pending), opens, m.journal)
	}
}

// judge compares what the journal says with what is true.
func (m *model) judge(drifted bool) {
	j := &m.journal
	committed := string(m.committed.Secret.Reveal())
	unproved := func(what string) bool { return slices.Contains(j.Unproved, what) }
	switch j.Outcome {
	case broker.RotationDone:
		if committed == "old-5ecret" || m.imap != committed {
			m.t.Errorf("done, and the credential in Vault does not open the mailbox: %+v", j)
		}
		if m.submission != committed && !unproved(broker.UnprovedSubmission) {
			m.t.Errorf("done, and the credential does not open submission, which nobody is told: %+v", j)
		}
		if (m.imap == "old-5ecret" || m.submission == "old-5ecret") && !unproved(broker.UnprovedOldDead) {
			m.t.Errorf("done, and the old password lives, which nobody is told: %+v", j)
		}
	case broker.RotationKeptOld:
		if committed != "old-5ecret" || j.NewVersion != 0 {
			m.t.Errorf("kept the old one, and it is not the credential: %+v", j)
		}
		if drifted && m.imap == "an intruder's" {
			m.t.Errorf("kept an old one that does not work: %+v", j)
		}
	case broker.RotationLost:
		if m.imap == committed && m.late == "" && m.submission == committed && m.logins > 0 && !drifted && m.imap == "old-5ecret" {
			m.t.Errorf("lost, and the old one works: %+v", j)
		}
	default:
		m.t.Errorf("ended as %q: %+v", j.Outcome, j)
	}
	if Alarming(j) == (j.Outcome == broker.RotationDone && !unproved(broker.UnprovedSubmission) && !unproved(broker.UnprovedOldDead)) {
		m.t.Errorf("alarming: %v, for %+v", Alarming(j), j)
	}
	l := Limits{}.withDefaults()
	if most := l.Passwords*l.Asks + 45; m.sets > most {
		m.t.Errorf("the provider was asked %d times", m.sets)
	}
	// Each look is two logins, and after each refusal the old one is tried; what a
	// death cut off is tried again.
	if most := 2*2*l.Looks*(l.Asks+1)*l.Passwords + 4*len(l.OldLooks) + 4*45; m.refusals > most {
		m.t.Errorf("the provider refused %d logins", m.refusals)
	}
}
