// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"context"
	"strings"

	"github.com/postern-mail/postern/broker"
)

const (
	// recordPage is how many events are read at once, recordPages how often: a
	// record that is longer explains everything.
	recordPage  = 5000
	recordPages = 40
)

// touched is what a session did, or may have done, to messages of a folder.
type touched struct {
	folder   string
	validity uint32
	what     broker.Bypass
	// uids are the messages; all says that they are not known.
	uids uids
	all  bool
	// flags are those that were changed, in lower case; nil: any.
	flags []string
	// deleted says that what was marked for deletion was removed.
	deleted bool
}

// explained is what Postern's own record says that was done to a mailbox. Where
// it cannot tell which messages it were, it is any: what Postern itself did is
// never taken for somebody else's work.
type explained struct {
	touched []touched
	// everything: a session died with its node, or could not be recorded.
	everything bool
	// anywhere: what is done in one folder shows in others, since folders are
	// labels.
	anywhere bool
	// names are the folders that the server lists.
	names map[string]bool
	// labels: labels were changed, which move messages between folders.
	labels bool
	// ids are the Message-IDs of what was sent and filed, folders those that
	// were renamed or deleted.
	ids     map[string]bool
	sent    bool
	folders []string
}

// readRecord reads what was recorded of a mailbox after an event.
func (s *Sentinel) readRecord(ctx context.Context, m *broker.Mailbox, after int64) (*explained, error) {
	x := &explained{ids: make(map[string]bool)}
	for range recordPages {
		events, err := s.State.Events(ctx, broker.EventQuery{FirmID: m.FirmID, MailboxID: m.ID, After: after, Limit: recordPage})
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			x.add(&e.Event)
			after = e.Seq
		}
		if len(events) < recordPage {
			return x, nil
		}
	}
	x.everything = true
	return x, nil
}

// add notes what one event explains.
func (x *explained) add(e *broker.Event) {
	switch d := e.Data.(type) {
	case broker.MessageOpen:
		t := touched{folder: d.Folder, validity: d.UIDValidity, what: broker.BypassSeen}
		for _, m := range d.Messages {
			if m.UID == 0 {
				t.all = true
			} else {
				t.uids = append(t.uids, uidRange{m.UID, m.UID})
			}
		}
		t.uids = normal(t.uids)
		x.touched = append(x.touched, t)
	case broker.MessageChange:
		x.change(e.Type, &d)
	case broker.MessageAppend:
		x.name(d.MessageID)
		t := touched{folder: d.Folder, what: broker.BypassAdded}
		t.destination(d.AppendUID, 1)
		if !t.all || d.MessageID == "" {
			x.touched = append(x.touched, t)
		}
	case broker.MessageFiling:
		x.name(d.MessageID)
	case broker.SendIntent:
		x.name(d.MessageID)
		x.sent = true
	case broker.FolderChange:
		if d.Command == "DELETE" || d.Command == "RENAME" { // no other command takes a folder away
			x.folders = append(x.folders, d.Folder)
		}
		if d.Command == "RENAME" && d.Folder == "INBOX" { // whose messages move
			x.touched = append(x.touched, touched{folder: d.Folder, what: broker.BypassRemoved, all: true})
		}
	case broker.SessionEnd:
		if d.Reason == broker.EndStale || d.Reason == broker.EndRecord {
			x.everything = true
		}
	}
}

func (x *explained) name(id string) {
	if id = bareID(id); id != "" {
		x.ids[id] = true
	}
}

// bareID is a Message-ID as it is compared.
func bareID(id string) string { return strings.ToLower(strings.Trim(id, "<> \t")) }

func (x *explained) change(kind broker.EventType, d *broker.MessageChange) {
	t := touched{folder: d.Folder, validity: d.UIDValidity}
	set, ok := parseUIDs(d.Set)
	t.uids, t.all = set, !ok || !d.UIDs
	switch kind {
	case broker.EventMessageFlag:
		if strings.Contains(strings.ToUpper(d.Flags), "X-GM-LABELS") {
			x.labels = true
			return
		}
		t.what, t.flags = broker.BypassFlags, flagsOf(d.Flags)
		x.touched = append(x.touched, t)
	case broker.EventMessageExpunge:
		t.what = broker.BypassRemoved
		if d.Set == "" { // EXPUNGE, CLOSE
			t.all, t.deleted = false, true
		}
		x.touched = append(x.touched, t)
	case broker.EventMessageCopy, broker.EventMessageMove:
		if kind == broker.EventMessageMove {
			t.what = broker.BypassRemoved
			if t.all {
				t.source(d.CopyUID)
			}
			x.touched = append(x.touched, t)
		}
		to := touched{folder: d.Target, what: broker.BypassAdded}
		to.destination(d.CopyUID, 2)
		x.touched = append(x.touched, to)
	}
}

// destination reads where messages arrived, of a COPYUID or APPENDUID (RFC 4315).
func (t *touched) destination(code string, field int) {
	fields := strings.Fields(code)
	t.all = true
	if len(fields) <= field {
		return
	}
	validity, ok1 := parseUID(fields[0])
	set, ok2 := parseUIDs(fields[field])
	if ok1 && ok2 {
		t.validity, t.uids, t.all = validity, set, false
	}
}

// source reads which messages were moved, of a COPYUID.
func (t *touched) source(code string) {
	if fields := strings.Fields(code); len(fields) == 3 {
		if set, ok := parseUIDs(fields[1]); ok {
			t.uids, t.all = set, false
		}
	}
}

// flagsOf reads the flags of a STORE, in lower case; nil: any.
func flagsOf(text string) []string {
	item, list, ok := strings.Cut(text, " ")
	if !ok || !strings.HasPrefix(item, "+") && !strings.HasPrefix(item, "-") || strings.HasSuffix(text, "…") {
		return nil // it replaces what was there
	}
	return strings.Fields(strings.ToLower(strings.Trim(list, "()")))
}

func (t *touched) changes(flag string) bool {
	if t.flags == nil {
		return true
	}
	for _, f := range t.flags {
		if f == flag {
			return true
		}
	}
	return false
}

// in reports whether something was done in a folder: under its name, or under one
// that is not listed and leads to the same one. Two that are listed are two, though
// many servers give them one UIDVALIDITY.
func (x *explained) in(t *touched, folder string, validity uint32) bool {
	return t.folder == folder || t.validity != 0 && t.validity == validity && !x.names[t.folder]
}

// left returns the messages of a suspect that nothing explains.
func (x *explained) left(s *broker.Suspect) uids {
	set, _ := parseUIDs(s.UIDs)
	flag := strings.ToLower(s.Flag)
	switch {
	case x.everything, x.labels && s.What != broker.BypassAdded:
		return nil
	case s.What == broker.BypassFlags && x.sent && (flag == `\answered` || flag == "$forwarded"):
		return nil // servers mark what a message that they send answers
	}
	deleted, _ := parseUIDs(s.Deleted)
	expunged := false
	for i := range x.touched {
		t := &x.touched[i]
		here := x.in(t, s.Folder, s.UIDValidity)
		if !here && !x.anywhere {
			continue
		}
		switch {
		case t.deleted && s.What == broker.BypassRemoved:
			expunged = true
			continue
		case t.what == broker.BypassFlags && s.What == broker.BypassRemoved:
			// What was marked for deletion is removed by whoever expunges.
			if t.changes(`\deleted`) {
				if t.all || !here {
					deleted = set
				}
				deleted = deleted.union(t.uids)
				expunged = expunged || x.anywhere // Gmail does, unless it is told otherwise
			}
			continue
		case t.what == s.What && t.what != broker.BypassFlags:
		case t.what == broker.BypassFlags && (s.What == broker.BypassSeen || s.What == broker.BypassFlags) && t.changes(flag):
		default:
			continue
		}
		if t.all || !here {
			return nil
		}
		set = set.minus(t.uids)
	}
	if expunged {
		set = set.minus(deleted)
	}
	if s.What == broker.BypassAdded {
		for _, m := range s.Messages {
			if x.ids[bareID(m.MessageID)] {
				set = set.minus(uids{{m.UID, m.UID}})
			}
		}
	}
	return set
}

// folder reports whether what became of a folder is explained.
func (x *explained) folder(name string, delimiter byte) bool {
	if x.everything || x.labels {
		return true
	}
	for _, f := range x.folders {
		if f == name || f != "" && strings.HasPrefix(name, f+string(rune(delimiter))) {
			return true
		}
	}
	return false
}
