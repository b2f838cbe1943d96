// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"context"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/proxy"
)

// Correspondents knows who has to do with a mailbox.
type Correspondents interface {
	// Known reports whether exactly this address stands in From, Reply-To, To or
	// Cc of a message in the session's mailbox that did not come in through
	// Postern. An error says that it could not be told.
	Known(ctx context.Context, s broker.LiveSession, address Address) (bool, error)
}

// EventReader is the part of broker.EventStore that reads.
type EventReader interface {
	Events(ctx context.Context, q broker.EventQuery) ([]*broker.StoredEvent, error)
}

// IMAPCorrespondents asks the mailbox's IMAP server, on a connection of its
// own, and Postern's own record.
type IMAPCorrespondents struct {
	events EventReader

	mu    sync.Mutex
	firms map[broker.ID]*passage
}

var _ Correspondents = (*IMAPCorrespondents)(nil)

// NewIMAPCorrespondents makes one that reads the record from events.
func NewIMAPCorrespondents(events EventReader) *IMAPCorrespondents {
	return &IMAPCorrespondents{events: events, firms: make(map[broker.ID]*passage)}
}

// maxFound and maxEvidence are how many of the newest messages in one folder
// are looked at: those that SEARCH found, and those that name the address.
// Whoever sends mail can make it more, but then each of those is evidence.
const (
	maxFound    = 50
	maxEvidence = 10
)

// Known implements Correspondents. Folders are asked one after another, INBOX
// first, until one has it. The record is read after the messages: what was in
// the mailbox by then was in the record before.
func (c *IMAPCorrespondents) Known(ctx context.Context, s broker.LiveSession, address Address) (bool, error) {
	conn, err := s.DialIMAP(ctx)
	if err != nil {
		return false, err
	}
	client := imapclient.New(newPreauthConn(conn), nil)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = client.Close() // nothing more is wanted of it
	}()
	if err := client.WaitGreeting(); err != nil {
		return false, err
	}
	folders, err := foldersOf(client, s.Decision())
	if err != nil {
		return false, err
	}
	for _, folder := range folders {
		ids, err := evidenceIn(client, folder, address)
		if err != nil {
			return false, err
		}
		if len(ids) == 0 {
			continue
		}
		own, err := c.passed(ctx, s.Record().FirmID, s.Mailbox().ID, ids)
		if err != nil {
			return false, err
		}
		if !own {
			return true, nil
		}
	}
	return false, nil
}

// foldersOf lists what can be selected and the session may see, INBOX first: of
// hidden folders the answer must tell nothing.
func foldersOf(client *imapclient.Client, d *policy.Decision) ([]string, error) {
	list, err := client.List("", "*", nil).Collect()
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, f := range list {
		switch {
		case slices.Contains(f.Attrs, imap.MailboxAttrNoSelect), slices.Contains(f.Attrs, imap.MailboxAttrNonExistent),
			f.Delim >= utf8.RuneSelf, !d.Visible(f.Mailbox, byte(f.Delim)):
		case strings.EqualFold(f.Mailbox, "INBOX"):
			folders = slices.Insert(folders, 0, f.Mailbox)
		default:
			folders = append(folders, f.Mailbox)
		}
	}
	return folders, nil
}

// evidenceIn returns the Message-IDs of the messages in a folder that name the
// address. SEARCH matches substrings, and may lie: the parsed ENVELOPE decides.
// A message without one plain Message-ID could not be known again, if an agent
// had put it there: it is none.
func evidenceIn(client *imapclient.Client, folder string, address Address) ([]string, error) {
	if _, err := client.Select(folder, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		return nil, err
	}
	criteria := func(field string) imap.SearchCriteria {
		return imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: field, Value: address.String()}}}
	}
	found, err := client.UIDSearch(&imap.SearchCriteria{Or: [][2]imap.SearchCriteria{{
		{Or: [][2]imap.SearchCriteria{{criteria("From"), criteria("Reply-To")}}},
		{Or: [][2]imap.SearchCriteria{{criteria("To"), criteria("Cc")}}},
	}}}, nil).Wait()
	if err != nil {
		return nil, err
	}
	uids := newest(found.All, maxFound)
	if len(uids) == 0 {
		return nil, nil
	}
	messages, err := client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{UID: true, Envelope: true}).Collect()
	if err != nil {
		return nil, err
	}
	uids = uids[:0]
	for _, m := range messages {
		if m.Envelope != nil && m.UID != 0 && names(m.Envelope, address) {
			uids = append(uids, m.UID)
		}
	}
	if len(uids) == 0 {
		return nil, nil
	}
	slices.Sort(uids)
	uids = uids[max(0, len(uids)-maxEvidence):]
	header := &imap.FetchItemBodySection{
		Specifier: imap.PartSpecifierHeader, Peek: true, Partial: &imap.SectionPartial{Size: proxy.MaxPlainHeader + 1},
	}
	messages, err = client.Fetch(imap.UIDSetNum(uids...), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{header}}).Collect()
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range messages {
		for _, section := range m.BodySection {
			if id, err := proxy.PlainMessageID(section.Bytes); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// newest returns the last n of a set, which a server may have made of ranges
// that are too long to be written out.
func newest(set imap.NumSet, n int) (uids []imap.UID) {
	ranges, _ := set.(imap.UIDSet)
	for _, r := range slices.Backward(ranges) {
		for uid := r.Stop; uid >= r.Start && r.Start > 0 && len(uids) < n; uid-- {
			uids = append(uids, uid)
		}
	}
	return uids
}

// names reports whether an envelope has exactly the address. Display names and
// comments are none of it; a group's name has no host.
func names(e *imap.Envelope, address Address) bool {
	for _, list := range [][]imap.Address{e.From, e.ReplyTo, e.To, e.Cc} {
		for _, a := range list {
			if a.Mailbox != "" && a.Host != "" && asciiLower(a.Mailbox+"@"+a.Host) == address.Key() {
				return true
			}
		}
	}
	return false
}

// passage is what passed Postern into or out of a firm's mailboxes, as far as
// the record was read.
type passage struct {
	mu    sync.Mutex
	after map[broker.EventType]int64
	ids   map[passed]struct{}
}

type passed struct {
	mailbox broker.ID
	id      string
}

// passed reports whether all of these messages passed Postern: they were
// appended, or submitted, by an agent.
func (c *IMAPCorrespondents) passed(ctx context.Context, firm, mailbox broker.ID, ids []string) (bool, error) {
	c.mu.Lock()
	p := c.firms[firm]
	if p == nil {
		p = &passage{after: make(map[broker.EventType]int64), ids: make(map[passed]struct{})}
		c.firms[firm] = p
	}
	c.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range []broker.EventType{broker.EventMessageFiling, broker.EventMessageAppend, broker.EventSendIntent} {
		if err := p.read(ctx, c.events, firm, kind); err != nil {
			return false, err
		}
	}
	for _, id := range ids {
		if _, own := p.ids[passed{mailbox, asciiLower(id)}]; !own {
			return false, nil
		}
	}
	return true, nil
}

// read reads on where it stopped: what it has read it keeps, if it has to stop
// again.
func (p *passage) read(ctx context.Context, events EventReader, firm broker.ID, kind broker.EventType) error {
	const page = 1000
	if _, begun := p.after[kind]; !begun {
		p.after[kind] = -1
	}
	for {
		list, err := events.Events(ctx, broker.EventQuery{FirmID: firm, Type: kind, After: p.after[kind], Limit: page})
		if err != nil {
			return err
		}
		for _, e := range list {
			id := ""
			switch data := e.Data.(type) {
			case broker.MessageFiling:
				id = data.MessageID
			case broker.MessageAppend:
				id = data.MessageID
			case broker.SendIntent:
				id = data.MessageID
			}
			if id != "" {
				p.ids[passed{e.MailboxID, asciiLower(id)}] = struct{}{}
			}
			p.after[kind] = e.Seq
		}
		if len(list) < page {
			return nil
		}
	}
}
