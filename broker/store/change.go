// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/broker"
)

// The kinds of things, as in broker.Change and in the types of events.
const (
	kindFirm          = "firm"
	kindMailbox       = "mailbox"
	kindAgent         = "agent"
	kindWorkstation   = "workstation"
	kindSite          = "site"
	kindDelegation    = "delegation"
	kindAssignment    = "assignment"
	kindAppPassword   = "app-password"
	kindLock          = "lock"
	kindPerson        = "person"
	kindAPIToken      = "api-token"
	kindClaim         = "claim"
	kindEnrolmentCode = "enrolment-code"
	kindProvider      = "provider"
	kindRotation      = "rotation"
	kindWatch         = "watch"
	kindCanary        = "canary"
	kindAlert         = "alert"
	kindWitness       = "witness"
	kindRetention     = "retention"
	kindHold          = "hold"
)

// changed is one change of one thing, on its way into the record.
type changed struct {
	kind, verb    string
	before, after string // documents; empty: there was or is none
	id            broker.ID
	// target and targetID are a lock's.
	target   broker.LockTarget
	targetID broker.ID
	// event bears the ids that apply; the firm's says whose log it is.
	event broker.Event
}

// mutate is write for a change of state by an actor.
func (s *Store) mutate(ctx context.Context, by broker.Actor, do func(*tx) error) error {
	if err := actor(by); err != nil {
		return err
	}
	if expected, ok := broker.ExpectedOf(ctx); ok {
		return s.write(ctx, func(t *tx) error {
			t.expected = &expected
			defer func() { t.expected = nil }()
			return do(t)
		})
	}
	return s.write(ctx, do)
}

// recordChange writes the event of a change and its policy revision, unless the
// caller has read another state of the thing than it is in.
func (t *tx) recordChange(by broker.Actor, c changed) error {
	if e := t.expected; e != nil && e.ID == c.id && broker.TagOfDocument([]byte(c.before)) != e.Tag {
		err := conflict("it has changed since it was read")
		err.Reason = broker.ReasonStale
		return err
	}
	switch c.kind {
	case kindMailbox, kindDelegation, kindProvider:
		if err := t.speaksFor(by, c.event.FirmID); err != nil {
			return err
		}
	}
	if err := t.recordEvent(by, c); err != nil {
		return err
	}
	if err := t.rotatesFor(by, c); err != nil {
		return err
	}
	return t.change(broker.Change{Kind: c.kind, ID: c.id, Target: c.target, TargetID: c.targetID})
}

// recordEvent writes the event of a change that no decision rests on.
func (t *tx) recordEvent(by broker.Actor, c changed) error {
	e := c.event
	e.Type = broker.EventType(c.kind + "." + c.verb)
	e.Actor = by
	e.Data = broker.StateChange{Before: json.RawMessage(c.before), After: json.RawMessage(c.after)}
	return t.appendEvent(&e)
}

// speaksFor refuses the BPO's people what is a claimed firm's own affair. It is
// asked in the transaction of the change: a claim redeemed at the same time
// comes before it or after it.
func (t *tx) speaksFor(by broker.Actor, firm broker.ID) error {
	if by.Kind != string(broker.RoleAdmin) {
		return nil
	}
	f, err := one[broker.Firm](t.query, kindFirm, firmByID, string(firm))
	if err != nil || f.ClaimedAt.IsZero() {
		return err
	}
	return broker.Errorf(broker.Refused, "%s was claimed: from then on only its own admins do this", f.Name)
}

// identify fills in the id and the time of creation when they are empty.
func (t *tx) identify(id *broker.ID, createdAt *time.Time) error {
	if *id == "" {
		*id = broker.NewID()
	} else if _, err := broker.ParseID(string(*id)); err != nil {
		return err
	}
	if createdAt.IsZero() {
		*createdAt = t.now
	}
	*createdAt = stored(*createdAt)
	return nil
}

// micros is a time in a column; NULL when it is zero.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// optional is an id in a column; NULL when it is empty.
func optional(id broker.ID) any {
	if id == "" {
		return nil
	}
	return string(id)
}
