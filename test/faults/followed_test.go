// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/postern-mail/postern/test/e2e"
	"github.com/postern-mail/postern/test/servers"
)

// asking returns what reads one number from a database, beside those that use it.
type asking func(query string) int

// askSQLite asks a server's own file.
func askSQLite(t testing.TB, p *e2e.Postern) asking {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+p.StorePath()+"?_pragma=busy_timeout(30000)&_pragma=query_only(1)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return func(query string) (n int) {
		t.Helper()
		if err := db.QueryRow(query).Scan(&n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
}

// awaitFollowed waits until what follows the log's appends has caught up with them
// at a server that has recovered: the keys, the index for questions, which holds
// each event of the mailboxes once, and the signed checkpoints.
func awaitFollowed(t testing.TB, p *e2e.Postern, ask asking) {
	t.Helper()
	const behind = `SELECT count(*) FROM logs l WHERE l.keyed < l.next_seq OR l.indexed < l.next_seq OR NOT EXISTS
		(SELECT 1 FROM log_checkpoints c WHERE c.log = l.number AND c.witnessed = 0 AND c.size = l.next_seq)`
	servers.WaitFor(t, patience, func() bool { return ask(behind) == 0 }, "index and checkpoints to catch up with the log")
	all, mailboxes := 0, make(map[string]int)
	for _, e := range p.Events(e2e.FirmName) {
		if e.MailboxID != "" {
			mailboxes[string(e.MailboxID)]++
			all++
		}
	}
	for id, n := range mailboxes {
		got := ask(fmt.Sprintf(`SELECT count(*) FROM subject_events WHERE subject = (SELECT number FROM subjects WHERE id = '%s')`, id))
		if got < n { // another may have come since
			t.Errorf("the index has %d events of a mailbox, and the log %d", got, n)
		}
	}
	t.Logf("%d events are keyed, indexed and signed", all)
}
