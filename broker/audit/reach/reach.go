// SPDX-License-Identifier: Apache-2.0

// Package reach tells from the log who could have read a mailbox at a time: from
// the changes of state that it records, with what was before and after them, and
// never from what stands today.
//
// Guardrails are not in it: they stand in the server's configuration, which the
// log does not hold. A site, a workstation's class and a password that terms ask
// for are taken to have been there. So whoever could read is among those that it
// names; not all of them need have been able to.
package reach

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// Question is what is asked.
type Question struct {
	FirmID, MailboxID broker.ID
	// Since and Until, which is exclusive, are not zero.
	Since, Until time.Time
	// BPO has the BPO's own log read as well, in which locks of agents are.
	BPO bool
}

// Answer is who could have read the mailbox.
type Answer struct {
	// Address is the mailbox's at the end of the time.
	Address string
	Readers []Reader
	// Writers stored its credential: the last one before the time, and those in it.
	Writers []Writer
}

// Reader is an agent on an assignment.
type Reader struct {
	AgentID      broker.ID `json:"agent_id"`
	AssignmentID broker.ID `json:"assignment_id"`
	DelegationID broker.ID `json:"delegation_id"`
	// CouldRead says that he could open messages for some of the time.
	CouldRead bool `json:"could_read" doc:"Whether he could open messages for some of that time."`
	// Stretches follow one another from the question's Since, or from when he was
	// assigned, until its end.
	Stretches []Stretch `json:"stretches" nullable:"false" doc:"What he could do, one after another. A site, a workstation's class or a password that the terms ask for is taken to have been there; guardrails are not in the record."`
}

// Stretch is a time in which nothing changed for a reader.
type Stretch struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Refused is why he could do nothing, as policy.Refusal has it.
	Refused string `json:"refused,omitempty" doc:"Why he could do nothing."`
	// Decision is what he could do.
	Decision *policy.Decision `json:"decision,omitempty" doc:"What he could do."`
}

// Writer stored the mailbox's credential.
type Writer struct {
	Time  time.Time        `json:"time"`
	Seq   int64            `json:"seq" doc:"The event's place in the firm's log."`
	Type  broker.EventType `json:"type"`
	Actor broker.Actor     `json:"actor"`
}

// change is a change of one thing.
type change struct {
	at    time.Time
	after json.RawMessage
}

// history are the changes of things by their ids, oldest first.
type history map[broker.ID][]change

// at returns a thing as it stood at an instant; nil: it was not there.
func (h history) at(id broker.ID, at time.Time) json.RawMessage {
	var doc json.RawMessage
	for _, c := range h[id] {
		if c.at.After(at) {
			break
		}
		doc = c.after
	}
	return doc
}

// reader reads what a question needs of the logs.
type reader struct {
	ctx    context.Context
	events broker.EventStore
	q      Question

	mailboxes, delegations, assignments, locks history
	// edges are the instants at which something changes.
	edges []time.Time
	zones policy.Zones
}

// Of answers a question.
func Of(ctx context.Context, events broker.EventStore, q Question) (*Answer, error) {
	r := &reader{
		ctx: ctx, events: events, q: q,
		mailboxes: history{}, delegations: history{}, assignments: history{}, locks: history{},
	}
	for kind, into := range map[string]struct {
		history history
		verbs   string
	}{
		"mailbox":    {r.mailboxes, "created updated deleted"},
		"delegation": {r.delegations, "created updated revoked"},
		"assignment": {r.assignments, "created updated approved revoked"},
	} {
		if err := r.read(q.FirmID, q.MailboxID, into.history, kind, into.verbs); err != nil {
			return nil, err
		}
	}
	if err := r.read(q.FirmID, "", r.locks, "lock", "created removed"); err != nil {
		return nil, err
	}
	if q.BPO {
		if err := r.read("", "", r.locks, "lock", "created removed"); err != nil {
			return nil, err
		}
	}
	a := &Answer{Readers: []Reader{}}
	if doc := r.mailboxes.at(q.MailboxID, q.Until); doc != nil {
		a.Address = decode[broker.Mailbox](doc).Address
	}
	for id := range r.assignments {
		if x, ok := r.reader(id); ok {
			a.Readers = append(a.Readers, x)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err // of one who does not wait for it any more
	}
	slices.SortFunc(a.Readers, func(x, y Reader) int { return strings.Compare(string(x.AssignmentID), string(y.AssignmentID)) })
	var err error
	a.Writers, err = r.writers()
	return a, err
}

// each calls f for the events of a type up to the end of the time.
func (r *reader) each(firm, mailbox broker.ID, typ broker.EventType, f func(*broker.StoredEvent)) error {
	const page = 1000
	for after := int64(-1); ; {
		found, err := r.events.Events(r.ctx, broker.EventQuery{FirmID: firm, MailboxID: mailbox, Type: typ, After: after, Limit: page})
		if err != nil {
			return err
		}
		for _, e := range found {
			if e.Time.Before(r.q.Until) {
				f(e)
			}
			after = e.Seq
		}
		if len(found) < page {
			return nil
		}
	}
}

// read reads the changes of a kind of thing.
func (r *reader) read(firm, mailbox broker.ID, into history, kind, verbs string) error {
	for verb := range strings.FieldsSeq(verbs) {
		err := r.each(firm, mailbox, broker.EventType(kind+"."+verb), func(e *broker.StoredEvent) {
			c, ok := e.Data.(broker.StateChange)
			if !ok {
				return
			}
			doc := c.After
			if doc == nil {
				doc = c.Before
			}
			var x struct {
				ID broker.ID `json:"id"`
			}
			if json.Unmarshal(doc, &x) == nil {
				into[x.ID] = append(into[x.ID], change{e.Time, c.After})
				r.edges = append(r.edges, e.Time)
			}
		})
		if err != nil {
			return err
		}
	}
	for _, changes := range into {
		slices.SortStableFunc(changes, func(x, y change) int { return x.at.Compare(y.at) })
	}
	return nil
}

// writers are who stored the credential.
func (r *reader) writers() ([]Writer, error) {
	all := []Writer{}
	for _, typ := range []broker.EventType{broker.EventCredentialSet, broker.EventRotationEnded} {
		err := r.each(r.q.FirmID, r.q.MailboxID, typ, func(e *broker.StoredEvent) {
			if x, ok := e.Data.(broker.Rotation); ok && x.Outcome != broker.RotationDone {
				return
			}
			all = append(all, Writer{e.Time, e.Seq, e.Type, e.Actor})
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(x, y Writer) int { return x.Time.Compare(y.Time) })
	first := 0
	for i, w := range all {
		if !w.Time.After(r.q.Since) {
			first = i // the last one before
		}
	}
	return all[first:], nil
}

// decode reads a document of the log; what is not understood is left out.
func decode[T any](doc json.RawMessage) (x T) {
	_ = json.Unmarshal(doc, &x)
	return x
}
