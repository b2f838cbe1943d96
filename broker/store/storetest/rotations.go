// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

var system = broker.Actor{Kind: "system", Name: "node-a"}

// rotated gives the world's mailbox a provider.
func (w *World) rotated(t *testing.T) *broker.Provider {
	t.Helper()
	p := &broker.Provider{FirmID: w.Firm.ID, Name: "Panel", Driver: "sql", Settings: json.RawMessage(`{"host":"db.example"}`)}
	must(t, w.Store.CreateProvider(ctx, Admin, p))
	w.Mailbox.Rotation = &broker.RotationMethod{ProviderID: p.ID, EveryDays: 30, On: []broker.RotationCause{broker.RotateOnDrift}}
	must(t, w.Store.UpdateMailbox(ctx, Admin, &w.Mailbox))
	return p
}

// testProviders: a firm's providers are its own, and a mailbox's is its firm's.
func testProviders(t *testing.T, w *World) {
	s := w.Store
	p := w.rotated(t)
	other := &broker.Firm{Name: "Other"}
	must(t, s.CreateFirm(ctx, Admin, other))
	same := &broker.Provider{FirmID: w.Firm.ID, Name: "PANEL", Driver: "ldap"}
	wantCode(t, s.CreateProvider(ctx, Admin, same), broker.Conflict)
	theirs := &broker.Provider{FirmID: other.ID, Name: "panel", Driver: "ldap"}
	must(t, s.CreateProvider(ctx, Admin, theirs))
	for field, bad := range map[string]broker.Provider{
		"driver":   {FirmID: w.Firm.ID, Name: "x", Driver: "../x"},
		"settings": {FirmID: w.Firm.ID, Name: "x", Driver: "sql", Settings: json.RawMessage(`[1]`)},
		"name":     {FirmID: w.Firm.ID, Driver: "sql"},
		"firm_id":  {FirmID: broker.NewID(), Name: "x", Driver: "sql"},
	} {
		wantField(t, s.CreateProvider(ctx, Admin, &bad), field)
	}
	m := w.Mailbox
	for field, bad := range map[string]broker.RotationMethod{
		"rotation.provider_id": {ProviderID: theirs.ID},
		"rotation.every_days":  {ProviderID: p.ID, EveryDays: -1},
		"rotation.on":          {ProviderID: p.ID, On: []broker.RotationCause{broker.RotateOnDemand}},
	} {
		m.Rotation = &bad
		wantField(t, s.UpdateMailbox(ctx, Admin, &m), field)
	}
	wantCode(t, s.DeleteProvider(ctx, Admin, p.ID), broker.Conflict)
	renamed := *p
	renamed.Name, renamed.FirmID = "Other panel", other.ID
	must(t, s.UpdateProvider(ctx, Admin, &renamed))
	if renamed.FirmID != w.Firm.ID {
		t.Error("a provider changed its firm")
	}
	all, err := s.FirmProviders(ctx, w.Firm.ID)
	must(t, err)
	if len(all) != 1 || all[0].Name != "Other panel" {
		t.Errorf("the firm's providers: %+v", all)
	}
	must(t, s.ProviderAccountSet(ctx, Admin, p.ID, 3))
	w.Mailbox.Rotation = nil
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	must(t, s.DeleteProvider(ctx, Admin, p.ID))
	_, err = s.Provider(ctx, p.ID)
	wantCode(t, err, broker.NotFound)
}

// testNever5ProvidersOfAClaimedFirm: once a firm was claimed the BPO makes and
// changes none of its providers, enters no password, and rotates where the firm
// lets it.
func testNever5ProvidersOfAClaimedFirm(t *testing.T, w *World) {
	s := w.Store
	p := w.rotated(t)
	c := &broker.Claim{FirmID: w.Firm.ID, Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)}
	must(t, s.CreateClaim(ctx, Admin, c))
	_, err := s.RedeemClaim(ctx, c.Hash, &broker.Person{Name: "priya", Role: broker.RoleFirmAdmin},
		&broker.APIToken{Hash: Hash(), ExpiresAt: time.Now().Add(time.Hour)})
	must(t, err)
	firm := broker.Actor{Kind: string(broker.RoleFirmAdmin), Name: "priya"}
	wantCode(t, s.CreateProvider(ctx, Admin, &broker.Provider{FirmID: w.Firm.ID, Name: "mine", Driver: "http"}), broker.Refused)
	changed := *p
	changed.Settings = json.RawMessage(`{"host":"evil.example"}`)
	wantCode(t, s.UpdateProvider(ctx, Admin, &changed), broker.Refused)
	wantCode(t, s.ProviderAccountSet(ctx, Admin, p.ID, 1), broker.Refused)
	wantCode(t, s.DeleteProvider(ctx, Admin, p.ID), broker.Refused)
	entered := &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand, Entered: true, Pending: []broker.ID{broker.NewID()}}
	wantCode(t, s.RequestRotation(ctx, Admin, entered), broker.Refused)
	w.Mailbox.Rotation.FirmOnly = true
	must(t, s.UpdateMailbox(ctx, firm, &w.Mailbox))
	wantCode(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand}), broker.Refused)
	w.Mailbox.Rotation.FirmOnly = false
	must(t, s.UpdateMailbox(ctx, firm, &w.Mailbox))
	must(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand}))
}

// testRotations: of a mailbox one rotation is under way; one process works on
// it, entry after entry; and the commit and what cannot be opened reach the
// mailbox.
func testRotations(t *testing.T, w *World) {
	s := w.Store
	wantCode(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID}), broker.Refused) // no provider
	p := w.rotated(t)
	a := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	b := broker.RotationClaim{Node: "node-b", Holder: broker.NewID(), Lasts: time.Hour}
	none := func(c broker.RotationClaim) {
		t.Helper()
		got, err := s.ClaimRotation(ctx, c)
		must(t, err)
		if got != nil {
			t.Fatalf("%s was given %+v", c.Node, got)
		}
	}
	none(a)
	r := &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand}
	must(t, s.RequestRotation(ctx, Admin, r))
	if r.State != broker.RotationRequested || r.FirmID != w.Firm.ID || r.ProviderID != p.ID || r.By != Admin {
		t.Fatalf("begun: %+v", r)
	}
	err := s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnSchedule})
	wantCode(t, err, broker.Conflict)
	if text := broker.PublicText(err); !slices.Contains([]string{
		"the password of Orders@northwind.example is being rotated, begun by admin unix:uid=0 at " + r.CreatedAt.Format(time.RFC3339),
	}, text) {
		t.Errorf("refused as %q", text)
	}
	wantCode(t, s.DeleteMailbox(ctx, Admin, w.Mailbox.ID), broker.Conflict)

	busy := a
	busy.Busy = []broker.ID{broker.NewID(), p.ID}
	none(busy)
	got, err := s.ClaimRotation(ctx, a)
	must(t, err)
	if got == nil || got.ID != r.ID {
		t.Fatalf("claimed %+v", got)
	}
	none(b)
	none(a)
	stale := *got
	got.State, got.Pending = broker.RotationPrepared, []broker.ID{broker.NewID()}
	must(t, s.AdvanceRotation(ctx, a, got))
	wantCode(t, s.AdvanceRotation(ctx, a, &stale), broker.Conflict)
	wantCode(t, s.AdvanceRotation(ctx, b, got), broker.Conflict)
	pending, err := s.PendingRotation(ctx, w.Mailbox.ID)
	must(t, err)
	if pending == nil || pending.PendingID() != got.PendingID() || pending.State != broker.RotationPrepared {
		t.Errorf("pending: %+v", pending)
	}

	// A process that died is taken over by its successor, and has no say more.
	must(t, s.ReleaseRotations(ctx, "node-b"))
	none(b)
	must(t, s.ReleaseRotations(ctx, "node-a"))
	successor := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	again, err := s.ClaimRotation(ctx, successor)
	must(t, err)
	if again == nil || again.Revision != got.Revision {
		t.Fatalf("taken over: %+v", again)
	}
	wantCode(t, s.AdvanceRotation(ctx, a, got), broker.Conflict)

	// One that waits is nobody's until then.
	again.NextAt = time.Now().Add(time.Hour)
	must(t, s.AdvanceRotation(ctx, successor, again))
	must(t, s.ReleaseRotation(ctx, successor, again.ID))
	none(successor)
	wantCode(t, s.AdvanceRotation(ctx, successor, again), broker.Conflict) // it was let go
}

// testRotationCommits: a commit has sessions on older versions end, and a
// mailbox that nothing opens is locked where it says so.
func testRotationCommits(t *testing.T, w *World) {
	s := w.Store
	w.rotated(t)
	w.Mailbox.Rotation.LockWhenLost = true
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	changes := make(chan broker.Change, 64)
	defer s.Subscribe(func(c broker.Change) { changes <- c })()
	claim := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	begin := func() *broker.Rotation {
		t.Helper()
		must(t, s.RequestRotation(ctx, system, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnSchedule}))
		r, err := s.ClaimRotation(ctx, claim)
		must(t, err)
		if r == nil {
			t.Fatal("nothing to claim")
		}
		return r
	}
	r := begin()
	r.State, r.NewVersion, r.Pending = broker.RotationCommitted, 7, []broker.ID{broker.NewID()}
	must(t, s.AdvanceRotation(ctx, claim, r))
	if c := <-changes; c.Kind != "mailbox" || c.ID != w.Mailbox.ID {
		t.Errorf("told of %+v", c)
	}
	m, err := s.Mailbox(ctx, w.Mailbox.ID)
	must(t, err)
	if m.MinCredential != 7 || m.MinCredentialID != r.PendingID() || r.CommittedAt.IsZero() {
		t.Errorf("after the commit: %+v, %+v", m, r)
	}
	m.MinCredential, m.MinCredentialID = 0, ""
	must(t, s.UpdateMailbox(ctx, Admin, m))
	if m.MinCredential != 7 {
		t.Error("an update took back a commit")
	}
	r.State, r.Outcome, r.NextAt = broker.RotationEnded, broker.RotationDone, time.Now().Add(-time.Second)
	must(t, s.AdvanceRotation(ctx, claim, r))
	open, err := s.Rotations(ctx, broker.RotationQuery{MailboxID: w.Mailbox.ID, Open: true})
	must(t, err)
	if len(open) != 0 || r.EndedAt.IsZero() {
		t.Errorf("open after the end: %+v", open)
	}
	must(t, s.ReleaseRotation(ctx, claim, r.ID))
	clean, err := s.ClaimRotation(ctx, claim)
	must(t, err)
	if clean == nil || clean.ID != r.ID {
		t.Fatalf("to be cleaned: %+v", clean)
	}
	clean.CleanedAt = time.Now()
	must(t, s.AdvanceRotation(ctx, claim, clean))
	must(t, s.ReleaseRotation(ctx, claim, clean.ID))
	if again, err := s.ClaimRotation(ctx, claim); err != nil || again != nil {
		t.Errorf("cleaned, and claimed again: %+v, %v", again, err)
	}
	if left, err := s.PendingRotation(ctx, w.Mailbox.ID); err != nil || left != nil {
		t.Errorf("cleaned, and pending: %+v, %v", left, err)
	}

	lost := begin()
	lost.State, lost.Outcome = broker.RotationEnded, broker.RotationLost
	must(t, s.AdvanceRotation(ctx, claim, lost))
	locks, err := s.Locks(ctx)
	must(t, err)
	if len(locks) != 1 || locks[0].Target != broker.LockMailbox || locks[0].TargetID != w.Mailbox.ID {
		t.Errorf("locks: %+v", locks)
	}
	var types []broker.EventType
	for _, e := range All(t, s, w.Firm.ID) {
		if e.Actor == system {
			types = append(types, e.Type)
		}
	}
	want := []broker.EventType{
		broker.EventRotationRequested, "mailbox.updated", broker.EventCredentialSet, broker.EventRotationStep,
		broker.EventRotationEnded, broker.EventRotationCleaned,
		broker.EventRotationRequested, broker.EventRotationEnded, "lock.created",
	}
	if !slices.Equal(types, want) {
		t.Errorf("recorded: %v", types)
	}
}

// testNever7FoundLost: a rotation that had ended well enough, and whose mailbox
// nothing opens days later, has ended anew: in the log, as an alert, and with the
// lock that the mailbox wants. It is still looked at.
func testNever7FoundLost(t *testing.T, w *World) {
	s := w.Store
	w.rotated(t)
	w.Mailbox.Rotation.LockWhenLost = true
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	claim := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	must(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand}))
	r, err := s.ClaimRotation(ctx, claim)
	must(t, err)
	r.State, r.Outcome = broker.RotationEnded, broker.RotationKeptOld
	must(t, s.AdvanceRotation(ctx, claim, r))
	ended := r.EndedAt
	r.Outcome, r.NextAt = broker.RotationLost, time.Now().Add(-time.Second)
	must(t, s.AdvanceRotation(ctx, claim, r))
	if !r.EndedAt.Equal(ended) {
		t.Errorf("it ended at %s, and then at %s", ended, r.EndedAt)
	}
	var types []broker.EventType
	for _, e := range All(t, s, w.Firm.ID) {
		if e.Actor == system || e.Type == broker.EventAlertRaised {
			types = append(types, e.Type)
		}
	}
	want := []broker.EventType{broker.EventRotationEnded, broker.EventAlertRaised, broker.EventRotationEnded, "lock.created", broker.EventAlertRaised, broker.EventAlertRaised}
	if !slices.Equal(types, want) {
		t.Errorf("recorded: %v", types)
	}
	must(t, s.ReleaseRotation(ctx, claim, r.ID))
	if again, err := s.ClaimRotation(ctx, claim); err != nil || again == nil {
		t.Errorf("it is not looked at again: %+v, %v", again, err)
	}
}

// testNever1RotationGoesToNoOtherEndpoint: a password that a provider sets is tried
// at the mailbox's endpoints. They do not change amid a rotation, nor beside one that
// was begun and ended since the mailbox was read, and take the way of rotating along:
// no schedule has a new password sent to another server.
func testNever1RotationGoesToNoOtherEndpoint(t *testing.T, w *World) {
	s := w.Store
	w.rotated(t)
	moved := func() *broker.Mailbox {
		t.Helper()
		m, err := s.Mailbox(ctx, w.Mailbox.ID)
		must(t, err)
		m.IMAP.Host = "elsewhere.example"
		return m
	}
	before := moved()
	must(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDemand}))
	wantCode(t, s.UpdateMailbox(ctx, Admin, before), broker.Conflict)
	same := w.Mailbox
	same.MaxConnections = 7
	must(t, s.UpdateMailbox(ctx, Admin, &same))
	named := same
	named.Username = "another"
	wantCode(t, s.UpdateMailbox(ctx, Admin, &named), broker.Conflict)
	claim := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	r, err := s.ClaimRotation(ctx, claim)
	must(t, err)
	r.State, r.NewVersion, r.Pending = broker.RotationCommitted, 7, []broker.ID{broker.NewID()}
	must(t, s.AdvanceRotation(ctx, claim, r))
	r.State, r.Outcome = broker.RotationEnded, broker.RotationDone
	must(t, s.AdvanceRotation(ctx, claim, r))
	wantCode(t, s.UpdateMailbox(ctx, Admin, before), broker.Conflict) // its credential is another's
	m, err := s.Mailbox(ctx, w.Mailbox.ID)
	must(t, err)
	if m.IMAP != w.Mailbox.IMAP || m.Rotation == nil {
		t.Fatalf("after changes that were refused: %+v", m)
	}
	after := moved()
	must(t, s.UpdateMailbox(ctx, Admin, after))
	m, err = s.Mailbox(ctx, w.Mailbox.ID)
	must(t, err)
	if m.IMAP.Host != "elsewhere.example" || m.Rotation != nil || after.Rotation != nil {
		t.Errorf("after a change of endpoint: %+v, told %+v", m, after)
	}
	wantCode(t, s.RequestRotation(ctx, Admin, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnSchedule}), broker.Refused)
}

// testRotationCauses: a change that a mailbox's method names begins a rotation
// in its own transaction, and nothing else does.
func testRotationCauses(t *testing.T, w *World) {
	s := w.Store
	w.rotated(t)
	claim := broker.RotationClaim{Node: "node-a", Holder: broker.NewID(), Lasts: time.Hour}
	// begun ends the rotation that is under way, and returns its cause.
	begun := func() broker.RotationCause {
		t.Helper()
		r, err := s.ClaimRotation(ctx, claim)
		must(t, err)
		if r == nil {
			return ""
		}
		r.State, r.Outcome = broker.RotationEnded, broker.RotationLost
		must(t, s.AdvanceRotation(ctx, claim, r))
		return r.Cause
	}
	on := func(causes ...broker.RotationCause) {
		t.Helper()
		w.Mailbox.Rotation.On = causes
		must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	}
	lock := func(target broker.LockTarget, id broker.ID) {
		t.Helper()
		must(t, s.CreateLock(ctx, Admin, &broker.Lock{Target: target, TargetID: id}))
	}
	lock(broker.LockMailbox, w.Mailbox.ID)
	if got := begun(); got != "" {
		t.Errorf("a rotation by %q, which the mailbox does not want", got)
	}
	on(broker.RotateOnLock)
	for target, id := range map[broker.LockTarget]broker.ID{
		broker.LockMailbox: w.Mailbox.ID, broker.LockFirm: w.Firm.ID, broker.LockAgent: w.Agent.ID,
	} {
		if lock(target, id); begun() != broker.RotateOnLock {
			t.Errorf("no rotation by a lock on the %s", target)
		}
	}
	on(broker.RotateOnRevoke)
	must(t, s.RevokeAssignment(ctx, Admin, w.Assignment.ID))
	if got := begun(); got != broker.RotateOnRevoke {
		t.Errorf("a revoke began a rotation by %q", got)
	}
	on(broker.RotateOnOffBoard)
	must(t, s.DeleteAgent(ctx, Admin, w.Agent.ID))
	if got := begun(); got != broker.RotateOnOffBoard {
		t.Errorf("an off-boarding began a rotation by %q", got)
	}
	wantCode(t, s.RequestRotation(ctx, system, &broker.Rotation{MailboxID: w.Mailbox.ID, Cause: broker.RotateOnDrift}), broker.Limit)
	if got := begun(); got != "" {
		t.Errorf("a rotation by %q right after another", got)
	}
}
