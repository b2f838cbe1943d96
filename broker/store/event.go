// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// saltSize is the salt of a leaf hash, in octets.
	saltSize = 16
	// recordOctets is what most records are shorter than.
	recordOctets = 1 << 10
)

// eventKind is what the store must know of a type of event.
type eventKind struct {
	version int
	data    reflect.Type
}

func eventKinds() map[broker.EventType]eventKind {
	kinds := make(map[broker.EventType]eventKind)
	for _, spec := range broker.Catalogue() {
		kinds[spec.Type] = eventKind{spec.Version, reflect.TypeOf(spec.Data)}
	}
	return kinds
}

// recordHead and recordTail are broker.Event's JSON form before and after
// "seq", which is not known until the transaction. A test compares them with
// broker.Event.
type recordHead struct {
	ID     broker.ID `json:"id"`
	Time   time.Time `json:"time"`
	FirmID broker.ID `json:"firm_id,omitempty"`
}

type recordTail struct {
	Type    broker.EventType `json:"type"`
	Version int              `json:"version"`
	Actor   broker.Actor     `json:"actor"`

	SessionID     broker.ID `json:"session_id,omitempty"`
	AgentID       broker.ID `json:"agent_id,omitempty"`
	WorkstationID broker.ID `json:"workstation_id,omitempty"`
	MailboxID     broker.ID `json:"mailbox_id,omitempty"`
}

// pending is an event ready to be written: it shares nothing with the event
// that it was made of.
type pending struct {
	log                     broker.ID
	typ                     broker.EventType
	session, mailbox, agent broker.ID
	time                    time.Time
	prefix, suffix          []byte // the record around its seq
	salt                    []byte
	opened                  *broker.Session
	ended                   *broker.SessionEnd
	alarms                  *alarms // nil: it does nothing to alerts
	seq                     int64
	leaf                    tlog.Hash
}

// eventRow is an event with its number, and its log's.
type eventRow struct {
	*pending
	logNumber int64
	record    []byte
}

// logHead is a log's state within one transaction.
type logHead struct {
	number, stored, next int64
	epoch                broker.ID
	tree                 translog.Tree
	complete             []translog.TileHash // not stored yet
	changed              bool
}

// AppendEvents makes events durable in one transaction, in their order, or
// none. It fills in Seq and PolicyRevision, and ID, Time and Version where they are empty. Data
// is the catalogue's struct of the type, or its JSON as json.RawMessage or
// *json.RawMessage. An event that cannot be stored is Invalid.
//
// When the error is Unavailable the events may have been stored all the same.
func (s *Store) AppendEvents(ctx context.Context, events []*broker.Event) error {
	if len(events) == 0 {
		return nil
	}
	batch, err := s.prepare(events)
	if err != nil {
		return err
	}
	var revision int64
	logs := logsOf(batch)
	err = s.await(ctx, appending, func(t *tx) error {
		for _, log := range logs {
			if _, err := t.head(log); err != nil {
				return err
			}
		}
		if err := t.appendPending(batch); err != nil {
			return err
		}
		var err error
		revision, err = t.policyRevision()
		return err
	})
	if err != nil {
		return err
	}
	for i, e := range events {
		e.Seq, e.PolicyRevision = batch[i].seq, revision
	}
	return nil
}

// logsOf returns the logs of a batch in the order in which everybody locks
// them, so that nobody waits for whoever waits for him.
func logsOf(batch []pending) []broker.ID {
	logs := make([]broker.ID, 0, 1)
	for i := range batch {
		if !slices.Contains(logs, batch[i].log) {
			logs = append(logs, batch[i].log)
		}
	}
	slices.Sort(logs)
	return logs
}

// prepare encodes events, on the caller's goroutine: the writer has the disk
// to wait for.
func (s *Store) prepare(events []*broker.Event) ([]pending, error) {
	batch := make([]pending, len(events))
	salts := make([]byte, saltSize*len(events))
	if _, err := rand.Read(salts); err != nil {
		return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
	}
	var arena bytes.Buffer
	arena.Grow(len(events) * recordOctets)
	enc := json.NewEncoder(&arena)
	enc.SetEscapeHTML(false) // Message-IDs stay readable
	// The arena moves as it grows: offsets first, slices at the end.
	ends := make([][2]int, len(events))
	for i, e := range events {
		p := &batch[i]
		p.salt = salts[i*saltSize : (i+1)*saltSize]
		if err := s.fill(p, e); err != nil {
			return nil, err
		}
		if err := enc.Encode(recordHead{e.ID, e.Time, e.FirmID}); err != nil {
			return nil, notRecordable(e, err)
		}
		arena.Truncate(arena.Len() - len("}\n"))
		arena.WriteString(`,"seq":`)
		ends[i][0] = arena.Len()
		if err := enc.Encode(recordTail{
			e.Type, e.Version, e.Actor, e.SessionID, e.AgentID, e.WorkstationID, e.MailboxID,
		}); err != nil {
			return nil, notRecordable(e, err)
		}
		if err := appendData(&arena, enc, e.Data); err != nil {
			return nil, notRecordable(e, err)
		}
		arena.Bytes()[ends[i][0]] = ',' // was the opening brace
		ends[i][1] = arena.Len()
	}
	all, start := arena.Bytes(), 0
	for i := range batch {
		batch[i].prefix = all[start:ends[i][0]]
		batch[i].suffix = all[ends[i][0]:ends[i][1]]
		start = ends[i][1]
	}
	return batch, nil
}

// appendData completes a record, which ends in "}\n", with the event's data.
// What is JSON already is copied without encoding/json's detour.
func appendData(arena *bytes.Buffer, enc *json.Encoder, data any) error {
	arena.Truncate(arena.Len() - len("}\n"))
	var raw json.RawMessage
	switch d := data.(type) {
	case nil:
	case json.RawMessage:
		raw = d
	case *json.RawMessage:
		raw = *d
	default: // its struct
		arena.WriteString(`,"data":`)
		if err := enc.Encode(data); err != nil {
			return err
		}
		arena.Truncate(arena.Len() - len("\n"))
	}
	if raw != nil {
		arena.WriteString(`,"data":`)
		if err := json.Compact(arena, raw); err != nil {
			return err
		}
	}
	arena.WriteByte('}')
	return nil
}

// fill completes e, and fills p with what is not the record.
func (s *Store) fill(p *pending, e *broker.Event) error {
	kind, known := s.versions[e.Type]
	if !known {
		return notRecordable(e, errors.New("not in the catalogue"))
	}
	if e.FirmID != "" {
		if _, err := broker.ParseID(string(e.FirmID)); err != nil {
			return notRecordable(e, err)
		}
	}
	if e.ID == "" {
		e.ID = broker.NewID()
	}
	if e.Time.IsZero() {
		e.Time = s.cfg.Now()
	}
	e.Time = stored(e.Time)
	if e.Version == 0 {
		e.Version = kind.version
	}
	p.log, p.typ, p.time = e.FirmID, e.Type, e.Time
	p.session, p.mailbox, p.agent = e.SessionID, e.MailboxID, e.AgentID
	changes, err := broker.AlertChanges(e)
	if err != nil {
		return notRecordable(e, err)
	}
	if len(changes) > 0 {
		p.alarms = &alarms{event: e.ID, by: e.Actor, workstation: e.WorkstationID, changes: changes}
	}
	switch e.Type {
	case broker.EventSessionOpen:
		data, err := broker.DataOf[broker.SessionOpen](e)
		if err != nil {
			return notRecordable(e, err)
		}
		p.opened = &data.Session
	case broker.EventSessionEnd:
		data, err := broker.DataOf[broker.SessionEnd](e)
		if err != nil {
			return notRecordable(e, err)
		}
		p.ended = &data
	}
	return nil
}

func notRecordable(e *broker.Event, cause error) error {
	err := broker.InvalidField("event", "%s cannot be recorded", e.Type)
	return err.WithCause(cause)
}

// appendEvent writes one event of a change.
func (t *tx) appendEvent(e *broker.Event) error {
	e.Time = t.now
	batch, err := t.store.prepare([]*broker.Event{e})
	if err != nil {
		return err
	}
	return t.appendPending(batch)
}

// appendPending writes events, and what they say of sessions, alerts and canaries.
func (t *tx) appendPending(batch []pending) error {
	for len(batch) > 0 {
		n := t.store.dialect.rows(len(batch))
		if err := t.insertEvents(batch[:n]); err != nil {
			return err
		}
		for i := range batch[:n] {
			if err := t.keepSession(&batch[i]); err != nil {
				return err
			}
			if err := t.changeAlerts(&batch[i]); err != nil {
				return err
			}
			if err := t.openCanaries(&batch[i]); err != nil {
				return err
			}
		}
		batch = batch[n:]
	}
	return nil
}

// insertEvents gives events their places, and writes as many as the dialect
// takes at once.
func (t *tx) insertEvents(batch []pending) error {
	t.record, t.rows = t.record[:0], t.rows[:0]
	for i := range batch {
		p := &batch[i]
		head, err := t.head(p.log)
		if err != nil {
			return err
		}
		p.seq = head.next
		head.next++
		head.changed = true
		start := len(t.record)
		t.record = append(append(t.record, p.salt...), p.prefix...)
		t.record = strconv.AppendInt(t.record, p.seq, 10)
		t.record = append(t.record, p.suffix...)
		salted := t.record[start:]
		p.leaf = tlog.RecordHash(salted)
		head.complete = head.tree.Add(p.leaf, head.complete)
		t.rows = append(t.rows, eventRow{p, head.number, salted[saltSize:]})
	}
	return t.store.dialect.insertEvents(t, t.rows)
}

// keepSession writes what an event says of its session.
func (t *tx) keepSession(p *pending) error {
	switch {
	case p.opened != nil:
		return t.openSession(p.opened)
	case p.ended != nil:
		// By the primary key, and not by an index of live sessions, which PostgreSQL
		// may take to be empty and read as a whole.
		_, err := t.exec(`UPDATE sessions SET ended_at = $1, end_reason = $2 WHERE id = $3 AND coalesce(ended_at, -1) < 0`,
			p.time.UnixMicro(), string(p.ended.Reason), string(p.session))
		return err
	}
	return nil
}

// openSession writes a session's row. A second session.open of one session
// changes nothing but the log: its event is no reason to lose the batch.
func (t *tx) openSession(x *broker.Session) error {
	doc, err := json.Marshal(x)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO sessions (id, node, opened_at, firm_id, doc) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING`,
		string(x.ID), x.Node, x.OpenedAt.UnixMicro(), string(x.FirmID), string(doc))
	return err
}
