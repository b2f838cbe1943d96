// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
)

var firmAdmin = broker.Actor{Kind: string(broker.RoleFirmAdmin), Name: "priya"}

// mark makes a canary of a message in INBOX, whose UIDVALIDITY is 7.
func (w *World) mark(t *testing.T, s Store, uid uint32) *broker.Canary {
	t.Helper()
	c := &broker.Canary{MailboxID: w.Mailbox.ID, Folder: "INBOX", UIDValidity: 7, UID: uid}
	must(t, s.CreateCanary(ctx, firmAdmin, c))
	return c
}

// reading is a session's record of messages that it read in INBOX.
func (w *World) reading(session broker.ID, uids ...uint32) *broker.Event {
	open := broker.MessageOpen{Folder: "INBOX", UIDValidity: 7}
	for _, uid := range uids {
		open.Messages = append(open.Messages, broker.OpenedMessage{UID: uid, Seq: uid, Section: "BODY[]", Octets: 100})
	}
	e := w.Event(broker.EventMessageOpen, open)
	e.SessionID = session
	return e
}

// canaryEvents are the events of one type, as the log has them.
func (w *World) canaryEvents(t *testing.T, typ broker.EventType) (all []*broker.StoredEvent, data []broker.CanaryOpened) {
	t.Helper()
	for _, e := range All(t, w.Store, w.Firm.ID) {
		if e.Type == typ {
			d, err := broker.DataOf[broker.CanaryOpened](&e.Event)
			must(t, err)
			all, data = append(all, e), append(data, d)
		}
	}
	return all, data
}

// testCanaries: they are the firm's own admins' affair, and no event tells which
// messages they are.
func testCanaries(t *testing.T, w *World) {
	s := w.Store
	c := &broker.Canary{MailboxID: w.Mailbox.ID, Folder: "Secret-folder", UIDValidity: 7, UID: 3, MessageID: "<secret@acme.example>", Note: "secret"}
	wantCode(t, s.CreateCanary(ctx, Admin, c), broker.Refused)
	wantCode(t, s.CreateCanary(ctx, broker.Actor{Kind: string(broker.RoleFirmAuditor), Name: "x"}, c), broker.Refused)
	must(t, s.CreateCanary(ctx, firmAdmin, c))
	for field, bad := range map[string]broker.Canary{
		"uid":        {MailboxID: w.Mailbox.ID, Folder: "INBOX"},
		"folder":     {MailboxID: w.Mailbox.ID, UID: 3},
		"message_id": {MailboxID: w.Mailbox.ID, MessageID: "<x>\r\n"},
		"mailbox_id": {MailboxID: broker.NewID(), MessageID: "<x>"},
	} {
		wantField(t, s.CreateCanary(ctx, firmAdmin, &bad), field)
	}
	all, err := s.Canaries(ctx, w.Mailbox.ID)
	must(t, err)
	if diff := cmp.Diff([]*broker.Canary{c}, all); diff != "" || c.FirmID != w.Firm.ID {
		t.Errorf("canaries: %s", diff)
	}
	none, err := s.Canaries(ctx, broker.NewID())
	must(t, err)
	if len(none) != 0 {
		t.Errorf("another mailbox's: %+v", none)
	}
	// It is read as well, so that what the store writes beside is looked at too.
	open := w.Event(broker.EventMessageOpen, broker.MessageOpen{
		Folder: c.Folder, UIDValidity: 7, Messages: []broker.OpenedMessage{{UID: 3, Section: "BODY[]"}},
	})
	must(t, s.AppendEvents(ctx, []*broker.Event{open}))
	wantCode(t, s.RemoveCanary(ctx, Admin, c.ID), broker.Refused)
	wantCode(t, s.RemoveCanary(ctx, firmAdmin, broker.NewID()), broker.NotFound)
	must(t, s.RemoveCanary(ctx, firmAdmin, c.ID))
	wantCode(t, s.RemoveCanary(ctx, firmAdmin, c.ID), broker.NotFound)
	if removed, err := s.Canary(ctx, c.ID); err != nil || removed.RemovedAt.IsZero() || removed.MessageID != c.MessageID {
		t.Errorf("once it was removed: %+v, %v", removed, err)
	}
	if all, err = s.Canaries(ctx, w.Mailbox.ID); err != nil || len(all) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	types := map[broker.EventType]int{}
	for _, e := range All(t, s, w.Firm.ID) {
		types[e.Type]++
		if e.Type != broker.EventMessageOpen && bytes.Contains(bytes.ToLower(e.Record), []byte("secret")) {
			t.Errorf("an event tells of it: %s", e.Record)
		}
	}
	for _, typ := range []broker.EventType{broker.EventCanaryCreated, broker.EventCanaryRemoved, broker.EventCanaryOpened} {
		if types[typ] != 1 {
			t.Errorf("%d %s", types[typ], typ)
		}
	}
	if a := w.alert(t, broker.AlertQuery{Kind: broker.AlertCanary}); a.CanaryID() != c.ID || bytes.Contains([]byte(a.Detail), []byte("ecret")) {
		t.Errorf("the alert: %+v", a)
	}
}

// testCanaryAlerts: an alert for each canary and agent, in the transaction of the
// opening's record; others' messages raise none, and what repeats is counted.
func testCanaryAlerts(t *testing.T, w *World) {
	s := w.Store
	session := broker.NewID()
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(session, 3)})) // not marked yet
	c := w.mark(t, s, 3)
	open := w.reading(session, 2, 3)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(session, 4), open}))
	a := w.alert(t, broker.AlertQuery{Kind: broker.AlertCanary})
	if a.Count != 1 || a.Severity != broker.SeverityCritical || a.MailboxID != w.Mailbox.ID || a.AgentID != w.Agent.ID ||
		a.WorkstationID != w.Workstation.ID || a.SessionID != session || a.CanaryID() != c.ID || a.Detail != "read" {
		t.Errorf("the alert: %+v", a)
	}
	events, data := w.canaryEvents(t, broker.EventCanaryOpened)
	want := broker.CanaryOpened{Canary: c.ID, Opening: open.ID, How: broker.CanaryRead, Messages: 3}
	if len(data) != 1 || data[0] != want || events[0].Seq <= open.Seq || events[0].Actor != open.Actor {
		t.Errorf("recorded: %+v, want %+v", data, want)
	}
	if a.Evidence[0].EventID != events[0].ID {
		t.Errorf("evidence: %+v", a.Evidence)
	}

	// The same agent again, in another session and in two ways; another agent.
	copied := w.Event(broker.EventMessageCopy, broker.MessageChange{Folder: "INBOX", UIDValidity: 7, Set: "1:5", UIDs: true, Target: "Archive"})
	copied.SessionID = broker.NewID()
	other := w.reading(broker.NewID(), 3)
	other.AgentID = broker.NewID()
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(broker.NewID(), 3), copied, other}))
	all := w.alerts(t, broker.AlertQuery{Kind: broker.AlertCanary})
	if len(all) != 2 || all[0].Count+all[1].Count != 4 {
		t.Errorf("alerts: %+v", all)
	}
	if own := w.alert(t, broker.AlertQuery{Kind: broker.AlertCanary, AgentID: w.Agent.ID}); own.Count != 3 || own.Detail != "copied" {
		t.Errorf("the first agent's: %+v", own)
	}

	// Unmarked, nothing.
	must(t, s.RemoveCanary(ctx, firmAdmin, c.ID))
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(session, 3)}))
	if n := w.count(t, broker.EventCanaryOpened); n != 4 {
		t.Errorf("%d openings on record", n)
	}
}

// testCanaryDownload: whoever opens many messages in a minute downloads, and the
// alert says so, also when the canary came first. The record of a session that
// goes on slowly says nothing of the kind.
func testCanaryDownload(t *testing.T, w *World) {
	s := w.Store
	w.mark(t, s, 1)
	w.mark(t, s, 40)
	bulk, slow := broker.NewID(), broker.NewID()
	for uid := uint32(1); uid <= 50; uid++ {
		must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(bulk, uid)}))
	}
	all := w.alerts(t, broker.AlertQuery{Kind: broker.AlertCanary})
	if len(all) != 2 {
		t.Fatalf("alerts: %+v", all)
	}
	details := map[string]bool{}
	for _, a := range all {
		details[a.Detail] = true
		if a.Count != 1 {
			t.Errorf("counted %d times: %+v", a.Count, a)
		}
	}
	for _, want := range []string{"read in a bulk download: with it 10 messages within 60 s", "read in a bulk download: with it 40 messages within 60 s"} {
		if !details[want] {
			t.Errorf("no alert says %q: %v", want, details)
		}
	}
	if _, data := w.canaryEvents(t, broker.EventCanaryDownloaded); len(data) != 1 || data[0].Messages != 10 {
		t.Errorf("downloaded: %+v", data)
	}

	c := w.mark(t, s, 100)
	now := time.Now().UTC()
	for i := range 30 {
		e := w.reading(slow, 100+uint32(i))
		e.Time = now.Add(time.Duration(i) * 10 * time.Second)
		must(t, s.AppendEvents(ctx, []*broker.Event{e}))
	}
	for _, a := range w.alerts(t, broker.AlertQuery{Kind: broker.AlertCanary}) {
		if a.CanaryID() == c.ID && a.Detail != "read" {
			t.Errorf("of a person's reading: %s", a.Detail)
		}
	}
	if n := w.count(t, broker.EventCanaryDownloaded); n != 1 {
		t.Errorf("%d downloads on record", n)
	}
}

// testCanaryOfARolledBackChange: what a transaction has read that was undone is
// not what the next one goes by, though both have the same policy revision.
func testCanaryOfARolledBackChange(t *testing.T, w *World) {
	s := w.Store
	undone := errors.New("undone")
	err := s.Together(ctx, func(ctx context.Context) error {
		c := &broker.Canary{MailboxID: w.Mailbox.ID, Folder: "INBOX", UIDValidity: 7, UID: 3}
		if err := s.CreateCanary(ctx, firmAdmin, c); err != nil {
			return err
		}
		if err := s.AppendEvents(ctx, []*broker.Event{w.reading(broker.NewID(), 3)}); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatalf("undone: %v", err)
	}
	w.mark(t, s, 5) // to the same revision
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(broker.NewID(), 3), w.reading(broker.NewID(), 5)}))
	if n := w.count(t, broker.EventCanaryOpened); n != 1 {
		t.Errorf("%d openings on record", n)
	}

	// Nor does what is recorded again count as more than it is.
	session := broker.NewID()
	for range 2 {
		err = s.Together(ctx, func(ctx context.Context) error {
			must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(session, 5, 6, 7, 8, 9)}))
			return undone
		})
		if !errors.Is(err, undone) {
			t.Fatalf("undone: %v", err)
		}
	}
	must(t, s.AppendEvents(ctx, []*broker.Event{w.reading(session, 5, 6, 7, 8, 9)}))
	_, data := w.canaryEvents(t, broker.EventCanaryOpened)
	if last := data[len(data)-1]; len(data) != 2 || last.Messages != 5 {
		t.Errorf("recorded: %+v", data)
	}
	if n := w.count(t, broker.EventCanaryDownloaded); n != 0 {
		t.Errorf("%d downloads on record", n)
	}
}

// testSharedCanaries: what one node has marked, the next opening at another raises
// an alert of.
func testSharedCanaries(t *testing.T, w *World, other Store) {
	for i := range uint32(10) {
		uid := i + 1
		c := w.mark(t, w.Store, uid)
		must(t, other.AppendEvents(ctx, []*broker.Event{w.reading(broker.NewID(), uid)}))
		must(t, w.Store.RemoveCanary(ctx, firmAdmin, c.ID))
		must(t, other.AppendEvents(ctx, []*broker.Event{w.reading(broker.NewID(), uid)}))
		if n := w.count(t, broker.EventCanaryOpened); n != int(uid) {
			t.Fatalf("%d openings on record after %d rounds", n, uid)
		}
	}
}
