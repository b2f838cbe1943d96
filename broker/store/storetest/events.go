// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"golang.org/x/mod/sumdb/tlog"
)

// Verify checks that a log is whole: numbers from 0 without a gap, records
// that say the same, leaf hashes that fit, salts that are all different.
func Verify(t testing.TB, log []*broker.StoredEvent) {
	t.Helper()
	salts := make(map[string]bool)
	for i, e := range log {
		if e.Seq != int64(i) {
			t.Fatalf("event %d has the number %d", i, e.Seq)
		}
		if len(e.Salt) != 16 || salts[string(e.Salt)] {
			t.Fatalf("event %d: salt %x", i, e.Salt)
		}
		salts[string(e.Salt)] = true
		if want := tlog.RecordHash(slices.Concat(e.Salt, []byte(e.Record))); e.LeafHash != want {
			t.Fatalf("event %d: leaf hash %x, want %x", i, e.LeafHash, want)
		}
		var fields struct {
			Seq  int64            `json:"seq"`
			Type broker.EventType `json:"type"`
		}
		if err := json.Unmarshal(e.Record, &fields); err != nil || fields.Seq != e.Seq || fields.Type != e.Type {
			t.Fatalf("event %d: %v: %s", i, err, e.Record)
		}
	}
}

func types(log []*broker.StoredEvent) []broker.EventType {
	var all []broker.EventType
	for _, e := range log {
		all = append(all, e.Type)
	}
	return all
}

// testEveryChangeHasItsEvent: in the right log, with the documents before and
// after, and a revision each.
func testEveryChangeHasItsEvent(t *testing.T, w *World) {
	s := w.Store
	w.Mailbox.MaxConnections = 7
	must(t, s.UpdateMailbox(ctx, Admin, &w.Mailbox))
	w.Workstation.Groups = nil
	must(t, s.UpdateWorkstation(ctx, Admin, &w.Workstation))
	w.Site.Name = "Pune 2"
	must(t, s.UpdateSite(ctx, Admin, &w.Site))
	w.Delegation.Terms.Actions = policy.List
	must(t, s.UpdateDelegation(ctx, Admin, &w.Delegation))
	w.Assignment.Terms.Actions = policy.List
	must(t, s.UpdateAssignment(ctx, Admin, &w.Assignment))
	w.Agent.FullName = "R. Kumar"
	must(t, s.UpdateAgent(ctx, Admin, &w.Agent))
	lock := broker.Lock{Target: broker.LockMailbox, TargetID: w.Mailbox.ID, Message: "drift"}
	must(t, s.CreateLock(ctx, Admin, &lock))
	must(t, s.CredentialSet(ctx, Admin, w.Mailbox.ID, 1))
	must(t, s.RevokeAssignment(ctx, Admin, w.Assignment.ID))
	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	must(t, s.RevokeAppPassword(ctx, Admin, w.AppPassword.ID))
	must(t, s.DeleteMailbox(ctx, Admin, w.Mailbox.ID)) // takes the lock along
	must(t, s.DeleteAgent(ctx, Admin, w.Agent.ID))
	must(t, s.DeleteWorkstation(ctx, Admin, w.Workstation.ID))
	must(t, s.DeleteSite(ctx, Admin, w.Site.ID))

	firm, own := All(t, s, w.Firm.ID), All(t, s, "")
	Verify(t, firm)
	Verify(t, own)
	same(t, "the firm's log", types(firm), nil, []broker.EventType{
		"firm.created", "mailbox.created", "delegation.created", "assignment.created",
		"mailbox.updated", "delegation.updated", "assignment.updated", "lock.created", "alert.raised", "credential.set",
		"assignment.revoked", "delegation.revoked", "lock.removed", "mailbox.deleted",
	})
	same(t, "the BPO's log", types(own), nil, []broker.EventType{
		"agent.created", "site.created", "workstation.created", "app-password.created",
		"workstation.updated", "site.updated", "agent.updated", "app-password.revoked",
		"agent.deleted", "workstation.deleted", "site.deleted",
	})
	revision, err := s.PolicyRevision(ctx)
	same(t, "revision", revision, err, int64(len(firm)+len(own)-2)) // a credential and an alert alter no decision

	update := firm[4]
	change := update.Data.(broker.StateChange)
	var before, after broker.Mailbox
	must(t, json.Unmarshal(change.Before, &before))
	must(t, json.Unmarshal(change.After, &after))
	if before.MaxConnections != 0 || after.MaxConnections != 7 {
		t.Errorf("before and after: %s", update.Record)
	}
	if update.Actor != Admin || update.MailboxID != w.Mailbox.ID || update.FirmID != w.Firm.ID || update.Version != 1 {
		t.Errorf("the event: %s", update.Record)
	}
	for _, e := range own {
		if bytes.Contains(e.Record, []byte(Encoded(w.AppPassword.Hash))) {
			t.Errorf("a token's hash is in the log: %s", e.Record)
		}
	}
}

// Encoded is how encoding/json would show octets.
func Encoded(b []byte) string {
	text, _ := json.Marshal(b) // a byte slice always has a JSON form
	return string(text[1 : len(text)-1])
}

// testFailedChangeLeavesNothing: no event, no revision, no gap.
func testFailedChangeLeavesNothing(t *testing.T, w *World) {
	s := w.Store
	before, err := s.PolicyRevision(ctx)
	must(t, err)
	count := len(All(t, s, ""))
	for range 3 {
		// The pin is found to be taken after the row was written.
		wantCode(t, s.CreateWorkstation(ctx, Admin, &broker.Workstation{
			Name: "thief", Class: broker.ClassSoftware, KeyPins: []string{Pin(), w.Workstation.KeyPins[0]},
		}), broker.Conflict)
	}
	after, err := s.PolicyRevision(ctx)
	same(t, "revision", after, err, before)
	machines, err := s.Workstations(ctx)
	same(t, "workstations", machines, err, []*broker.Workstation{&w.Workstation})
	must(t, s.CreateAgent(ctx, Admin, &broker.Agent{Name: "next"}))
	log := All(t, s, "")
	Verify(t, log)
	same(t, "events", len(log), nil, count+1)
}

func testLogsApart(t *testing.T, w *World) {
	s := w.Store
	other := broker.Firm{Name: "Other"}
	must(t, s.CreateFirm(ctx, Admin, &other))
	theirs := w.Refused("EXPUNGE")
	theirs.FirmID = other.ID
	ours := w.Refused("DELETE")
	must(t, s.AppendEvents(ctx, []*broker.Event{theirs, ours}))
	if theirs.Seq != 1 || ours.Seq != 4 {
		t.Errorf("numbers %d and %d, want 1 and 4", theirs.Seq, ours.Seq)
	}
	for firm, want := range map[broker.ID]string{other.ID: "EXPUNGE", w.Firm.ID: "DELETE"} {
		log := All(t, s, firm)
		Verify(t, log)
		for _, e := range log {
			if e.FirmID != firm {
				t.Errorf("an event of %q in the log of %q", e.FirmID, firm)
			}
		}
		if got := log[len(log)-1].Data.(broker.CommandRefused).Command; got != want {
			t.Errorf("the last command is %s, want %s", got, want)
		}
	}
}

func testAppend(t *testing.T, w *World) {
	s := w.Store
	must(t, s.AppendEvents(ctx, nil))
	from := int64(len(All(t, s, w.Firm.ID)))
	raw := json.RawMessage(`{"folder":"INBOX","uid_validity":1,"set":"1:*","uids":true}`)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("IST", 19800))
	open := &broker.Event{Type: broker.EventMessageOpen, FirmID: w.Firm.ID, Time: at, Actor: broker.Actor{Kind: "agent"}, Data: broker.MessageOpen{
		Folder: "Входящие <&>\u2028", Messages: []broker.OpenedMessage{{UID: 7, Octets: 1 << 60, MessageID: "<a&b@x.example>"}},
	}}
	events := []*broker.Event{open, w.Event(broker.EventMessageFlag, raw), w.Event(broker.EventMessageMove, &raw)}
	must(t, s.AppendEvents(ctx, events))
	revision, err := s.PolicyRevision(ctx)
	must(t, err)
	for i, e := range events {
		if e.Seq != from+int64(i) || e.ID == "" || e.Version != 1 || e.Time.IsZero() || e.PolicyRevision != revision {
			t.Errorf("not filled in: %+v", e)
		}
		e.PolicyRevision = 0 // it is not part of the record
	}
	log := All(t, s, w.Firm.ID)
	Verify(t, log)
	log = log[from:]
	same(t, "what was read", &log[0].Event, nil, events[0])
	if !log[0].Time.Equal(at.Truncate(time.Microsecond)) || log[0].Time.Location() != time.UTC {
		t.Errorf("time %v", log[0].Time)
	}
	want := broker.MessageChange{Folder: "INBOX", UIDValidity: 1, Set: "1:*", UIDs: true}
	same(t, "data given as JSON", log[1].Data, nil, any(want))
	same(t, "data given as a pointer to JSON", log[2].Data, nil, any(want))
}

func testAppendAllOrNothing(t *testing.T, w *World) {
	s := w.Store
	before := len(All(t, s, w.Firm.ID))
	elsewhere := w.Refused("DELETE")
	elsewhere.FirmID = "../../x"
	for name, bad := range map[string]*broker.Event{
		"no JSON form":    w.Event(broker.EventCommandRefused, make(chan int)),
		"not JSON":        w.Event(broker.EventCommandRefused, json.RawMessage("{")),
		"no such type":    w.Event("mailbox.stolen", broker.StateChange{}),
		"no such log":     elsewhere,
		"another's data":  w.Event(broker.EventSessionOpen, broker.SessionEnd{}),
		"session.open 0":  w.Event(broker.EventSessionOpen, (*broker.SessionOpen)(nil)),
		"session.end nil": w.Event(broker.EventSessionEnd, nil),
	} {
		err := s.AppendEvents(ctx, []*broker.Event{w.Refused("DELETE"), bad, w.Refused("DELETE")})
		if broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	same(t, "events", len(All(t, s, w.Firm.ID)), nil, before)
}

func testAppendConcurrently(t *testing.T, w *World) {
	s := w.Store
	before := len(All(t, s, w.Firm.ID))
	var wait sync.WaitGroup
	for producer := range 8 {
		wait.Go(func() {
			for i := range 20 {
				pair := []*broker.Event{w.Refused(fmt.Sprintf("%d %d", producer, 2*i)), w.Refused(fmt.Sprintf("%d %d", producer, 2*i+1))}
				if err := s.AppendEvents(ctx, pair); err != nil {
					t.Error(err)
				} else if pair[1].Seq != pair[0].Seq+1 {
					t.Errorf("a batch was torn: %d, %d", pair[0].Seq, pair[1].Seq)
				}
			}
		})
	}
	for i := range 20 {
		must(t, s.CreateAgent(ctx, Admin, &broker.Agent{Name: fmt.Sprintf("agent-%d", i)}))
	}
	wait.Wait()
	log := All(t, s, w.Firm.ID)
	Verify(t, log)
	same(t, "events", len(log), nil, before+320)
	next := make(map[int]int)
	for _, e := range log[before:] {
		var producer, i int
		if _, err := fmt.Sscan(e.Data.(broker.CommandRefused).Command, &producer, &i); err != nil {
			t.Fatal(err)
		}
		if i != next[producer] {
			t.Fatalf("producer %d: event %d where %d was due", producer, i, next[producer])
		}
		next[producer]++
	}
}

func testQueries(t *testing.T, w *World) {
	s := w.Store
	x := w.Session("node-a")
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Opened(x), w.Refused("1"), w.Refused("2")}))
	e := w.Refused("3")
	e.SessionID = x.ID
	must(t, s.AppendEvents(ctx, []*broker.Event{e}))

	count := func(q broker.EventQuery) int {
		t.Helper()
		q.FirmID = w.Firm.ID
		events, err := s.Events(ctx, q)
		must(t, err)
		return len(events)
	}
	all := count(broker.EventQuery{After: -1})
	same(t, "all", all, nil, 8)
	same(t, "after", count(broker.EventQuery{After: 5}), nil, 2)
	same(t, "after all", count(broker.EventQuery{After: 7}), nil, 0)
	same(t, "type", count(broker.EventQuery{After: -1, Type: broker.EventCommandRefused}), nil, 3)
	same(t, "session", count(broker.EventQuery{After: -1, SessionID: x.ID}), nil, 2)
	same(t, "both", count(broker.EventQuery{After: -1, SessionID: x.ID, Type: broker.EventCommandRefused}), nil, 1)
	same(t, "limit", count(broker.EventQuery{After: -1, Limit: 3}), nil, 3)
	for _, q := range []broker.EventQuery{{Limit: -1}, {Limit: 10001}, {After: -2}} {
		wantCode(t, second(s.Events(ctx, q)), broker.Invalid)
	}
}

func testSessions(t *testing.T, w *World) {
	s := w.Store
	first, last := w.Session("node-a"), w.Session("node-a")
	last.OpenedAt = first.OpenedAt.Add(time.Second)
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Opened(first), w.Opened(last)}))
	live, err := s.Sessions(ctx, true, 0)
	same(t, "live", live, err, []*broker.Session{last, first})

	end := w.Event(broker.EventSessionEnd, &broker.SessionEnd{Reason: broker.EndRevoked})
	end.SessionID, end.Time = first.ID, first.OpenedAt.Add(time.Minute)
	must(t, s.AppendEvents(ctx, []*broker.Event{end}))
	first.EndedAt, first.EndReason = end.Time, string(broker.EndRevoked)
	live, err = s.Sessions(ctx, true, 0)
	same(t, "live", live, err, []*broker.Session{last})
	all, err := s.Sessions(ctx, false, 10)
	same(t, "all", all, err, []*broker.Session{last, first})
	all, err = s.Sessions(ctx, false, 1)
	same(t, "one", all, err, []*broker.Session{last})

	// The first end counts, and a mailbox that is gone is no reason to fail.
	again := w.Event(broker.EventSessionEnd, broker.SessionEnd{Reason: broker.EndLogout})
	again.SessionID = first.ID
	must(t, s.RevokeDelegation(ctx, Admin, w.Delegation.ID))
	must(t, s.DeleteMailbox(ctx, Admin, w.Mailbox.ID))
	must(t, s.AppendEvents(ctx, []*broker.Event{again, w.Opened(w.Session("node-a"))}))
	all, err = s.Sessions(ctx, false, 0)
	must(t, err)
	for _, x := range all {
		if x.ID == first.ID && x.EndReason != string(broker.EndRevoked) {
			t.Errorf("ended twice: %+v", x)
		}
	}
}

func testStaleSessions(t *testing.T, w *World) {
	s := w.Store
	dead, other := w.Session("node-a"), w.Session("node-b")
	must(t, s.AppendEvents(ctx, []*broker.Event{w.Opened(dead), w.Opened(other)}))
	n, err := s.EndStaleSessions(ctx, "node-a")
	same(t, "ended", n, err, 1)
	live, err := s.Sessions(ctx, true, 0)
	same(t, "live", live, err, []*broker.Session{other})
	n, err = s.EndStaleSessions(ctx, "node-a")
	same(t, "ended again", n, err, 0)
	events, err := s.Events(ctx, broker.EventQuery{FirmID: w.Firm.ID, After: -1, Type: broker.EventSessionEnd})
	must(t, err)
	if len(events) != 1 || events[0].SessionID != dead.ID || events[0].Data.(broker.SessionEnd).Reason != broker.EndStale {
		t.Fatalf("events: %+v", events)
	}
}
