// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	rotationByID     = `SELECT doc FROM rotations WHERE id = $1`
	defaultRotations = 1000
	maxRotations     = 10000
	// driftPause is how long after a rotation none begins because of drift.
	driftPause = time.Hour
	// maxPending bounds the passwords of one rotation.
	maxPending = 16
)

var _ broker.Rotations = (*Store)(nil)

// RequestRotation is described at broker.Rotations.
func (s *Store) RequestRotation(ctx context.Context, by broker.Actor, r *broker.Rotation) error {
	n := *r
	err := s.mutate(ctx, by, func(t *tx) error { return t.requestRotation(by, &n) })
	if err == nil {
		*r = n
	}
	return err
}

func (t *tx) requestRotation(by broker.Actor, n *broker.Rotation) error {
	m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(n.MailboxID))
	if err != nil {
		return missing(err, "mailbox_id")
	}
	switch {
	case m.Rotation == nil:
		return broker.Errorf(broker.Refused, "%s has no way of rotating its password: give it a provider first", m.Address)
	case m.Rotation.FirmOnly && by.Kind == string(broker.RoleAdmin):
		return broker.Errorf(broker.Refused, "the firm rotates the password of %s itself", m.Address)
	}
	if n.Entered { // which is as much as to set the credential
		if err := t.speaksFor(by, m.FirmID); err != nil {
			return err
		}
	}
	open, err := many[broker.Rotation](t.query, kindRotation,
		`SELECT doc FROM rotations WHERE mailbox_id = $1 AND ended_at IS NULL`, string(m.ID))
	if err != nil {
		return err
	}
	if n.Cause == broker.RotateOnDrift {
		// What no rotation mends must not begin one with each refused login.
		recent, err := t.exists(`SELECT 1 FROM rotations WHERE mailbox_id = $1 AND ended_at > $2`, string(m.ID), t.now.Add(-driftPause).UnixMicro())
		if err != nil {
			return err
		}
		if recent {
			return broker.Errorf(broker.Limit, "the password of %s was rotated a moment ago", m.Address)
		}
	}
	if len(open) > 0 {
		o := open[0]
		return conflict("the password of %s is being rotated, begun by %s at %s", m.Address, actorName(o.By), o.CreatedAt.UTC().Format(time.RFC3339))
	}
	n.CreatedAt = time.Time{}
	if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
		return err
	}
	n.FirmID, n.ProviderID, n.By = m.FirmID, m.Rotation.ProviderID, by
	n.State, n.UpdatedAt, n.Revision = broker.RotationRequested, n.CreatedAt, 1
	n.NextAt = stored(n.NextAt)
	doc, err := encode(n)
	if err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO rotations (id, firm_id, mailbox_id, provider_id, doc, due_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		string(n.ID), string(n.FirmID), string(n.MailboxID), string(n.ProviderID), doc, due(n, t.now).UnixMicro()); err != nil {
		return err
	}
	return t.recordRotation(by, broker.EventRotationRequested, n)
}

// rotatesFor begins the rotations that mailboxes want for a change. It does so in
// the change's own transaction, so that none is forgotten.
func (t *tx) rotatesFor(by broker.Actor, c changed) error {
	if by.Kind == systemActor.Kind { // such as the lock on a mailbox whose password is lost
		return nil
	}
	var cause broker.RotationCause
	var query string
	id := c.id
	switch {
	case c.kind == kindAssignment && c.verb == "revoked", c.kind == kindDelegation && c.verb == "revoked":
		cause, query, id = broker.RotateOnRevoke, mailboxByID, c.event.MailboxID
	case c.kind == kindAgent && c.verb == "deleted":
		cause, query = broker.RotateOnOffBoard, mailboxesOfAgent
	case c.kind == kindLock && c.verb == "created":
		cause, id = broker.RotateOnLock, c.targetID
		switch c.target {
		case broker.LockMailbox:
			query = mailboxByID
		case broker.LockFirm:
			query = `SELECT doc FROM mailboxes WHERE firm_id = $1 AND deleted_at IS NULL ORDER BY id`
		case broker.LockAgent:
			query = mailboxesOfAgent
		}
	}
	if query == "" {
		return nil
	}
	mailboxes, err := many[broker.Mailbox](t.query, kindMailbox, query, string(id))
	if err != nil {
		return err
	}
	for _, m := range mailboxes {
		if m.Rotation == nil || !slices.Contains(m.Rotation.On, cause) {
			continue
		}
		err := t.requestRotation(systemActor, &broker.Rotation{MailboxID: m.ID, Cause: cause})
		if err != nil && broker.CodeOf(err) != broker.Conflict { // one is under way
			return err
		}
	}
	return nil
}

const mailboxesOfAgent = `SELECT doc FROM mailboxes WHERE deleted_at IS NULL AND id IN
	(SELECT mailbox_id FROM assignments WHERE agent_id = $1) ORDER BY id`

var systemActor = broker.Actor{Kind: "system"}

func actorName(by broker.Actor) string {
	if by.Name == "" {
		return by.Kind
	}
	return by.Kind + " " + by.Name
}

// due is when there is something to do.
func due(r *broker.Rotation, now time.Time) time.Time {
	if r.NextAt.IsZero() {
		return now
	}
	return r.NextAt
}

func (t *tx) recordRotation(by broker.Actor, typ broker.EventType, r *broker.Rotation) error {
	e := broker.Event{Type: typ, Actor: by, FirmID: r.FirmID, MailboxID: r.MailboxID, Data: *r}
	return t.appendEvent(&e)
}

// ClaimRotation is described at broker.Rotations.
func (s *Store) ClaimRotation(ctx context.Context, c broker.RotationClaim) (*broker.Rotation, error) {
	now := s.now().UnixMicro()
	// Asked beside all writers first: mostly there is nothing.
	busy, args := notIn(c.Busy, 1)
	waiting, err := s.read(ctx)(`SELECT id FROM rotations WHERE due_at <= $1`+busy+` LIMIT 1`, append([]any{now}, args...)...)
	if err != nil {
		return nil, dbError(err)
	}
	found := waiting.Next()
	waiting.Close()
	if err := waiting.Err(); err != nil || !found {
		return nil, dbError(err)
	}
	var claimed *broker.Rotation
	err = s.write(ctx, func(t *tx) error {
		clock, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		busy, args := notIn(c.Busy, 2)
		due, err := many[broker.Rotation](t.query, kindRotation,
			`SELECT doc FROM rotations WHERE due_at <= $1 AND held_until <= $2`+busy+` ORDER BY due_at, id LIMIT 1`,
			append([]any{now, clock}, args...)...)
		if err != nil || len(due) == 0 {
			return err
		}
		claimed = due[0]
		return t.update(`UPDATE rotations SET holder = $1, node = $2, held_until = $3 WHERE id = $4`,
			string(c.Holder), c.Node, clock+c.Lasts.Microseconds(), string(claimed.ID))
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// notIn leaves out providers; the placeholders begin after n.
func notIn(providers []broker.ID, n int) (clause string, args []any) {
	if len(providers) == 0 {
		return "", nil
	}
	marks := make([]string, len(providers))
	for i, p := range providers {
		marks[i] = "$" + strconv.Itoa(n+i+1)
		args = append(args, string(p))
	}
	return ` AND provider_id NOT IN (` + strings.Join(marks, ", ") + `)`, args
}

// held wants the holder's claim to run.
func (t *tx) held(c broker.RotationClaim, id broker.ID) (clock int64, err error) {
	if clock, err = t.store.dialect.clock(t); err != nil {
		return 0, err
	}
	ok, err := t.exists(`SELECT 1 FROM rotations WHERE id = $1 AND holder = $2 AND held_until > $3`, string(id), string(c.Holder), clock)
	if err == nil && !ok {
		err = conflict("another process works on the rotation")
	}
	return clock, err
}

// AdvanceRotation is described at broker.Rotations.
func (s *Store) AdvanceRotation(ctx context.Context, c broker.RotationClaim, r *broker.Rotation) error {
	n := *r
	if len(n.Pending) > maxPending {
		return broker.InvalidField("pending", "more than %d passwords", maxPending)
	}
	by := broker.Actor{Kind: "system", Name: c.Node}
	err := s.mutate(ctx, by, func(t *tx) error {
		clock, err := t.held(c, n.ID)
		if err != nil {
			return err
		}
		old, err := one[broker.Rotation](t.query, kindRotation, rotationByID, string(n.ID))
		if err != nil {
			return err
		}
		if old.Revision != n.Revision {
			return conflict("the rotation's journal has gone on")
		}
		n.Revision++
		n.UpdatedAt, n.NextAt = t.now, stored(n.NextAt)
		typ := broker.EventRotationStep
		switch {
		case n.State == broker.RotationEnded && old.State != broker.RotationEnded:
			n.EndedAt = t.now
			typ = broker.EventRotationEnded
		case n.Outcome != old.Outcome: // it was found to have ended otherwise
			typ = broker.EventRotationEnded
		case !n.CleanedAt.IsZero():
			n.CleanedAt = t.now
			typ = broker.EventRotationCleaned
		}
		if n.State == broker.RotationCommitted && old.State != broker.RotationCommitted {
			n.CommittedAt = t.now
			if err := t.committed(by, &n); err != nil {
				return err
			}
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		// What has ended and keeps nothing to be destroyed is never due again.
		var at any = due(&n, t.now).UnixMicro()
		if n.State == broker.RotationEnded && (n.NextAt.IsZero() || !n.CleanedAt.IsZero()) {
			at = nil
		}
		if err := t.update(`UPDATE rotations SET doc = $1, due_at = $2, ended_at = $3, cleaned_at = $4, held_until = $5 WHERE id = $6`,
			doc, at, micros(n.EndedAt), micros(n.CleanedAt), clock+c.Lasts.Microseconds(), string(n.ID)); err != nil {
			return err
		}
		if err := t.recordRotation(by, typ, &n); err != nil {
			return err
		}
		if typ == broker.EventRotationEnded && n.Outcome == broker.RotationLost {
			return t.lockLost(by, &n)
		}
		return nil
	})
	if err == nil {
		*r = n
	}
	return err
}

// committed has sessions on older versions end: it raises the mailbox's
// MinCredential.
func (t *tx) committed(by broker.Actor, r *broker.Rotation) error {
	old, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(r.MailboxID))
	if broker.CodeOf(err) == broker.NotFound {
		return nil // nobody has a session in it
	}
	if err != nil {
		return err
	}
	n := *old
	n.MinCredential, n.MinCredentialID = r.NewVersion, r.PendingID()
	before, after, err := documents(old, &n)
	if err != nil {
		return err
	}
	if err := t.update(`UPDATE mailboxes SET doc = $1 WHERE id = $2`, after, string(n.ID)); err != nil {
		return err
	}
	if err := t.recordChange(by, changed{kind: kindMailbox, verb: "updated", id: n.ID, before: before, after: after, event: mailboxEvent(&n)}); err != nil {
		return err
	}
	e := mailboxEvent(&n)
	e.Type, e.Actor, e.Data = broker.EventCredentialSet, by, broker.CredentialSetData{Version: r.NewVersion}
	return t.appendEvent(&e)
}

// lockLost locks a mailbox that nothing opens, where it says so.
func (t *tx) lockLost(by broker.Actor, r *broker.Rotation) error {
	m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(r.MailboxID))
	if err != nil || m.Rotation == nil || !m.Rotation.LockWhenLost {
		if broker.CodeOf(err) == broker.NotFound {
			err = nil
		}
		return err
	}
	return t.createLock(by, &broker.Lock{
		Target: broker.LockMailbox, TargetID: m.ID,
		Message: "the mailbox's password is being sorted out",
	})
}

// ReleaseRotation is described at broker.Rotations.
func (s *Store) ReleaseRotation(ctx context.Context, c broker.RotationClaim, id broker.ID) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE rotations SET held_until = 0 WHERE id = $1 AND holder = $2`, string(id), string(c.Holder))
		return err
	})
}

// ReleaseRotations is described at broker.Rotations.
func (s *Store) ReleaseRotations(ctx context.Context, node string) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE rotations SET held_until = 0 WHERE node = $1`, node)
		return err
	})
}

// Rotation returns a rotation.
func (s *Store) Rotation(ctx context.Context, id broker.ID) (*broker.Rotation, error) {
	return one[broker.Rotation](s.read(ctx), kindRotation, rotationByID, string(id))
}

// PendingRotation is described at broker.Rotations.
func (s *Store) PendingRotation(ctx context.Context, mailbox broker.ID) (*broker.Rotation, error) {
	all, err := many[broker.Rotation](s.read(ctx), kindRotation,
		`SELECT doc FROM rotations WHERE mailbox_id = $1 AND cleaned_at IS NULL ORDER BY id DESC LIMIT 1`, string(mailbox))
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// Rotations returns rotations, newest first.
func (s *Store) Rotations(ctx context.Context, q broker.RotationQuery) ([]*broker.Rotation, error) {
	limit := q.Limit
	if limit == 0 {
		limit = defaultRotations
	}
	if limit < 1 || limit > maxRotations {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxRotations)
	}
	query := `SELECT doc FROM rotations WHERE ($1 = '' OR firm_id = $1) AND ($2 = '' OR mailbox_id = $2)`
	if q.Open {
		query += ` AND ended_at IS NULL`
	}
	return many[broker.Rotation](s.read(ctx), kindRotation, query+` ORDER BY id DESC LIMIT $3`,
		string(q.FirmID), string(q.MailboxID), limit)
}
