// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

// WitnessKey makes a witness's verifier key.
func WitnessKey(t testing.TB, name string) string {
	t.Helper()
	s, err := translog.NewWitnessSigner(name, rand.Reader)
	must(t, err)
	return s.Key().String()
}

// cosigned is a checkpoint of a log as it stands.
func (w *World) cosigned(t testing.TB, firm broker.ID, at time.Time) *broker.Cosigned {
	t.Helper()
	h, err := w.Store.LogHead(ctx, firm)
	must(t, err)
	return &broker.Cosigned{Epoch: h.Epoch, Size: h.Size, Root: h.Root, Note: "cosigned", At: at.Truncate(time.Second).UTC()}
}

func (w *World) witnesses(t testing.TB, firm broker.ID) []*broker.WitnessStanding {
	t.Helper()
	all, err := w.Store.Witnesses(ctx, firm)
	must(t, err)
	return all
}

// testWitnesses: a log's witnesses are its own, and what each has cosigned last.
func testWitnesses(t *testing.T, w *World) {
	s := w.Store
	now := time.Now()
	other := broker.Firm{Name: "Other"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	one := broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "one.example")}
	must(t, s.CreateWitness(ctx, Admin, &one))
	if one.Name != "one.example" || one.Rule != broker.WitnessAlarm || one.Silence != 60 || one.ID == "" {
		t.Errorf("as created: %+v", one)
	}
	two := broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "two.example"), Rule: broker.WitnessStop, Silence: 10}
	must(t, s.CreateWitness(ctx, Admin, &two))
	elsewhere := broker.Witness{FirmID: other.ID, Key: one.Key}
	must(t, s.CreateWitness(ctx, Admin, &elsewhere))
	own := broker.Witness{Key: one.Key}
	must(t, s.CreateWitness(ctx, Admin, &own))
	for name, bad := range map[string]broker.Witness{
		"no key":           {FirmID: w.Firm.ID},
		"a log's key":      {FirmID: w.Firm.ID, Key: "postern/bpo/x+01234567+AAAA"},
		"no such rule":     {FirmID: w.Firm.ID, Key: WitnessKey(t, "x"), Rule: "panic"},
		"no patience":      {FirmID: w.Firm.ID, Key: WitnessKey(t, "x"), Silence: 1},
		"too much":         {FirmID: w.Firm.ID, Key: WitnessKey(t, "x"), Silence: 1 << 30},
		"nothing to stop":  {Key: WitnessKey(t, "x"), Rule: broker.WitnessStop},
		"no such firm":     {FirmID: broker.NewID(), Key: WitnessKey(t, "x")},
		"removed already":  {FirmID: w.Firm.ID, Key: WitnessKey(t, "x"), RemovedAt: now},
		"a name like ours": {FirmID: w.Firm.ID, Key: "postern/" + WitnessKey(t, "x")},
	} {
		if err := s.CreateWitness(ctx, Admin, &bad); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, taken := range []string{one.Key, WitnessKey(t, "one.example")} {
		wantCode(t, s.CreateWitness(ctx, Admin, &broker.Witness{FirmID: w.Firm.ID, Key: taken}), broker.Conflict)
	}
	if all := w.witnesses(t, w.Firm.ID); len(all) != 2 || all[0].Name != "one.example" || all[0].Size != 0 || all[0].HeardAt.Before(now.Add(-time.Minute)) {
		t.Fatalf("witnesses: %+v", all)
	}
	everyone, err := s.AllWitnesses(ctx)
	if err != nil || len(everyone) != 4 {
		t.Fatalf("all witnesses: %+v %v", everyone, err)
	}

	c := w.cosigned(t, w.Firm.ID, now)
	must(t, s.KeepCosignature(ctx, one.ID, c))
	got := w.witnesses(t, w.Firm.ID)[0]
	if got.Epoch != c.Epoch || got.Size != c.Size || got.Note != "cosigned" || !got.CosignedAt.Equal(c.At) {
		t.Errorf("kept: %+v", got)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Refused("x")}))
	next := w.cosigned(t, w.Firm.ID, now.Add(time.Second))
	must(t, s.KeepCosignature(ctx, one.ID, next))
	change := func(f func(*broker.Cosigned)) *broker.Cosigned {
		x := *next
		x.At = x.At.Add(time.Second)
		f(&x)
		return &x
	}
	for name, bad := range map[string]*broker.Cosigned{
		"smaller":       c,
		"earlier":       change(func(x *broker.Cosigned) { x.At = c.At }),
		"too large":     change(func(x *broker.Cosigned) { x.Size++ }),
		"another root":  change(func(x *broker.Cosigned) { x.Root[0] ^= 1 }),
		"another epoch": change(func(x *broker.Cosigned) { x.Epoch = broker.NewID() }),
		"a slow clock":  change(func(x *broker.Cosigned) { x.At = now.Add(-time.Hour) }),
		"a fast clock":  change(func(x *broker.Cosigned) { x.At = now.Add(time.Hour) }),
	} {
		if err := s.KeepCosignature(ctx, one.ID, bad); broker.CodeOf(err) != broker.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	heard := w.witnesses(t, w.Firm.ID)[0]
	must(t, s.KeepCosignature(ctx, one.ID, next)) // said again
	if again := w.witnesses(t, w.Firm.ID)[0]; again.Size != next.Size || !again.HeardAt.Equal(heard.HeardAt) {
		t.Errorf("what was said again counts: %+v", again)
	}
	wantCode(t, s.KeepCosignature(ctx, broker.NewID(), next), broker.NotFound)

	must(t, s.RemoveWitness(ctx, Admin, one.ID))
	wantCode(t, s.RemoveWitness(ctx, Admin, one.ID), broker.NotFound)
	wantCode(t, s.KeepCosignature(ctx, one.ID, next), broker.NotFound)
	if all := w.witnesses(t, w.Firm.ID); len(all) != 1 || all[0].ID != two.ID {
		t.Errorf("after the removal: %+v", all)
	}
	if n := w.count(t, "witness.created") + w.count(t, "witness.removed"); n != 3 {
		t.Errorf("%d events in the firm's log", n)
	}
	VerifyTree(t, s, w.Firm.ID)
}

// testNever5WitnessesOfAClaimedFirm: whose key is believed is the firm's to say.
func testNever5WitnessesOfAClaimedFirm(t *testing.T, w *World) {
	s := w.Store
	before := broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "bpo.example")}
	must(t, s.CreateWitness(ctx, Admin, &before))
	must(t, s.BeginEpochs(ctx))
	priya, _, _ := w.claim(t)
	wantCode(t, s.CreateWitness(ctx, Admin, &broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "x")}), broker.Refused)
	wantCode(t, s.RemoveWitness(ctx, Admin, before.ID), broker.Refused)
	wantCode(t, second(s.ConfirmRestore(ctx, Admin, w.Firm.ID)), broker.Refused)
	must(t, s.RemoveWitness(ctx, priya, before.ID))
	must(t, s.CreateWitness(ctx, priya, &broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "firm.example")}))
	must(t, s.CreateWitness(ctx, Admin, &broker.Witness{Key: WitnessKey(t, "own.example")}))
}

// testSilence: a silence is recorded once, with its alert, and ends with the next
// cosignature.
func testSilence(t *testing.T, w *World) {
	s := w.Store
	x := broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "one.example"), Rule: broker.WitnessStop}
	must(t, s.CreateWitness(ctx, Admin, &x))
	heard := w.witnesses(t, w.Firm.ID)[0].HeardAt
	by := broker.Actor{Kind: "system", Name: "node-1"}
	for range 2 {
		must(t, s.RecordSilence(ctx, by, x.ID, heard))
	}
	wantCode(t, s.RecordSilence(ctx, by, broker.NewID(), heard), broker.NotFound)
	if got := w.witnesses(t, w.Firm.ID)[0]; !got.SilentSince.Equal(heard) {
		t.Errorf("silent since %v", got.SilentSince)
	}
	a := w.alert(t, broker.AlertQuery{FirmID: w.Firm.ID, Kind: broker.AlertWitnessSilent})
	if a.State != broker.AlertOpen || a.Severity != broker.SeverityCritical || a.Detail != "one.example" || a.Count != 1 {
		t.Errorf("the alert: %+v", a)
	}
	must(t, s.KeepCosignature(ctx, x.ID, w.cosigned(t, w.Firm.ID, time.Now())))
	got := w.witnesses(t, w.Firm.ID)[0]
	if !got.SilentSince.IsZero() || w.count(t, broker.EventWitnessSilent) != 1 || w.count(t, broker.EventWitnessHeard) != 1 {
		t.Errorf("after it was heard: %+v", got)
	}
	if a := w.alert(t, broker.AlertQuery{FirmID: w.Firm.ID, Kind: broker.AlertWitnessSilent}); a.State != broker.AlertResolved {
		t.Errorf("the alert stands: %+v", a)
	}
	// Heard between the look and the record: not silent.
	must(t, s.RecordSilence(ctx, by, x.ID, heard))
	if n := w.count(t, broker.EventWitnessSilent); n != 1 {
		t.Errorf("%d silences", n)
	}
	must(t, s.RecordSilence(ctx, by, x.ID, got.HeardAt))
	must(t, s.RemoveWitness(ctx, Admin, x.ID))
	if a := w.alert(t, broker.AlertQuery{FirmID: w.Firm.ID, Kind: broker.AlertWitnessSilent}); a.State != broker.AlertResolved {
		t.Errorf("the alert of a witness that was removed: %+v", a)
	}
	VerifyTree(t, s, w.Firm.ID)
}

// testNever6RestoreIsConfirmed: no cosignature is taken in an epoch that a restore
// began before somebody who speaks for the log has confirmed it.
func testNever6RestoreIsConfirmed(t *testing.T, w *World) {
	s := w.Store
	x := broker.Witness{FirmID: w.Firm.ID, Key: WitnessKey(t, "one.example")}
	must(t, s.CreateWitness(ctx, Admin, &x))
	must(t, s.KeepCosignature(ctx, x.ID, w.cosigned(t, w.Firm.ID, time.Now())))
	wantCode(t, second(s.ConfirmRestore(ctx, Admin, w.Firm.ID)), broker.Conflict)
	must(t, s.BeginEpochs(ctx))
	err := s.KeepCosignature(ctx, x.ID, w.cosigned(t, w.Firm.ID, time.Now()))
	wantCode(t, err, broker.Refused)
	h, err := s.LogHead(ctx, w.Firm.ID)
	if err != nil || !h.Unconfirmed {
		t.Fatalf("%+v %v", h, err)
	}
	epoch, err := s.ConfirmRestore(ctx, Admin, w.Firm.ID)
	if err != nil || epoch != h.Epoch {
		t.Fatalf("confirmed %s: %v", epoch, err)
	}
	must(t, s.KeepCosignature(ctx, x.ID, w.cosigned(t, w.Firm.ID, time.Now())))
	if own, err := s.LogHead(ctx, ""); err != nil || !own.Unconfirmed {
		t.Errorf("the BPO's own log: %+v %v", own, err)
	}
	if w.count(t, broker.EventRestoreConfirmed) != 1 {
		t.Error("the confirmation is not on record")
	}
}
