// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// TestAddressesOfAnOlderDatabase: mailboxes that were there before their
// addresses had a table keep them from other firms too.
func TestAddressesOfAnOlderDatabase(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "postern.db")
	firm, other := broker.Firm{ID: broker.NewID(), Name: "Firm"}, broker.Firm{ID: broker.NewID(), Name: "Other"}
	writeOldDatabase(t, path, firm.ID, other.ID)

	s, err := Open(ctx, Config{Path: path, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for address, want := range map[string]broker.Code{
		"desk@firm.example": broker.Conflict, "info@firm.example": broker.Conflict, "gone@firm.example": "",
	} {
		m := storetest.MailboxOf(&other, string(broker.NewID())+"@other.example")
		m.Aliases = []string{address}
		if err := s.CreateMailbox(ctx, storetest.Admin, &m); broker.CodeOf(err) != want {
			t.Errorf("%s: %v, want code %q", address, err, want)
		}
	}
}

// writeOldDatabase makes a database of the first version: of firm, one mailbox
// with aliases, one without, and one that was deleted.
func writeOldDatabase(t *testing.T, path string, firm, other broker.ID) {
	t.Helper()
	if err := createFile(path); err != nil {
		t.Fatal(err)
	}
	db, err := openSQLite(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []broker.ID{firm, other} {
		exec(`INSERT INTO firms (id, name_key, doc) VALUES ($1, $1, '{"name":"x"}')`, string(id))
	}
	mailbox := `INSERT INTO mailboxes (id, firm_id, address_key, doc, deleted_at) VALUES ($1, $2, $3, $4, $5)`
	exec(mailbox, string(broker.NewID()), string(firm), "desk@firm.example",
		`{"address":"Desk@firm.example","aliases":["Info@Firm.example","help@firm.example"]}`, nil)
	exec(mailbox, string(broker.NewID()), string(firm), "second@firm.example", `{"address":"second@firm.example"}`, nil)
	exec(mailbox, string(broker.NewID()), string(firm), "gone@firm.example", `{"address":"gone@firm.example"}`, 1)
}
