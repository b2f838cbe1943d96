// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
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
	// headRead is how much of a header field is asked for, in octets.
	headRead = 512
	// A server may say baseRead octets in answer to a command, and perMessage more
	// for each message that it was asked for, in lines of maxLine: imapclient has no limit of
	// its own. That is far above what servers say, or whoever sets keywords could
	// keep a folder from being read.
	baseRead, perMessage = 1 << 20, 2 << 10
	maxLine              = 256 << 10
)

// boundedConn gives a client that expects a greeting one that says that it is
// logged in, and then what the connection holds, up to limits.
type boundedConn struct {
	*broker.IMAPConn
	reader io.Reader
	// left is how much more the server may say, line how long its line is so far.
	left atomic.Int64
	line int
}

func newBoundedConn(c *broker.IMAPConn) *boundedConn {
	return &boundedConn{IMAPConn: c, reader: io.MultiReader(
		strings.NewReader("* PREAUTH ready\r\n"), bytes.NewReader(c.Buffered), c.Conn,
	)}
}

// asked says that an answer about messages is to come.
func (c *boundedConn) asked(messages int) { c.left.Store(baseRead + int64(messages)*perMessage) }

// Read is the greeting, then the connection.
func (c *boundedConn) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	for rest := p[:n]; ; {
		line, after, more := bytes.Cut(rest, []byte("\n"))
		if c.line += len(line); c.line > maxLine {
			return 0, errors.New("the server's line is too long")
		}
		if !more {
			break
		}
		c.line, rest = 0, after
	}
	if c.left.Add(-int64(n)) < 0 {
		return 0, errors.New("the server says more than it was asked for")
	}
	return n, err
}

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
func (r *reading) status(f listed) (*broker.WatchedFolder, error) {
	r.bounds.asked(0)
	data, err := r.client.Status(f.name, &imap.StatusOptions{
		NumMessages: true, UIDNext: true, UIDValidity: true, HighestModSeq: r.client.Caps().Has(imap.CapCondStore),
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
func (r *reading) readFolder(ctx context.Context, f *broker.WatchedFolder, old *kept) (*kept, error) {
	r.bounds.asked(0)
	selected, err := r.client.Select(f.Name, &imap.SelectOptions{ReadOnly: true}).Wait()
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
	err = r.fetch(ctx, set, int(min(selected.NumMessages, maxMessages)), &imap.FetchOptions{UID: true, Flags: true},
		func(m *imapclient.FetchMessageBuffer) { now.add(uint32(m.UID), m.Flags) })
	if err != nil {
		return nil, err
	}
	now.order()
	var unnamed uids
	n := 0
	for uid := range now.all.each() {
		if n++; n > maxNamed {
			break
		}
		id, known := old.ids[uid]
		if !known {
			unnamed.add(uid)
			continue
		}
		now.ids[uid] = id
	}
	return now, r.messageIDs(ctx, normal(unnamed), now.ids)
}

// messageIDs asks for the Message-IDs of messages in the folder at hand.
func (r *reading) messageIDs(ctx context.Context, set uids, into map[uint32]string) error {
	if len(set) == 0 {
		return nil
	}
	var numbers imap.UIDSet
	for _, x := range set {
		numbers.AddRange(imap.UID(x.from), imap.UID(x.to))
	}
	header := &imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Message-ID"}, Peek: true, Partial: &imap.SectionPartial{Size: headRead}}
	options := &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{header}}
	return r.fetch(ctx, numbers, set.len(), options, func(m *imapclient.FetchMessageBuffer) {
		for _, section := range m.BodySection {
			if set.has(uint32(m.UID)) {
				into[uint32(m.UID)] = messageID(section.Bytes)
			}
		}
	})
}

// fetch hands over what the server says of so many messages, one at a time, so
// that no more is held of it than is kept.
func (r *reading) fetch(ctx context.Context, set imap.NumSet, messages int, options *imap.FetchOptions, each func(*imapclient.FetchMessageBuffer)) error {
	r.bounds.asked(messages)
	command := r.client.Fetch(set, options)
	for n := 0; ; n++ {
		m := command.Next()
		if m == nil {
			return command.Close()
		}
		said, err := m.Collect()
		if err == nil {
			err = ctx.Err()
		}
		if n > 2*messages+maxNamed { // others may change them meanwhile
			err = errors.New("the server says more than it was asked for")
		}
		if err != nil {
			_ = r.conn.Close() // or the rest would be waited for
			_ = command.Close()
			return err
		}
		if said.UID != 0 {
			each(said)
		}
	}
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
