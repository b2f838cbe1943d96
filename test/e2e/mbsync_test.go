// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// syncedFolders are the folders of testMbsync: what mbsync calls them, and how
// many messages they hold at first.
var syncedFolders = []struct {
	name, local string
	messages    int
}{
	{"INBOX", "INBOX", 1300},
	{"Archive", "Archive", 400},
	{"Clients.Acme", "Clients/Acme", 200},
	{"Entwürfe & Más", "Entw&APw-rfe &- M&AOE-s", 100}, // as the wire has it
}

// testMbsync synchronises 2,000 messages down, and then changes of both sides
// both ways, until both hold the same.
func testMbsync(t *testing.T, w *World, mailbox string) {
	for _, f := range syncedFolders {
		if f.name != "INBOX" && f.name != "Archive" {
			w.Dovecot.Doveadm("mailbox", "create", "-u", mailbox, "-s", f.name)
		}
		w.Dovecot.Fill(mailbox, f.name, f.messages, func(i int) []byte { return synced(f.name, i) })
	}
	s := w.Seat(mailbox)
	m := newMaildir(t, w, s)

	m.sync()
	m.compare("after the first run")
	if got := openedUIDs(t, s, "INBOX"); len(got) != syncedFolders[0].messages {
		t.Errorf("on record as opened: %d messages of INBOX", len(got))
	}

	changeServer(w, mailbox)
	m.change()
	m.sync()
	m.compare("after changes on both sides")
	for _, want := range []struct {
		folder, query string
		n             int
	}{
		{"INBOX", "ALL", 1300 - 30 - 10 - 25}, // expunged there, marked there, deleted here
		{"INBOX", "FLAGGED SEEN", 50},
		{"INBOX", "ANSWERED SEEN UID 626:650", 25},
		{"INBOX", "SEEN UID 651:700", 50},
		{"INBOX", "UID 601:625", 0},
		{"Clients.Acme", "ALL", 200 - 1 + 20},
		{"Drafts", "DRAFT SEEN", 15},
	} {
		if got := len(w.Dovecot.Messages(mailbox, want.folder, want.query)); got != want.n {
			t.Errorf("%d messages %s in %s, want %d", got, want.query, want.folder, want.n)
		}
	}
	before := m.truth()
	m.sync()
	if after := m.truth(); !maps.Equal(before, after) {
		t.Error("a run without changes changed something at the provider")
	}
	for _, kind := range []broker.EventType{broker.EventMessageFlag, broker.EventMessageExpunge, broker.EventMessageAppend} {
		if s.Events(kind) == nil {
			t.Errorf("no %s on record", kind)
		}
	}
}

// synced is the i-th message of a folder: of very different sizes, and one of
// some megabytes, more than may pass ahead of its record.
func synced(folder string, i int) []byte {
	body := strings.Repeat(fmt.Sprintf("line of %d, ümlaut and {%d}\r\n", i, i), 1+i*i%37)
	if i == 7 {
		body = strings.Repeat(body, 3<<20/len(body))
	}
	return []byte(message(buyer, "mbsync@client.example", fmt.Sprintf("s%x-%d", folder[:2], i), body))
}

// changeServer does what other people do at the provider meanwhile.
func changeServer(w *World, mailbox string) {
	d := w.Dovecot
	d.Doveadm("flags", "add", "-u", mailbox, `\Flagged \Seen`, "mailbox", "INBOX", "uid", "10:59")
	d.Doveadm("flags", "add", "-u", mailbox, `\Answered`, "mailbox", "Archive", "uid", "1:20")
	d.Doveadm("flags", "add", "-u", mailbox, `\Deleted`, "mailbox", "INBOX", "uid", "100:109")
	d.Doveadm("expunge", "-u", mailbox, "mailbox", "INBOX", "uid", "200:229")
	d.Doveadm("expunge", "-u", mailbox, "mailbox", "Clients.Acme", "uid", "5")
	d.Fill(mailbox, "Clients.Acme", 20, func(i int) []byte { return synced("new", i+1000) })
}

// maildir is mbsync with its local copy.
type maildir struct {
	t    *testing.T
	h    *home
	w    *World
	s    *Seat
	rc   string
	root string
}

func newMaildir(t *testing.T, w *World, s *Seat) *maildir {
	t.Helper()
	h := newHome(t)
	m := &maildir{t: t, h: h, w: w, s: s, root: h.path("mail")}
	if err := os.Mkdir(m.root, 0o700); err != nil {
		t.Fatal(err)
	}
	m.rc = h.write("mbsyncrc", fmt.Sprintf(`IMAPAccount postern
Host localhost
Port %d
User %s
Pass %s
AuthMechs LOGIN
SSLType IMAPS
SystemCertificates no
CertificateFile %s
ClientCertificate %s
ClientKey %s

IMAPStore far
Account postern

MaildirStore near
Path %s/
Inbox %[7]s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, w.Postern.IMAPSPort, s.Mailbox, s.Token, w.Postern.CAFile, s.CertFile, s.KeyFile, m.root))
	return m
}

func (m *maildir) sync() {
	m.t.Helper()
	m.h.run("", "mbsync", "-c", m.rc, "-a")
}

// change does offline what the agent does: reads and answers, deletes, writes
// drafts.
func (m *maildir) change() {
	m.t.Helper()
	for _, path := range m.files("INBOX") {
		subject, _, _ := strings.Cut(string(readFile(m.t, path)), "\nMessage-ID:")
		var i int
		if _, err := fmt.Sscanf(subject[strings.Index(subject, "Subject: "):], "Subject: s494e-%d", &i); err != nil {
			m.t.Fatal(err)
		}
		var flags string // after the info mark, in ASCII order
		switch {
		case i < 600 || i >= 700:
			continue
		case i < 625:
			flags = "ST"
		case i < 650:
			flags = "RS"
		default:
			flags = "S"
		}
		base, _, _ := strings.Cut(filepath.Base(path), ":2,")
		if err := os.Rename(path, filepath.Join(m.root, "INBOX", "cur", base+":2,"+flags)); err != nil {
			m.t.Fatal(err)
		}
	}
	for i := range 15 {
		text := bytes.ReplaceAll(synced("Drafts", i), []byte("\r\n"), []byte("\n"))
		name := fmt.Sprintf("%d.draft.host:2,DS", 1700000000+i)
		if err := os.WriteFile(filepath.Join(m.root, "Drafts", "cur", name), text, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *maildir) files(folder string) []string {
	m.t.Helper()
	var all []string
	for _, sub := range []string{"cur", "new"} {
		found, err := filepath.Glob(filepath.Join(m.root, folder, sub, "*"))
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// compare holds the local copy against the provider's truth, message by
// message: folder, flags, octets.
func (m *maildir) compare(when string) {
	m.t.Helper()
	far, near := m.truth(), m.local()
	missing, extra := 0, 0
	for key, content := range far {
		got, ok := near[key]
		switch {
		case !ok:
			if missing++; missing <= 5 {
				m.t.Errorf("%s: not here: %s", when, key)
			}
		case got != content:
			m.t.Errorf("%s: %s differs", when, key)
		}
	}
	for key := range near {
		if _, ok := far[key]; !ok {
			if extra++; extra <= 5 {
				m.t.Errorf("%s: only here: %s", when, key)
			}
		}
	}
	if missing+extra > 0 {
		m.t.Errorf("%s: %d are missing here, %d are here alone", when, missing, extra)
	}
}

// fingerprint names a message's content, whatever its line ends, without the
// field that mbsync adds to what it uploads.
func fingerprint(text []byte) string {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if i := bytes.Index(text, []byte("X-TUID: ")); i >= 0 {
		end := i + bytes.IndexByte(text[i:], '\n') + 1
		text = slices.Concat(text[:i], text[end:])
	}
	sum := sha256.Sum256(bytes.TrimRight(text, "\n"))
	return hex.EncodeToString(sum[:8])
}

// truth returns what the provider holds: "folder subject flags" to a
// fingerprint of the octets.
func (m *maildir) truth() map[string]string {
	m.t.Helper()
	all := make(map[string]string)
	const mark = "\f\n" // between messages
	for record := range strings.SplitSeq(m.w.Dovecot.Doveadm("fetch", "-u", m.s.Mailbox, "mailbox flags text", "ALL"), mark) {
		if strings.TrimSpace(record) == "" {
			continue
		}
		folder, rest, _ := strings.Cut(strings.TrimPrefix(record, "mailbox: "), "\n")
		flags, text, _ := strings.Cut(strings.TrimPrefix(rest, "flags: "), "\n")
		_, text, _ = strings.Cut(text, "\n") // "text:"
		var kept []string
		for flag := range strings.FieldsSeq(flags) {
			if flag != `\Recent` {
				kept = append(kept, flag)
			}
		}
		slices.Sort(kept)
		all[key(folder, []byte(text), kept)] = fingerprint([]byte(text))
	}
	return all
}

// local returns the same of the local copy.
func (m *maildir) local() map[string]string {
	m.t.Helper()
	names := map[byte]string{'D': `\Draft`, 'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`, 'T': `\Deleted`}
	all := make(map[string]string)
	folders := map[string]string{"Sent": "Sent", "Drafts": "Drafts", "Trash": "Trash", "Junk": "Junk"}
	for _, f := range syncedFolders {
		folders[f.name] = f.local
	}
	for name, folder := range folders {
		for _, file := range m.files(folder) {
			text := readFile(m.t, file)
			var flags []string
			_, info, _ := strings.Cut(filepath.Base(file), ":2,")
			for i := range len(info) {
				flags = append(flags, names[info[i]])
			}
			slices.Sort(flags)
			all[key(name, text, flags)] = fingerprint(text)
		}
	}
	return all
}

func key(folder string, text []byte, flags []string) string {
	_, after, _ := bytes.Cut(text, []byte("Subject: "))
	subject, _, _ := bytes.Cut(after, []byte("\n"))
	return fmt.Sprintf("%s %s %s", folder, bytes.TrimSpace(subject), strings.Join(flags, " "))
}
