// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-mail/postern/broker"
)

// testQuestions asks questions about events of two firms, while the index does
// not hold them and when it does, and compares the answers with what reading the
// whole logs finds.
func testQuestions(t *testing.T, w *World) {
	ctx := context.Background()
	other := broker.Firm{Name: "Contoso"}
	must(t, w.Store.CreateFirm(ctx, Admin, &other))
	agents := []broker.ID{w.Agent.ID, broker.NewID(), broker.NewID()}
	workstations := []broker.ID{w.Workstation.ID, "", broker.NewID()}
	mailboxes := map[broker.ID]broker.ID{w.Mailbox.ID: w.Firm.ID, broker.NewID(): w.Firm.ID, broker.NewID(): other.ID}
	ids := slices.Sorted(func(yield func(broker.ID) bool) {
		for id := range mailboxes {
			if !yield(id) {
				return
			}
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	var events []*broker.Event
	for i := range 600 {
		mailbox := ids[random.IntN(len(ids))]
		e := &broker.Event{
			FirmID: mailboxes[mailbox], MailboxID: mailbox, AgentID: agents[random.IntN(3)], WorkstationID: workstations[random.IntN(3)],
			// Now and then earlier than the one before.
			Time:  begin.Add(time.Duration(i)*7*time.Minute - time.Duration(random.IntN(20))*time.Minute),
			Actor: broker.Actor{Kind: "agent", Name: "x"},
		}
		switch uid := uint32(1 + random.IntN(12)); random.IntN(5) {
		default:
			opened := broker.MessageOpen{Folder: "INBOX", UIDValidity: 7}
			for n := range uint32(1 + 11*random.IntN(2)) {
				m := broker.OpenedMessage{UID: uid + n, Seq: 1, Section: "BODY[]", Octets: int64(random.IntN(9000))}
				if random.IntN(2) == 0 {
					m.MessageID = fmt.Sprintf("<%d@x.example>", uid+n)
				}
				opened.Messages = append(opened.Messages, m)
			}
			e.Type, e.Data = broker.EventMessageOpen, opened
		case 1:
			e.Type, e.Data = broker.EventMessageIdentify, broker.MessageIdentify{Folder: "INBOX", UIDValidity: 7, UID: uid, MessageID: fmt.Sprintf("<%d@x.example>", uid)}
		case 2:
			e.Type, e.Data = broker.EventSendResult, broker.SendResult{MessageID: fmt.Sprintf("<%d@x.example>", uid), Outcome: []string{"accepted", "refused"}[i%2]}
		}
		events = append(events, e)
	}
	must(t, w.Store.AppendEvents(ctx, events))
	all := append(append(All(t, w.Store, w.Firm.ID), All(t, w.Store, other.ID)...), All(t, w.Store, "")...)
	slices.SortStableFunc(all, func(a, b *broker.StoredEvent) int { return a.Time.Compare(b.Time) })
	from, until := begin.Add(10*time.Hour), begin.Add(50*time.Hour)
	ask := func(t *testing.T) {
		for _, q := range []broker.SubjectQuery{
			{Subjects: []broker.ID{agents[1]}},
			{Subjects: []broker.ID{agents[1]}, Since: from, Until: until},
			{Subjects: []broker.ID{agents[0]}, FirmID: other.ID, Since: from},
			{Subjects: []broker.ID{agents[0]}, Other: w.Mailbox.ID, Activities: []broker.Activity{broker.ActivityRead, broker.ActivitySync}},
			{Subjects: []broker.ID{w.Workstation.ID}, Until: until},
			{Subjects: []broker.ID{w.Workstation.ID}, FirmID: w.Firm.ID},
			{Subjects: []broker.ID{w.Mailbox.ID}, Other: agents[2], Activities: []broker.Activity{broker.ActivitySent}},
			{Subjects: []broker.ID{broker.NewID()}},
			{Subjects: []broker.ID{w.Mailbox.ID}, FirmID: broker.NewID()},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(e *broker.StoredEvent) bool {
				subject, counterpart := e.MailboxID, e.AgentID
				if q.Subjects[0] != e.MailboxID {
					subject, counterpart = e.AgentID, e.MailboxID
				}
				if q.Subjects[0] == e.WorkstationID {
					subject = e.WorkstationID
				}
				return subject != q.Subjects[0] || q.Other != "" && counterpart != q.Other || !asked(e, q.FirmID, q.Since, q.Until, q.Activities)
			})
			got := pages(t, func(after *broker.Place) ([]*broker.StoredEvent, *broker.Place, error) {
				q.After, q.Limit = after, 50
				return w.Store.SubjectEvents(ctx, q)
			})
			compareAnswers(t, fmt.Sprintf("%+v", q), got, want)
			counts, err := w.Store.CountSubjects(ctx, q, 5*3600+1800)
			must(t, err)
			compareCounts(t, counts, want)
		}
		for _, q := range []broker.MessageQuery{
			{MessageID: "<3@x.example>"},
			{MessageID: "<3@x.example>", FirmID: other.ID, Since: from, Until: until},
			{MessageID: "<none@x.example>"},
			{MailboxID: w.Mailbox.ID, Folder: "INBOX", UIDValidity: 7, UID: 9},
			{MailboxID: w.Mailbox.ID, Folder: "INBOX", UIDValidity: 8, UID: 9},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(e *broker.StoredEvent) bool {
				return !aboutMessage(e, &q) || !asked(e, q.FirmID, q.Since, q.Until, nil)
			})
			got := pages(t, func(after *broker.Place) ([]*broker.StoredEvent, *broker.Place, error) {
				q.After, q.Limit = after, 50
				found, next, err := w.Store.MessageEvents(ctx, q)
				var events []*broker.StoredEvent
				for _, e := range found {
					if opened, ok := e.Data.(broker.MessageOpen); ok {
						checkOpened(t, &q, &opened, e.Opened)
					}
					events = append(events, e.StoredEvent)
				}
				return events, next, err
			})
			compareAnswers(t, fmt.Sprintf("%+v", q), got, want)
			counts, err := w.Store.CountMessage(ctx, q, 0)
			must(t, err)
			total := int64(0)
			for _, c := range counts {
				total += c.Events
			}
			if total < int64(len(want)) || total == 0 != (len(want) == 0) {
				t.Errorf("%+v: %d events are counted of %d", q, total, len(want))
			}
		}
	}
	t.Run("Read", ask)
	for began := time.Now(); ; <-time.After(50 * time.Millisecond) {
		n, err := w.Store.Unindexed(ctx)
		must(t, err)
		if n == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%d events are not in the index", n)
		}
	}
	t.Run("Indexed", ask)
}

func asked(e *broker.StoredEvent, firm broker.ID, from, until time.Time, activities []broker.Activity) bool {
	return (firm == "" || e.FirmID == firm) && !e.Time.Before(from) && (until.IsZero() || e.Time.Before(until)) &&
		(len(activities) == 0 || slices.Contains(activities, broker.ActivityOf(&e.Event)))
}

// aboutMessage reports whether an event is about a message: in this test, of a
// number everywhere the Message-ID is the same, and is told of each place.
func aboutMessage(e *broker.StoredEvent, q *broker.MessageQuery) bool {
	switch d := e.Data.(type) {
	case broker.MessageOpen:
		return slices.ContainsFunc(d.Messages, func(m broker.OpenedMessage) bool {
			if q.MessageID != "" {
				return fmt.Sprintf("<%d@x.example>", m.UID) == q.MessageID
			}
			return e.MailboxID == q.MailboxID && d.Folder == q.Folder && d.UIDValidity == q.UIDValidity && m.UID == q.UID
		})
	case broker.SendResult:
		return q.MessageID != "" && d.MessageID == q.MessageID
	}
	return false
}

// checkOpened: what is told of an opening is all of the message, and nothing else.
func checkOpened(t *testing.T, q *broker.MessageQuery, all *broker.MessageOpen, got []broker.OpenedMessage) {
	t.Helper()
	want := slices.DeleteFunc(slices.Clone(all.Messages), func(m broker.OpenedMessage) bool {
		return m.UID != q.UID && fmt.Sprintf("<%d@x.example>", m.UID) != q.MessageID
	})
	if !slices.Equal(got, want) {
		t.Errorf("%+v: %+v, want %+v", q, got, want)
	}
}

// pages asks for one page after another.
func pages(t *testing.T, ask func(after *broker.Place) ([]*broker.StoredEvent, *broker.Place, error)) (all []*broker.StoredEvent) {
	t.Helper()
	var after *broker.Place
	for {
		page, next, err := ask(after)
		must(t, err)
		if all = append(all, page...); next == nil {
			return all
		}
		after = next
	}
}

// compareAnswers compares events in the order of their times.
func compareAnswers(t *testing.T, what string, got, want []*broker.StoredEvent) {
	t.Helper()
	key := func(all []*broker.StoredEvent) (keys []string) {
		for _, e := range all {
			keys = append(keys, fmt.Sprintf("%d %s %d", e.Time.UnixMicro(), e.FirmID, e.Seq))
		}
		slices.Sort(keys)
		return keys
	}
	if d := cmp.Diff(key(want), key(got)); d != "" {
		t.Errorf("%s: -want +got\n%s", what, d)
	}
	if !slices.IsSortedFunc(got, func(a, b *broker.StoredEvent) int { return a.Time.Compare(b.Time) }) {
		t.Errorf("%s: not in the order of times", what)
	}
}

func compareCounts(t *testing.T, got []broker.ActivityCount, events []*broker.StoredEvent) {
	t.Helper()
	type key struct {
		day string
		a   broker.Activity
	}
	type sum struct{ Events, Messages, Octets int64 }
	want, have := map[key]sum{}, map[key]sum{}
	for _, e := range events {
		k := key{e.Time.In(time.FixedZone("", 19800)).Format(time.DateOnly), broker.ActivityOf(&e.Event)}
		s := want[k]
		s.Events++
		switch d := e.Data.(type) {
		case broker.MessageOpen:
			s.Messages += int64(len(d.Messages))
			for _, m := range d.Messages {
				s.Octets += m.Octets
			}
		case broker.SendResult:
			s.Messages++
		}
		want[k] = s
	}
	for _, c := range got {
		s := have[key{c.Day, c.Activity}]
		s.Events, s.Messages, s.Octets = s.Events+c.Events, s.Messages+c.Messages, s.Octets+c.Octets
		have[key{c.Day, c.Activity}] = s
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("counts: -want +got\n%s", d)
	}
}
