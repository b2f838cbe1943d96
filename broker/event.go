// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Event is one audit record. The producer fills in Type, FirmID, Actor, the
// ids that apply and Data; the log fills in the rest.
type Event struct {
	ID   ID        `json:"id"`
	Time time.Time `json:"time"`
	// FirmID says in whose log the event stands; empty: the BPO's own.
	FirmID ID `json:"firm_id,omitempty"`
	// Seq is the event's place in that log, from 0 without a gap.
	Seq     int64     `json:"seq"`
	Type    EventType `json:"type"`
	Version int       `json:"version"`
	Actor   Actor     `json:"actor"`

	SessionID     ID `json:"session_id,omitempty"`
	AgentID       ID `json:"agent_id,omitempty"`
	WorkstationID ID `json:"workstation_id,omitempty"`
	MailboxID     ID `json:"mailbox_id,omitempty"`

	// Data is the type's own struct of the catalogue.
	Data any `json:"data,omitempty"`

	// PolicyRevision is what it was in the transaction that made the event
	// durable; 0: not known. It is not part of the record.
	PolicyRevision int64 `json:"-"`
}

// DataOf returns an event's data as its struct: Data is that, or a pointer to
// it, or its JSON as json.RawMessage or *json.RawMessage.
func DataOf[T any](e *Event) (x T, err error) {
	switch d := e.Data.(type) {
	case T:
		return d, nil
	case *T:
		if d != nil {
			return *d, nil
		}
	case json.RawMessage:
		return x, json.Unmarshal(d, &x)
	case *json.RawMessage:
		if d != nil {
			return x, json.Unmarshal(*d, &x)
		}
	}
	return x, errors.New("the event's data is of another type")
}

// StoredEvent is an event as the log keeps it.
type StoredEvent struct {
	Event
	// Record is the exact JSON that the leaf hash covers.
	Record json.RawMessage
	// Salt keeps the leaf hash from being guessed; 16 random octets.
	Salt []byte
	// LeafHash is the RFC 6962 §2.1 leaf hash of Salt followed by Record.
	LeafHash [32]byte
}

// EventQuery selects events of one log, by Seq upwards.
type EventQuery struct {
	// FirmID is the log; empty: the BPO's own.
	FirmID ID
	// After is the last Seq already seen; -1: from the start.
	After int64
	// Type, SessionID and MailboxID narrow it when set. Of a mailbox alone the
	// whole log from After on is read.
	Type      EventType
	SessionID ID
	MailboxID ID
	// Limit is 1 to 10000; 0: 1000.
	Limit int
}

// EventStore keeps events: broker/store. Append makes all of events durable
// in one transaction, in their order, or none; it fills in Seq and
// PolicyRevision. A full disk
// or a stalled database is Unavailable. session.open and session.end events
// write and end the session's row in the same transaction.
type EventStore interface {
	AppendEvents(ctx context.Context, events []*Event) error
	Events(ctx context.Context, q EventQuery) ([]*StoredEvent, error)
	// LogEnd returns the last Seq of a log; -1: it is empty.
	LogEnd(ctx context.Context, firm ID) (int64, error)
}

// EventLog takes events from producers and batches them: broker/audit.
type EventLog interface {
	// Append returns when the events are durable.
	Append(ctx context.Context, events ...*Event) error
	// Submit queues an event and returns at once. When the queue is full it
	// returns a receipt that has failed with Unavailable; nothing is dropped
	// silently.
	Submit(e *Event) *Receipt
}

// Receipt tells when a submitted event is durable. Many events may share one.
type Receipt struct {
	done chan struct{}
	err  error
}

// NewReceipt returns an open receipt, and the function that settles it once.
func NewReceipt() (*Receipt, func(error)) {
	r := &Receipt{done: make(chan struct{})}
	return r, func(err error) {
		r.err = err
		close(r.done)
	}
}

// Done is closed when the event is durable, or never will be.
func (r *Receipt) Done() <-chan struct{} { return r.done }

// Settled reports whether Done is closed, without waiting.
func (r *Receipt) Settled() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Wait returns nil when the event is durable; else why not.
func (r *Receipt) Wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	default:
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return Errorf(Unavailable, "the audit log did not answer in time").WithCause(context.Cause(ctx))
	}
}
