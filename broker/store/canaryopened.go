// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/postern-mail/postern/broker"
)

// maxBursts is how many sessions are kept in mind before those at rest are
// forgotten.
const maxBursts = 1024

// canaryWatch is what the writer knows of canaries, so that openings cost nothing
// in mailboxes that have none, and no query elsewhere until the policy changes. It
// belongs to the writer's goroutine.
type canaryWatch struct {
	// marked are canaries by mailbox, as of a policy revision: those of the
	// mailboxes that something was opened in since.
	marked   map[broker.ID][]*broker.Canary
	revision int64
	// bursts are sessions in mailboxes with canaries.
	bursts map[broker.ID]*burst
}

// burst is what a session has opened within broker.CanaryBulkWithin.
type burst struct {
	since    time.Time
	messages int
	// opened are the canaries among it, until it is known to be a download.
	opened []*broker.Event
}

// policyRevision reads the policy's revision, which stays the same during a
// transaction that only appends.
func (t *tx) policyRevision() (int64, error) {
	if t.revision == 0 {
		rows, err := t.query(selectRevision)
		if err != nil {
			return 0, err
		}
		if err := scanOne(rows, &t.revision); err != nil {
			return 0, err
		}
	}
	return t.revision, nil
}

// marked returns a mailbox's canaries. What a transaction reads that changes the
// policy itself is not kept: it may yet be undone.
func (t *tx) marked(mailbox broker.ID) ([]*broker.Canary, error) {
	read := func() ([]*broker.Canary, error) {
		return many[broker.Canary](t.query, kindCanary, canariesOf, string(mailbox))
	}
	if len(t.changes) > 0 {
		return read()
	}
	revision, err := t.policyRevision()
	if err != nil {
		return nil, err
	}
	w := &t.store.canaries
	if w.marked == nil || w.revision != revision {
		w.marked, w.revision = make(map[broker.ID][]*broker.Canary), revision
	}
	all, known := w.marked[mailbox]
	if !known {
		if all, err = read(); err != nil {
			return nil, err
		}
		w.marked[mailbox] = all
	}
	return all, nil
}

// openCanaries adds to an event that was just written those which say that it
// tells the opening of canaries.
func (t *tx) openCanaries(p *pending) error {
	if p.ended != nil {
		delete(t.store.canaries.bursts, p.session)
	}
	if p.mailbox == "" || !broker.TellsOpenings(p.typ) {
		return nil
	}
	marked, err := t.marked(p.mailbox)
	if err != nil || len(marked) == 0 {
		return err
	}
	var data json.RawMessage
	e := broker.Event{Data: &data}
	record := append(strconv.AppendInt(append([]byte(nil), p.prefix...), p.seq, 10), p.suffix...)
	if err := json.Unmarshal(record, &e); err != nil {
		return err
	}
	found, messages, err := broker.CanariesIn(&e, marked)
	if err != nil {
		return notRecordable(&e, err)
	}
	t.counted = append(t.counted, p.session)
	b := t.store.canaries.burst(p, messages)
	for _, m := range found {
		opened := &broker.Event{
			Type: broker.EventCanaryOpened, FirmID: e.FirmID, Actor: e.Actor,
			SessionID: e.SessionID, AgentID: e.AgentID, WorkstationID: e.WorkstationID, MailboxID: e.MailboxID,
			Data: broker.CanaryOpened{Canary: m.Canary.ID, Opening: e.ID, How: m.How, Messages: b.messages},
		}
		if b.messages < broker.CanaryBulk {
			b.opened = append(b.opened, opened)
		}
		if err := t.appendEvent(opened); err != nil {
			return err
		}
	}
	return t.downloaded(b)
}

// burst counts what a session has opened.
func (w *canaryWatch) burst(p *pending, messages int) *burst {
	over := func(b *burst) bool { return p.time.Sub(b.since).Abs() > broker.CanaryBulkWithin }
	b := w.bursts[p.session]
	if b == nil {
		if len(w.bursts) >= maxBursts {
			for id, other := range w.bursts {
				if over(other) {
					delete(w.bursts, id)
				}
			}
		}
		if w.bursts == nil {
			w.bursts = make(map[broker.ID]*burst)
		}
		b = new(burst)
		w.bursts[p.session] = b
	}
	if over(b) {
		*b = burst{since: p.time}
	}
	b.messages += messages
	return b
}

// forget drops what sessions have opened, of which a transaction that failed has
// counted what is not on record: it comes again.
func (w *canaryWatch) forget(sessions []broker.ID) {
	for _, id := range sessions {
		delete(w.bursts, id)
	}
}

// downloaded says of canaries that were opened before the session was known to
// download that they were a part of it.
func (t *tx) downloaded(b *burst) error {
	if b.messages < broker.CanaryBulk {
		return nil
	}
	for _, e := range b.opened {
		more := *e
		more.ID, more.Type, more.Version = "", broker.EventCanaryDownloaded, 0
		data := e.Data.(broker.CanaryOpened)
		data.Messages = b.messages
		more.Data = data
		if err := t.appendEvent(&more); err != nil {
			return err
		}
	}
	b.opened = nil
	return nil
}
