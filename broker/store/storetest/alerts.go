// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// drift is a refused login, at a time.
func (w *World) drift(at time.Time) *broker.Event {
	e := w.Event(broker.EventDrift, broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "NO [AUTHENTICATIONFAILED] no"})
	e.SessionID, e.Time = broker.NewID(), at
	return e
}

func (w *World) alerts(t *testing.T, q broker.AlertQuery) []*broker.Alert {
	t.Helper()
	all, err := w.Store.Alerts(ctx, q)
	must(t, err)
	return all
}

func (w *World) alert(t *testing.T, q broker.AlertQuery) *broker.Alert {
	t.Helper()
	all := w.alerts(t, q)
	if len(all) != 1 {
		t.Fatalf("%d alerts, want one: %+v", len(all), all)
	}
	return all[0]
}

// count is how many events of a type the firm's log has.
func (w *World) count(t *testing.T, typ broker.EventType) int {
	t.Helper()
	n := 0
	for _, e := range All(t, w.Store, w.Firm.ID) {
		if e.Type == typ {
			n++
		}
	}
	return n
}

// testAlerts: many events of one kind and subject are one alert, which names
// the first and the last of them; what differs in its subject is another.
func testAlerts(t *testing.T, w *World) {
	s := w.Store
	now := time.Now()
	var sent []*broker.Event
	for i := range 24 { // in transactions of one, and of many
		batch := []*broker.Event{w.drift(now.Add(time.Duration(i) * time.Second)), w.Refused("COPY")}
		if i > 12 {
			batch = append(batch, w.drift(now.Add(time.Duration(i)*time.Second)), w.drift(now.Add(time.Duration(i)*time.Second)))
		}
		must(t, s.AppendEvents(ctx, batch))
		for _, e := range batch {
			if e.Type == broker.EventDrift {
				sent = append(sent, e)
			}
		}
	}
	a := w.alert(t, broker.AlertQuery{})
	if a.Kind != broker.AlertDrift || a.Severity != broker.SeverityCritical || a.State != broker.AlertOpen || a.FirmID != w.Firm.ID ||
		a.MailboxID != w.Mailbox.ID || a.AgentID != w.Agent.ID || a.SessionID != "" || a.Detail != "NO [AUTHENTICATIONFAILED] no" {
		t.Errorf("the alert: %+v", a)
	}
	if a.Count != int64(len(sent)) || !a.FirstSeen.Equal(sent[0].Time) || !a.LastSeen.Equal(sent[len(sent)-1].Time) {
		t.Errorf("%d events from %v to %v, want %d from %v to %v", a.Count, a.FirstSeen, a.LastSeen, len(sent), sent[0].Time, sent[len(sent)-1].Time)
	}
	named := append(slices.Clone(sent[:broker.AlertEvidenceFirst]), sent[len(sent)-broker.AlertEvidenceLast:]...)
	if !slices.EqualFunc(a.Evidence, named, func(x broker.AlertEvidence, e *broker.Event) bool {
		return x.EventID == e.ID && x.Seq == e.Seq && x.Type == e.Type && x.Time.Equal(e.Time)
	}) {
		t.Errorf("evidence: %+v", a.Evidence)
	}
	if n := w.count(t, broker.EventAlertRaised); n != 1 {
		t.Errorf("alert.raised stands %d times in the log", n)
	}

	other := MailboxOf(&w.Firm, "second@northwind.example")
	must(t, s.CreateMailbox(ctx, Admin, &other))
	second := w.drift(now)
	second.MailboxID = other.ID
	quota := w.Event(broker.EventQuotaReached, &broker.QuotaReached{Quota: "octets.day", Folder: "INBOX"})
	must(t, s.AppendEvents(ctx, []*broker.Event{second, quota}))
	if all := w.alerts(t, broker.AlertQuery{}); len(all) != 3 || all[2].ID != a.ID {
		t.Errorf("alerts, newest first: %+v", all)
	}
	for name, q := range map[string]broker.AlertQuery{
		"severity": {Severity: broker.SeverityCritical, MailboxID: w.Mailbox.ID},
		"kind":     {Kind: broker.AlertQuota},
		"since":    {Since: now.Add(20 * time.Second)},
		"limit":    {Limit: 1},
		"mailbox":  {MailboxID: other.ID},
	} {
		if all := w.alerts(t, q); len(all) != 1 {
			t.Errorf("by %s: %+v", name, all)
		}
	}
	if all := w.alerts(t, broker.AlertQuery{AgentID: w.Agent.ID, States: []broker.AlertState{broker.AlertOpen}}); len(all) != 3 {
		t.Errorf("by agent and state: %+v", all)
	}
	_, err := s.Alerts(ctx, broker.AlertQuery{Limit: -1})
	wantField(t, err, "limit")
	_, err = s.Alerts(ctx, broker.AlertQuery{Severity: "grave"})
	wantField(t, err, "severity")
	counts, err := s.AlertCounts(ctx, w.Firm.ID)
	must(t, err)
	want := []broker.AlertCount{
		{FirmID: w.Firm.ID, Severity: broker.SeverityCritical, State: broker.AlertOpen, Count: 2},
		{FirmID: w.Firm.ID, Severity: broker.SeverityWarning, State: broker.AlertOpen, Count: 1},
	}
	if !slices.Equal(counts, want) {
		t.Errorf("counts: %+v", counts)
	}
}

// testAlertsWithTheirEvent: neither is there without the other.
func testAlertsWithTheirEvent(t *testing.T, w *World) {
	s := w.Store
	bad := w.Event("no.such-type", nil)
	wantCode(t, s.AppendEvents(ctx, []*broker.Event{w.drift(time.Now()), bad}), broker.Invalid)
	wantCode(t, s.AppendEvents(ctx, []*broker.Event{w.Event(broker.EventDrift, broker.QuotaReached{})}), broker.Invalid)
	refused := broker.Errorf(broker.Refused, "no")
	err := s.Together(ctx, func(ctx context.Context) error {
		if err := s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockMailbox, TargetID: w.Mailbox.ID}); err != nil {
			return err
		}
		return refused
	})
	wantCode(t, err, broker.Refused)
	if all := w.alerts(t, broker.AlertQuery{}); len(all) > 0 {
		t.Errorf("alerts of events that are not there: %+v", all)
	}
	// As the log hands events on.
	raw := json.RawMessage(`{"protocol":"imap","answer":"` + strings.Repeat("é", broker.MaxAlertDetail) + `"}`)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Event(broker.EventDrift, &raw)}))
	if a := w.alert(t, broker.AlertQuery{}); len(a.Detail) > broker.MaxAlertDetail || !strings.HasSuffix(a.Detail, "é…") {
		t.Errorf("%d octets of detail: %s", len(a.Detail), a.Detail)
	}
}

// testAlertAnswers: what is acknowledged stays so until it is graver or was
// quiet for long; each answer is an event, once.
func testAlertAnswers(t *testing.T, w *World) {
	s := w.Store
	now := time.Now()
	ended := func(unproved ...string) *broker.Event {
		return w.Event(broker.EventRotationEnded, broker.Rotation{ID: broker.NewID(), MailboxID: w.Mailbox.ID, Outcome: broker.RotationDone, Unproved: unproved})
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{ended(broker.UnprovedOldSessions)}))
	a := w.alert(t, broker.AlertQuery{})
	if a.Severity != broker.SeverityWarning {
		t.Errorf("severity %s", a.Severity)
	}
	read := broker.WithExpected(ctx, broker.Expected{ID: a.ID, Tag: broker.TagOf(a.Standing())})
	must(t, s.AppendEvents(ctx, []*broker.Event{ended(broker.UnprovedOldSessions)})) // a repeat does not make what was read stale
	acked, err := s.AcknowledgeAlert(read, Admin, a.ID, "asked the provider")
	must(t, err)
	if acked.State != broker.AlertAcknowledged || acked.Count != 2 || acked.Acknowledged == nil ||
		acked.Acknowledged.By != Admin || acked.Acknowledged.Note != "asked the provider" || acked.Acknowledged.At.IsZero() {
		t.Errorf("acknowledged: %+v", acked)
	}
	again, err := s.AcknowledgeAlert(ctx, system, a.ID, "me too")
	must(t, err)
	if again.Acknowledged.By != Admin {
		t.Errorf("acknowledged twice: %+v", again.Acknowledged)
	}
	if _, err := s.ResolveAlert(read, Admin, a.ID, ""); broker.CodeOf(err) != broker.Conflict {
		t.Errorf("resolved what was read before the acknowledgement: %v", err)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{ended(broker.UnprovedOldSessions)}))
	if a = w.alert(t, broker.AlertQuery{}); a.State != broker.AlertAcknowledged || a.Count != 3 {
		t.Errorf("a repeat of what was acknowledged: %+v", a)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{ended(broker.UnprovedOldDead)}))
	if a = w.alert(t, broker.AlertQuery{}); a.State != broker.AlertOpen || a.Severity != broker.SeverityCritical || a.Acknowledged != nil || a.Count != 4 {
		t.Errorf("graver: %+v", a)
	}
	if n := w.count(t, broker.EventAlertRaised); n != 2 {
		t.Errorf("alert.raised stands %d times in the log", n)
	}

	// Quiet since the day before yesterday.
	old := w.drift(now.Add(-2 * broker.AlertQuiet))
	must(t, s.AppendEvents(ctx, []*broker.Event{old}))
	drift := w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift})
	_, err = s.AcknowledgeAlert(ctx, Admin, drift.ID, "")
	must(t, err)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.drift(now)}))
	if drift = w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift}); drift.State != broker.AlertOpen || drift.Count != 2 {
		t.Errorf("after the quiet: %+v", drift)
	}

	_, err = s.ResolveAlert(ctx, Admin, drift.ID, "it was us")
	must(t, err)
	_, err = s.ResolveAlert(ctx, Admin, drift.ID, "")
	must(t, err)
	_, err = s.AcknowledgeAlert(ctx, Admin, drift.ID, "")
	wantCode(t, err, broker.Conflict)
	drift, err = s.Alert(ctx, drift.ID)
	must(t, err)
	if drift.State != broker.AlertResolved || drift.Resolved.Note != "it was us" {
		t.Errorf("resolved: %+v", drift)
	}
	for typ, want := range map[broker.EventType]int{broker.EventAlertAcknowledged: 2, broker.EventAlertResolved: 1} {
		if n := w.count(t, typ); n != want {
			t.Errorf("%s stands %d times in the log, want %d", typ, n, want)
		}
	}
	_, err = s.Alert(ctx, broker.NewID())
	wantCode(t, err, broker.NotFound)
	_, err = s.AcknowledgeAlert(ctx, Admin, broker.NewID(), "")
	wantCode(t, err, broker.NotFound)
	_, err = s.ResolveAlert(ctx, Admin, drift.ID, strings.Repeat("x", broker.MaxAlertNote+1))
	wantField(t, err, "note")
}

// testAlertsEnd: a cause that is gone ends its alerts; what comes back within
// the hour is the same alert.
func testAlertsEnd(t *testing.T, w *World) {
	s := w.Store
	now := time.Now()
	lost := w.Event(broker.EventRotationEnded, broker.Rotation{ID: broker.NewID(), MailboxID: w.Mailbox.ID, Outcome: broker.RotationLost})
	other := MailboxOf(&w.Firm, "second@northwind.example")
	must(t, s.CreateMailbox(ctx, Admin, &other))
	elsewhere := w.drift(now)
	elsewhere.MailboxID = other.ID
	must(t, s.AppendEvents(ctx, []*broker.Event{w.drift(now), lost, elsewhere}))
	must(t, s.CredentialSet(ctx, Admin, w.Mailbox.ID, 2))
	open := w.alert(t, broker.AlertQuery{States: []broker.AlertState{broker.AlertOpen}})
	if open.MailboxID != other.ID {
		t.Errorf("what stands: %+v", open)
	}
	first := w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift, MailboxID: w.Mailbox.ID})
	if first.State != broker.AlertResolved || first.Resolved.By != Admin || first.Resolved.EventID == "" {
		t.Errorf("after a new credential: %+v", first)
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{w.drift(now)}))
	back := w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift, MailboxID: w.Mailbox.ID})
	if back.ID != first.ID || back.State != broker.AlertOpen || back.Resolved != nil || back.Count != 2 {
		t.Errorf("the drift is back: %+v", back)
	}
	// What comes and goes within one transaction.
	set := w.Event(broker.EventCredentialSet, broker.CredentialSetData{Version: 3})
	must(t, s.AppendEvents(ctx, []*broker.Event{w.drift(now), set}))
	if a := w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift, MailboxID: w.Mailbox.ID}); a.State != broker.AlertResolved || a.Count != 3 {
		t.Errorf("raised and ended: %+v", a)
	}

	l := &broker.Lock{Target: broker.LockMailbox, TargetID: w.Mailbox.ID, Message: "being sorted out"}
	must(t, s.CreateLock(ctx, Admin, l))
	must(t, s.CreateLock(ctx, Admin, &broker.Lock{Target: broker.LockAgent, TargetID: w.Agent.ID}))
	locked := w.alert(t, broker.AlertQuery{Kind: broker.AlertLocked})
	if locked.Detail != "being sorted out" || locked.Severity != broker.SeverityInfo {
		t.Errorf("locked: %+v", locked)
	}
	must(t, s.RemoveLock(ctx, Admin, l.ID))
	if locked = w.alert(t, broker.AlertQuery{Kind: broker.AlertLocked}); locked.State != broker.AlertResolved {
		t.Errorf("unlocked: %+v", locked)
	}
}

// testAlertsOfFirms: an alert is whose log it is in; the BPO's people do not
// answer for a firm that was claimed.
func testAlertsOfFirms(t *testing.T, w *World) {
	s := w.Store
	other := broker.Firm{Name: "Other Ltd"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	theirs, own := w.drift(time.Now()), w.drift(time.Now())
	theirs.FirmID, own.FirmID = other.ID, "" // the same subject
	must(t, s.AppendEvents(ctx, []*broker.Event{own, w.drift(time.Now()), theirs}))
	for firm, q := range map[broker.ID]broker.AlertQuery{
		w.Firm.ID: {FirmID: w.Firm.ID}, other.ID: {FirmID: other.ID}, "": {OwnOnly: true},
	} {
		if a := w.alert(t, q); a.FirmID != firm || a.Count != 1 {
			t.Errorf("of %q: %+v", firm, a)
		}
	}
	if all := w.alerts(t, broker.AlertQuery{}); len(all) != 3 {
		t.Errorf("all: %+v", all)
	}
	counts, err := s.AlertCounts(ctx, "")
	must(t, err)
	if len(counts) != 3 {
		t.Errorf("counts of all: %+v", counts)
	}
	a := w.alert(t, broker.AlertQuery{FirmID: w.Firm.ID})
	priya, _, _ := w.claim(t)
	_, err = s.AcknowledgeAlert(ctx, Admin, a.ID, "")
	wantCode(t, err, broker.Refused)
	_, err = s.ResolveAlert(ctx, Admin, a.ID, "")
	wantCode(t, err, broker.Refused)
	_, err = s.AcknowledgeAlert(ctx, priya, a.ID, "")
	must(t, err)
}

// testSharedAlerts: two nodes raise and end one alert at once, and neither makes
// another of it, nor loses a count. Both begin with none.
func testSharedAlerts(t *testing.T, w *World, other Store) {
	const each = 15
	var wg sync.WaitGroup
	errs := make(chan error, 2*each+each/3)
	for _, s := range []Store{w.Store, other} {
		wg.Go(func() {
			for range each {
				errs <- s.AppendEvents(ctx, []*broker.Event{w.drift(time.Now())})
			}
		})
	}
	wg.Go(func() {
		for i := range each / 3 {
			errs <- other.CredentialSet(ctx, Admin, w.Mailbox.ID, i+1)
		}
	})
	wg.Wait()
	close(errs)
	for err := range errs {
		must(t, err)
	}
	if a := w.alert(t, broker.AlertQuery{}); a.Count != 2*each {
		t.Errorf("%d events, want %d: %+v", a.Count, 2*each, a)
	}
}

// testAlertStorm: appends from many places at once leave one alert that counts
// them all, beside answers to it.
func testAlertStorm(t *testing.T, w *World) {
	const places, each = 4, 10
	must(t, w.Store.AppendEvents(ctx, []*broker.Event{w.drift(time.Now())}))
	a := w.alert(t, broker.AlertQuery{})
	var wg sync.WaitGroup
	errs := make(chan error, places*each+1)
	for range places {
		wg.Go(func() {
			for range each {
				errs <- w.Store.AppendEvents(ctx, []*broker.Event{w.drift(time.Now()), w.Event(broker.EventQuotaReached, broker.QuotaReached{Quota: "octets.day"})})
			}
		})
	}
	wg.Go(func() {
		_, err := w.Store.AcknowledgeAlert(ctx, Admin, a.ID, "")
		errs <- err
	})
	wg.Wait()
	close(errs)
	for err := range errs {
		must(t, err)
	}
	if a = w.alert(t, broker.AlertQuery{Kind: broker.AlertDrift}); a.Count != places*each+1 || a.State != broker.AlertAcknowledged {
		t.Errorf("drift: %d, %s", a.Count, a.State)
	}
	if q := w.alert(t, broker.AlertQuery{Kind: broker.AlertQuota}); q.Count != places*each {
		t.Errorf("quota: %d", q.Count)
	}
	if n := w.count(t, broker.EventAlertRaised); n != 2 {
		t.Errorf("alert.raised stands %d times in the log", n)
	}
}
