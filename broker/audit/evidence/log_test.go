// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/logcopy"
	"github.com/postern-mail/postern/broker/translog"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeLog is a log in memory, and a Source of it.
type fakeLog struct {
	t       testing.TB
	origin  translog.Origin
	signers []note.Signer
	keys    []string
	entries []*logcopy.Entry
	stored  []tlog.Hash
	random  *rand.Rand
	// size is how many of the entries its checkpoint has; 0: all.
	size int64
	// cosigned are what witnesses have cosigned.
	cosigned [][]byte
	// waiting are events that are recorded in the order of their time.
	waiting []broker.Event
}

// later keeps an event for settle.
func (l *fakeLog) later(e broker.Event) { l.waiting = append(l.waiting, e) }

func (l *fakeLog) settle() {
	l.t.Helper()
	slices.SortStableFunc(l.waiting, func(a, b broker.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range l.waiting {
		l.append(e)
	}
	l.waiting = nil
}

func newFakeLog(t testing.TB) *fakeLog {
	t.Helper()
	l := &fakeLog{t: t, origin: translog.Origin{FirmID: broker.NewID(), Epoch: broker.NewID()}, random: rand.New(rand.NewPCG(1, 2))}
	l.addKey()
	return l
}

func (l *fakeLog) addKey() {
	l.t.Helper()
	private, public, err := note.GenerateKey(nil, l.origin.String())
	must(l.t, err)
	s, err := note.NewSigner(private)
	must(l.t, err)
	l.signers, l.keys = append(l.signers, s), append(l.keys, public)
}

// append records an event.
func (l *fakeLog) append(e broker.Event) {
	l.t.Helper()
	if e.ID == "" {
		e.ID = broker.NewID()
	}
	e.FirmID, e.Seq, e.Version = l.origin.FirmID, int64(len(l.entries)), 1
	record, err := json.Marshal(e)
	must(l.t, err)
	salt := make([]byte, translog.SaltSize)
	for i := range salt {
		salt[i] = byte(l.random.Uint32())
	}
	leaf := tlog.RecordHash(append(salt, record...))
	l.addEntry(&logcopy.Entry{Seq: e.Seq, Record: record, Salt: hex.EncodeToString(salt), Leaf: hex.EncodeToString(leaf[:])}, leaf)
}

func (l *fakeLog) addEntry(e *logcopy.Entry, leaf tlog.Hash) {
	l.t.Helper()
	hashes, err := tlog.StoredHashesForRecordHash(e.Seq, leaf, l)
	must(l.t, err)
	l.stored = append(l.stored, hashes...)
	l.entries = append(l.entries, e)
}

// ReadHashes reads the tree.
func (l *fakeLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.stored[x]
	}
	return out, nil
}

// at is the checkpoint of the first size events.
func (l *fakeLog) at(size int64) *translog.Checkpoint {
	l.t.Helper()
	root, err := tlog.TreeHash(size, l)
	must(l.t, err)
	return &translog.Checkpoint{Origin: l.origin, Size: size, Root: root}
}

func (l *fakeLog) sign(c *translog.Checkpoint) []byte {
	l.t.Helper()
	signed, err := note.Sign(&note.Note{Text: c.Text()}, l.signers...)
	must(l.t, err)
	return signed
}

func (l *fakeLog) now() int64 {
	if l.size > 0 {
		return l.size
	}
	return int64(len(l.entries))
}

// Checkpoint, Tile, Entries and Entry serve it.
func (l *fakeLog) Checkpoint(context.Context) ([]byte, error) { return l.sign(l.at(l.now())), nil }

func (l *fakeLog) Witnessed(context.Context) ([][]byte, error) { return l.cosigned, nil }

func (l *fakeLog) Tile(_ context.Context, level int, number int64, width int) ([]byte, error) {
	return tlog.ReadTileData(tlog.Tile{H: translog.TileHeight, L: level, N: number, W: width}, l)
}

func (l *fakeLog) Entries(_ context.Context, first int64) ([]*logcopy.Entry, error) {
	return l.entries[first:min(first+100, int64(len(l.entries)))], nil
}

func (l *fakeLog) Entry(_ context.Context, seq int64) (*logcopy.Entry, error) {
	if seq >= int64(len(l.entries)) {
		return nil, fmt.Errorf("there is no event %d", seq)
	}
	return l.entries[seq], nil
}

// request asks for a bundle of all of it.
func (l *fakeLog) request() *Request {
	return &Request{
		Source: l, KeyLines: l.keys, KeysGiven: true, Maker: "firm-auditor priya", Postern: "v1.2.3", Firm: "Acme Pumps",
		Now: func() time.Time { return begin.AddDate(0, 1, 0) },
	}
}

func (l *fakeLog) trusted() *translog.Keys {
	l.t.Helper()
	keys, err := translog.ParseKeys(l.keys[0])
	must(l.t, err)
	return keys
}

// begin is when the stories begin: all of them are over.
var begin = time.Date(2020, 11, 2, 3, 30, 0, 0, time.UTC)

// cast are who and what is in the stories.
type cast struct {
	agents, mailboxes, machines []broker.ID
	names                       map[broker.ID]string
}

func newCast(agents, mailboxes int) *cast {
	c := &cast{names: make(map[broker.ID]string)}
	for i := range agents {
		id, machine := broker.NewID(), broker.NewID()
		c.agents, c.machines = append(c.agents, id), append(c.machines, machine)
		c.names[id] = []string{"asha", "ravi", "meera", "joseph", "lakshmi", "arun"}[i%6]
		c.names[machine] = fmt.Sprintf("pune-%02d", i+1)
	}
	for i := range mailboxes {
		id := broker.NewID()
		c.mailboxes = append(c.mailboxes, id)
		c.names[id] = []string{"sales@acme.example", "orders@acme.example", "service@acme.example"}[i%3]
	}
	return c
}

// day has agents do a day's work in the log, the same for the same log.
func (c *cast) day(l *fakeLog, day int) {
	for i := range c.agents {
		at := begin.AddDate(0, 0, day).Add(time.Duration(i*17) * time.Minute)
		for range 2 + (day+i)%3 {
			at = c.session(l, i, (i+day)%len(c.mailboxes), at.Add(time.Duration(20+l.random.IntN(90))*time.Minute))
		}
	}
}

// session has an agent read, and write a mail, and returns when he has done so.
func (c *cast) session(l *fakeLog, agent, mailbox int, at time.Time) time.Time {
	session := broker.NewID()
	event := func(typ broker.EventType, data any) {
		l.later(broker.Event{
			Time: at, Type: typ, Actor: broker.Actor{Kind: "agent", Name: c.names[c.agents[agent]], ID: c.agents[agent]},
			SessionID: session, AgentID: c.agents[agent], MailboxID: c.mailboxes[mailbox], WorkstationID: c.machines[agent], Data: data,
		})
	}
	event(broker.EventSessionOpen, broker.SessionOpen{Session: broker.Session{ID: session, Protocol: broker.ProtocolIMAP, RemoteAddr: fmt.Sprintf("10.20.0.%d:5%03d", 10+agent, l.random.IntN(1000)), Authentication: broker.AuthAppPassword}})
	opened := 0
	for range 1 + l.random.IntN(5) {
		at = at.Add(time.Duration(40+l.random.IntN(400)) * time.Second)
		uid := uint32(100 + l.random.IntN(4000))
		opened++
		event(broker.EventMessageOpen, broker.MessageOpen{Folder: "INBOX", UIDValidity: 7, Messages: []broker.OpenedMessage{
			{UID: uid, Seq: uid, Section: "BODY[]", Octets: int64(900 + l.random.IntN(90000)), MessageID: fmt.Sprintf("<order-%d@buyer.example>", uid)},
		}})
		event(broker.EventMessageFlag, broker.MessageChange{Folder: "INBOX", UIDValidity: 7, Set: fmt.Sprint(uid), UIDs: true, Flags: `+FLAGS (\Answered)`})
		if l.random.IntN(3) == 0 {
			intent, sum := broker.NewID(), sha256.Sum256(fmt.Appendf(nil, "%d", uid))
			id := fmt.Sprintf("<answer-%d@acme.example>", uid)
			event(broker.EventSendIntent, broker.SendIntent{
				Intent: intent, MailFrom: "sales@acme.example", HeaderFrom: "sales@acme.example",
				Recipients: []string{"buyer@market.example"}, MessageID: id, Octets: 2100, SHA256: hex.EncodeToString(sum[:]),
			})
			at = at.Add(time.Second)
			event(broker.EventSendResult, broker.SendResult{Intent: intent, MessageID: id, Outcome: "accepted", Answer: "250 2.0.0 queued as 4F2A1"})
		}
	}
	at = at.Add(3 * time.Minute)
	event(broker.EventSessionEnd, broker.SessionEnd{Reason: broker.EndLogout, BodyOctets: 41000, Opened: int64(opened)})
	return at
}

// incident is the end of a story: a leaver copies a folder at night, is refused
// what he may not do, and a password was changed.
func (c *cast) incident(l *fakeLog, at time.Time) {
	session := broker.NewID()
	event := func(typ broker.EventType, data any) {
		l.later(broker.Event{
			Time: at, Type: typ, Actor: broker.Actor{Kind: "agent", Name: c.names[c.agents[1]], ID: c.agents[1]},
			SessionID: session, AgentID: c.agents[1], MailboxID: c.mailboxes[0], WorkstationID: c.machines[1], Data: data,
		})
		at = at.Add(4 * time.Second)
	}
	event(broker.EventSessionOpen, broker.SessionOpen{Session: broker.Session{ID: session, Protocol: broker.ProtocolIMAP, RemoteAddr: "10.20.0.11:50122", Authentication: broker.AuthAppPassword}})
	for i := range 9 {
		open := broker.MessageOpen{Folder: "INBOX", UIDValidity: 7}
		for j := range 40 {
			uid := uint32(1000 + i*40 + j)
			open.Messages = append(open.Messages, broker.OpenedMessage{UID: uid, Seq: uid, Section: "BODY[]", Octets: 24000, MessageID: fmt.Sprintf("<order-%d@buyer.example>", uid)})
		}
		event(broker.EventMessageOpen, open)
	}
	event(broker.EventQuotaReached, broker.QuotaReached{Quota: "messages.hour", Folder: "INBOX"})
	event(broker.EventCommandRefused, broker.CommandRefused{Command: "UID COPY", Folder: hostile})
	event(broker.EventSendRefused, broker.SendRefused{Rule: "recipients", Address: "ravi@rival.example", Text: "The firm does not allow mail to ravi@rival.example."})
	event(broker.EventMessageAppend, broker.MessageAppend{Folder: "Sent", Octets: 100, SHA256: hex.EncodeToString(make([]byte, 32)), MessageID: hostile, Outcome: broker.ChangeUnanswered})
	l.later(broker.Event{Time: at, Type: broker.EventAuthFailed, Actor: broker.Actor{Kind: "stranger"}, MailboxID: c.mailboxes[0], Data: broker.AuthFailed{
		Protocol: broker.ProtocolIMAP, RemoteAddr: "203.0.113.9:40122", Username: hostile, Cause: "unknown-certificate",
	}})
	drift := broker.Event{ID: broker.NewID(), Time: at.Add(time.Minute), Type: broker.EventDrift, Actor: broker.Actor{Kind: "system", Name: "node-a"}, MailboxID: c.mailboxes[0], Data: broker.Drift{Protocol: broker.ProtocolIMAP, Answer: "[AUTHENTICATIONFAILED] Authentication failed."}}
	l.later(drift)
	l.later(broker.Event{Time: at.Add(time.Minute), Type: broker.EventAlertRaised, Actor: broker.Actor{Kind: "system"}, MailboxID: c.mailboxes[0], Data: broker.AlertRaised{AlertID: broker.NewID(), Kind: broker.AlertDrift, Severity: broker.SeverityCritical, Cause: drift.ID}})
	l.later(broker.Event{Time: at.Add(9 * time.Minute), Type: "delegation.updated", Actor: broker.Actor{Kind: "firm-admin", Name: "priya", ID: broker.NewID()}, MailboxID: c.mailboxes[0], Data: broker.StateChange{
		Before: json.RawMessage(`{"id":"x","actions":["read","send"],"hours":"any"}`), After: json.RawMessage(`{"id":"x","actions":["read"],"hours":"Mon-Fri 09:00-18:00"}`),
	}})
	l.later(broker.Event{Time: at.Add(10 * time.Minute), Type: broker.EventAlertAcknowledged, Actor: broker.Actor{Kind: "firm-admin", Name: "priya", ID: broker.NewID()}, MailboxID: c.mailboxes[0], Data: broker.AlertAnswered{Kind: broker.AlertDrift, Severity: broker.SeverityCritical, Count: 1, Note: "calling the provider"}})
}

// hostile is what a sender of mail, or an agent, may have written.
const hostile = "\u202Egnp.exe\u2066\u200B<script>alert(1)</script><img src=//evil.example/x>\"'>\x1b[2J\r\nZ\u0301\u0302\u0303\u0304\u0305\u0306 -- " +
	"aVeryLongWordWithoutAnySpaceThatWouldRunOutOfItsTableCellAndOverThePageIfNothingBrokeItSomewhereInTheMiddleOfIt" +
	"aVeryLongWordWithoutAnySpaceThatWouldRunOutOfItsTableCellAndOverThePageIfNothingBrokeItSomewhereInTheMiddleOfIt"

// story is a log of some days' work with an incident at the end.
func story(t testing.TB, days int) (*fakeLog, *cast) {
	t.Helper()
	l, c := newFakeLog(t), newCast(4, 2)
	for day := range days {
		c.day(l, day)
	}
	c.incident(l, begin.AddDate(0, 0, days-1).Add(16*time.Hour))
	l.settle()
	return l, c
}
