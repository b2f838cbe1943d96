// SPDX-License-Identifier: Apache-2.0

package logcopy

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker/translog"
)

// liar is a server that changes entries.
type liar struct {
	*served
	lie func(e *Entry)
}

func (l *liar) Entries(ctx context.Context, first int64) ([]*Entry, error) {
	all, err := l.served.Entries(ctx, first)
	for _, e := range all {
		l.lie(e)
	}
	return all, err
}

// TestNever6HeldRecordsAreNotOverwritten: a server that says of records that they are
// gone, in whatever form, takes none from a copy.
func TestNever6HeldRecordsAreNotOverwritten(t *testing.T) {
	for name, leaf := range map[string]func(string) string{
		"as it is":      func(s string) string { return s },
		"in upper case": strings.ToUpper,
	} {
		s := serve(t, 300)
		dir := t.TempDir()
		_, err := Pull(ctx, dir, s.keys(), s)
		must(t, err)
		s.append(10)
		_, err = Pull(ctx, dir, s.keys(), &liar{s, func(e *Entry) {
			if e.Seq < 300 {
				e.Record, e.Salt, e.Leaf = nil, "", leaf(e.Leaf)
			}
		}})
		var wrong *TamperedError
		if err != nil && !errors.As(err, &wrong) {
			t.Fatal(err)
		}
		c, err := Open(dir)
		must(t, err)
		for seq := range int64(300) {
			if e, err := c.Entry(ctx, seq); err != nil || e.Pruned() {
				t.Fatalf("%s: the record of event %d is gone: %v", name, seq, err)
			}
		}
		c.Close()
	}
}

// TestNever6EntryOfOneForm: an entry is what Postern would write of it, and one line:
// else a copy that was proved would be no copy when it is read again.
func TestNever6EntryOfOneForm(t *testing.T) {
	entry := func(record string, change func(e *Entry)) *Entry {
		salt := []byte(strings.Repeat("\xab", translog.SaltSize))
		leaf := tlog.RecordHash(append(salt, record...))
		e := &Entry{Seq: 7, Record: json.RawMessage(record), Salt: hex.EncodeToString(salt[:translog.SaltSize]), Leaf: hex.EncodeToString(leaf[:])}
		change(e)
		return e
	}
	if _, err := entry(`{"seq":7}`, func(*Entry) {}).LeafOf(7); err != nil {
		t.Errorf("one of Postern's: %v", err)
	}
	for name, e := range map[string]*Entry{
		"a record of two lines":     entry("{\"seq\":7,\n\"version\":1}", func(*Entry) {}),
		"a salt in upper case":      entry(`{"seq":7}`, func(e *Entry) { e.Salt = strings.ToUpper(e.Salt) }),
		"a leaf hash in upper case": entry(`{"seq":7}`, func(e *Entry) { e.Leaf = strings.ToUpper(e.Leaf) }),
		"a pruned one's":            entry(`{"seq":7}`, func(e *Entry) { e.Record, e.Salt, e.Leaf = nil, "", strings.ToUpper(e.Leaf) }),
	} {
		if _, err := e.LeafOf(7); err == nil {
			t.Errorf("%s is an entry", name)
		}
	}
}
