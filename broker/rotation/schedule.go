// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"hash/fnv"
	"time"

	"github.com/postern-mail/postern/broker"
)

// scheduleInterval is how often the schedules are looked at.
const scheduleInterval = time.Minute

// schedule begins the rotations that are due by schedule.
func (r *Rotator) schedule(ctx context.Context) {
	now := r.Now().UTC()
	r.mu.Lock()
	due := now.Sub(r.scheduled) >= scheduleInterval || now.Before(r.scheduled)
	if due {
		r.scheduled = now
	}
	r.mu.Unlock()
	if !due {
		return
	}
	mailboxes, err := r.State.Mailboxes(ctx)
	if !r.note("schedules cannot be read", err) {
		return
	}
	for _, m := range mailboxes {
		if m.Rotation == nil || m.Rotation.EveryDays == 0 || !r.open(m, now) {
			continue
		}
		last, err := r.State.Rotations(ctx, broker.RotationQuery{MailboxID: m.ID, Limit: 1})
		if !r.note("schedules cannot be read", err) {
			return
		}
		if now.Before(dueBySchedule(m, last)) {
			continue
		}
		err = r.State.RequestRotation(ctx, broker.Actor{Kind: "system", Name: r.Node},
			&broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnSchedule})
		if broker.CodeOf(err) != broker.Conflict { // another node was first
			r.note("a rotation cannot be begun", err)
		}
	}
}

// open reports whether the mailbox's window is.
func (r *Rotator) open(m *broker.Mailbox, now time.Time) bool {
	_, open, err := m.Rotation.Window.Open(now, &r.zones)
	return r.note("a window cannot be understood", err) && open
}

// dueBySchedule is when a mailbox's next rotation is: so many days after the
// last, less up to a tenth, so that those that were made together do not stay
// together. One that did not end well is begun again a day later.
func dueBySchedule(m *broker.Mailbox, last []*broker.Rotation) time.Time {
	since, id := m.CreatedAt, m.ID
	if len(last) > 0 {
		l := last[0]
		switch {
		case l.State != broker.RotationEnded:
			return l.CreatedAt.AddDate(100, 0, 0)
		case l.Outcome != broker.RotationDone:
			return l.EndedAt.AddDate(0, 0, min(1, m.Rotation.EveryDays))
		}
		since, id = l.EndedAt, l.ID
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	every := time.Duration(m.Rotation.EveryDays) * 24 * time.Hour
	return since.Add(every - every/10*time.Duration(h.Sum32()%1000)/1000)
}
