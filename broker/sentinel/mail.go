// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
)

const (
	// maxFolders, maxMessages and maxNamed bound what is looked at: of a mailbox
	// the folders that matter most, of a folder the newest messages, and of those
	// the ones whose Message-IDs are kept.
	maxFolders  = 50
	maxMessages = 10000
	maxNamed    = 500
	// maxFetched is how many Message-IDs are asked for a change.
	maxFetched = 50
	// maxMessageID cuts what senders wrote, in octets.
	maxMessageID = 300
	// maxRead bounds what a server may say in one look, in octets: imapclient has
	// no limit of its own.
	maxRead = 64 << 20
)

// preauthConn gives a client that expects a greeting one that says that it is
// logged in, and then what the connection holds, up to a limit.
type preauthConn struct {
	*broker.IMAPConn
	reader io.Reader
}

func newClient(c *broker.IMAPConn) *imapclient.Client {
	return imapclient.New(&preauthConn{c, io.MultiReader(
		strings.NewReader("* PREAUTH ready\r\n"), bytes.NewReader(c.Buffered), io.LimitReader(c.Conn, maxRead),
	)}, nil)
}

// Read is the greeting, then the connection.
func (c *preauthConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// listed is a folder that the server lists.
type listed struct {
	name      string
	delimiter byte
	// own says that nobody delivers there, trash that servers remove there what
	// is old.
	own, trash    bool
	rank, watched int
}

// uses are the special uses of folders, their usual names in lower case, and in
// which order they matter.
func uses() []struct {
	attr       imap.MailboxAttr
	names      []string
	own, trash bool
} {
	return []struct {
		attr       imap.MailboxAttr
		names      []string
		own, trash bool
	}{
		{imap.MailboxAttrSent, []string{"sent", "sent items", "sent messages", "sent mail"}, true, false},
		{imap.MailboxAttrDrafts, []string{"drafts", "draft"}, true, false},
		{imap.MailboxAttrArchive, []string{"archive", "archives"}, false, false},
		{imap.MailboxAttrTrash, []string{"trash", "deleted items", "deleted messages", "bin"}, false, true},
		{imap.MailboxAttrJunk, []string{"junk", "junk email", "junk e-mail", "spam"}, false, true},
	}
}

// arrange returns what is looked at, what matters most first, and all names of
// folders that are there.
func arrange(list []listedName, watched []broker.WatchedFolder) (folders []listed, names map[string]bool) {
	marked := map[imap.MailboxAttr]bool{}
	for _, u := range uses() {
		marked[u.attr] = slices.ContainsFunc(list, func(n listedName) bool { return n.has(u.attr) })
	}
	names = make(map[string]bool)
	for _, n := range list {
		x := listed{name: n.name, delimiter: n.delimiter, rank: len(uses()) + 1}
		if strings.EqualFold(x.name, "INBOX") {
			x.name, x.rank = "INBOX", 0
		}
		if n.has(imap.MailboxAttrNoSelect) || n.has(imap.MailboxAttrNonExistent) {
			continue // it is a name that others stand below
		}
		names[x.name] = true
		last := strings.ToLower(x.name)
		if x.delimiter != 0 {
			last = last[strings.LastIndexByte(last, x.delimiter)+1:]
		}
		for i, u := range uses() {
			if n.has(u.attr) || !marked[u.attr] && slices.Contains(u.names, last) {
				x.own, x.trash, x.rank = u.own, u.trash, i+1
			}
		}
		// Of these the messages lie in others.
		if n.writable && !n.has(imap.MailboxAttrAll) && !n.has(imap.MailboxAttrFlagged) && !n.has(imap.MailboxAttrImportant) {
			folders = append(folders, x)
		}
	}
	return foremost(folders, watched), names
}

// foremost are the folders that are looked at, the special ones first. Those that
// are watched come before others, so that nobody has one forgotten by making many.
func foremost(folders []listed, watched []broker.WatchedFolder) []listed {
	for i := range folders {
		if f := &folders[i]; slices.ContainsFunc(watched, func(w broker.WatchedFolder) bool { return w.Name == f.name }) {
			f.watched = 0
		} else {
			f.watched = 1
		}
	}
	slices.SortStableFunc(folders, func(a, b listed) int {
		return cmp.Or(cmp.Compare(a.watched, b.watched), cmp.Compare(a.rank, b.rank), strings.Compare(a.name, b.name))
	})
	return folders[:min(len(folders), maxFolders)]
}

// status asks how a folder stands.
func status(c *imapclient.Client, f listed) (*broker.WatchedFolder, error) {
	data, err := c.Status(f.name, &imap.StatusOptions{
		NumMessages: true, UIDNext: true, UIDValidity: true, HighestModSeq: c.Caps().Has(imap.CapCondStore),
	}).Wait()
	if err != nil {
		return nil, err
	}
	w := &broker.WatchedFolder{
		Name: f.name, Delimiter: f.delimiter, UIDValidity: data.UIDValidity, UIDNext: uint32(data.UIDNext), ModSeq: data.HighestModSeq,
	}
	if data.NumMessages != nil {
		w.Messages = *data.NumMessages
	}
	return w, nil
}

// readFolder reads the newest messages' UIDs and flags, and the Message-IDs that
// old does not have. Nothing is changed by it.
func readFolder(ctx context.Context, c *imapclient.Client, f *broker.WatchedFolder, old *kept) (*kept, error) {
	selected, err := c.Select(f.Name, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return nil, err
	}
	now := newKept()
	if selected.NumMessages == 0 {
		return now, nil
	}
	var set imap.SeqSet
	set.AddRange(1, 0)
	if n := selected.NumMessages; n > maxMessages {
		set = imap.SeqSet{}
		set.AddRange(n-maxMessages+1, 0)
	}
	messages, err := c.Fetch(set, &imap.FetchOptions{UID: true, Flags: true}).Collect()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(messages, func(a, b *imapclient.FetchMessageBuffer) int { return cmp.Compare(a.UID, b.UID) })
	for _, m := range messages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if m.UID == 0 {
			continue
		}
		now.all.add(uint32(m.UID))
		for _, flag := range m.Flags {
			name := strings.ToLower(string(flag))
			flagged := now.flags[name]
			flagged.add(uint32(m.UID))
			now.flags[name] = flagged
		}
	}
	now.cutFlags()
	var unnamed uids
	n := 0
	for uid := range now.all.each() {
		if n++; n > maxNamed {
			break
		}
		id, known := old.ids[uid]
		if !known {
			unnamed = append(unnamed, uidRange{uid, uid})
			continue
		}
		now.ids[uid] = id
	}
	return now, messageIDs(c, normal(unnamed), now.ids)
}

// messageIDs asks for the Message-IDs of messages in the folder at hand.
func messageIDs(c *imapclient.Client, set uids, into map[uint32]string) error {
	if len(set) == 0 {
		return nil
	}
	var numbers imap.UIDSet
	for _, r := range set {
		numbers.AddRange(imap.UID(r.from), imap.UID(r.to))
	}
	header := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Message-ID"}, Peek: true}
	messages, err := c.Fetch(numbers, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{header}}).Collect()
	if err != nil {
		return err
	}
	for _, m := range messages {
		for _, section := range m.BodySection {
			into[uint32(m.UID)] = messageID(section.Bytes)
		}
	}
	return nil
}

// messageID reads the one field that was asked for.
func messageID(header []byte) string {
	name, value, _ := strings.Cut(string(header), ":")
	if !strings.EqualFold(strings.TrimSpace(name), "Message-ID") {
		return ""
	}
	value = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, value)
	value = strings.TrimSpace(value)
	return strings.ToValidUTF8(value[:min(len(value), maxMessageID)], "")
}
