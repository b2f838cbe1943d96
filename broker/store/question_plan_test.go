// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// questionsAsked asks a question of each kind, and returns the queries that
// found the answers.
func questionsAsked(t *testing.T, s *Store, w *storetest.World) (queries []string, args [][]any) {
	t.Helper()
	ctx := context.Background()
	s.asked = func(query string, given []any) {
		queries, args = append(queries, query), append(args, given)
	}
	defer func() { s.asked = nil }()
	from := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	q := broker.SubjectQuery{
		Subjects: []broker.ID{w.Agent.ID}, FirmID: w.Firm.ID, Since: from, Until: from.AddDate(20, 0, 0), Other: w.Mailbox.ID,
		Activities: []broker.Activity{broker.ActivityRead, broker.ActivitySync},
		After:      &broker.Place{Time: from, Log: w.Firm.ID, Seq: 1},
	}
	_, _, err := s.SubjectEvents(ctx, q)
	must(t, err)
	_, err = s.CountSubjects(ctx, q, 3600)
	must(t, err)
	q.FirmID, q.Other, q.After = "", "", nil
	_, _, err = s.SubjectEvents(ctx, q)
	must(t, err)
	_, _, err = s.SubjectSessions(ctx, q)
	must(t, err)
	_, err = s.CountSubjects(ctx, q, 0)
	must(t, err)
	m := broker.MessageQuery{MessageID: "<a@x.example>", Since: from}
	_, _, err = s.MessageEvents(ctx, m)
	must(t, err)
	m.FirmID = w.Firm.ID
	_, err = s.CountMessage(ctx, m, 0)
	must(t, err)
	return queries, args
}

// opened fills a store with some openings, and waits until the index has them.
func opened(t *testing.T, s *Store) *storetest.World {
	t.Helper()
	w := storetest.Build(t, s)
	x := w.Session("node")
	batch := []*broker.Event{w.Opened(x)}
	for i := range 500 {
		e := w.Event(broker.EventMessageOpen, broker.MessageOpen{Folder: "INBOX", UIDValidity: 1, Messages: []broker.OpenedMessage{
			{UID: uint32(i + 1), Seq: 1, Section: "BODY[]", Octets: 100, MessageID: "<a@x.example>"},
		}})
		e.SessionID = x.ID
		batch = append(batch, e)
	}
	must(t, s.AppendEvents(context.Background(), batch))
	servers.WaitFor(t, time.Minute, func() bool {
		n, err := s.Unindexed(context.Background())
		return err == nil && n == 0
	}, "the index")
	return w
}

// mustSeek fails for a plan that reads a whole table of those that grow with the
// record, or looks for the ends of sessions among all events. Of logs there are as
// many as firms; and of the sessions' rows those that live have an index of their own.
func mustSeek(t *testing.T, query, plan string, whole ...string) {
	t.Helper()
	if strings.Contains(query, "i.what = 2") && !strings.Contains(plan, "subject_sessions") {
		t.Errorf("the ends of sessions are sought among all events:\n%s\n%s", query, plan)
	}
	for _, table := range []string{"subject_events", "message_events", "message_ids", "events"} {
		for _, words := range whole {
			if strings.Contains(plan, fmt.Sprintf(words, table)) {
				t.Errorf("%s is read as a whole:\n%s\n%s", table, query, plan)
			}
		}
	}
}

// TestQuestionsSeek: no question reads a whole table of those that grow.
func TestQuestionsSeek(t *testing.T) {
	s := open(t, Config{})
	w := opened(t, s)
	queries, args := questionsAsked(t, s, w)
	if len(queries) < 20 {
		t.Fatalf("only %d queries", len(queries))
	}
	db := raw(t, s.cfg.Path)
	for i, query := range queries {
		rows, err := db.Query("EXPLAIN QUERY PLAN "+query, args[i]...)
		must(t, err)
		var plan strings.Builder
		for rows.Next() {
			var id, parent, unused int
			var detail string
			must(t, rows.Scan(&id, &parent, &unused, &detail))
			plan.WriteString(detail + "\n")
		}
		must(t, rows.Close())
		// Each table has an alias: a letter, or two.
		mustSeek(t, query, plan.String(), "SCAN %s\n", "SCAN %s USING")
		for _, alias := range []string{"SCAN i\n", "SCAN i ", "SCAN n\n", "SCAN e\n"} {
			if strings.Contains(plan.String(), alias) {
				t.Errorf("a whole table is read:\n%s\n%s", query, plan.String())
			}
		}
	}
}

// testQuestionsSeek is TestQuestionsSeek for PostgreSQL, which reads small tables
// as a whole unless that is made dear.
func testQuestionsSeek(t *testing.T, server *servers.PostgreSQL) {
	d := server.NewDatabase()
	s := openDatabase(t, d, Config{})
	w := opened(t, s)
	queries, args := questionsAsked(t, s, w)
	conn, err := s.readers.BeginTx(context.Background(), s.dialect.snapshot())
	must(t, err)
	defer conn.Rollback()
	_, err = conn.Exec("SET LOCAL enable_seqscan = off")
	must(t, err)
	sorting := "on"
	for i, query := range queries {
		if strings.HasPrefix(query, "SELECT set_config(") {
			must(t, conn.QueryRow(query).Scan(&sorting))
			continue
		}
		// Of so few rows it would not be tempted.
		if inOrder := strings.Contains(query, "ORDER BY i.subject"); inOrder != (sorting == "off") {
			t.Errorf("enable_sort is %s for:\n%s", sorting, query)
		}
		rows, err := conn.Query("EXPLAIN "+query, args[i]...)
		must(t, err)
		plan := plan(t, rows)
		mustSeek(t, query, plan, "Seq Scan on %s")
		if strings.Contains(query, "ORDER BY i.subject") && strings.Contains(plan, "Sort  (") {
			t.Errorf("all that there are are read and sorted, for the first of them:\n%s\n%s", query, plan)
		}
		for line := range strings.Lines(plan) {
			// An index that is read from its beginning has no condition on its key.
			if strings.Contains(line, "subject_events_pkey") && !strings.Contains(plan, "(subject = ") {
				t.Errorf("the index is not sought in:\n%s\n%s", query, plan)
			}
		}
	}
}

func plan(t *testing.T, rows *sql.Rows) string {
	t.Helper()
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		var line string
		must(t, rows.Scan(&line))
		b.WriteString(line + "\n")
	}
	must(t, rows.Err())
	return b.String()
}
