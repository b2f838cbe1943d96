// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// step is how finely the hours of terms are looked at: they are in minutes.
const step = time.Minute

// reader follows an assignment through the time; false: it was not there.
func (r *reader) reader(id broker.ID) (x Reader, ok bool) {
	for _, c := range r.assignments[id] {
		if c.after == nil {
			continue
		}
		a := decode[broker.Assignment](c.after)
		x.AgentID, x.AssignmentID, x.DelegationID = a.AgentID, a.ID, a.DelegationID
	}
	if x.AssignmentID == "" {
		return x, false
	}
	for at := r.q.Since; at.Before(r.q.Until) && r.ctx.Err() == nil; {
		s, known := r.stretch(&x, at)
		at = s.Until
		if !known {
			continue
		}
		if s.Decision != nil && s.Decision.Actions.Has(policy.Read) {
			x.CouldRead = true
		}
		if n := len(x.Stretches); n > 0 && x.Stretches[n-1].Until.Equal(s.Since) && same(&x.Stretches[n-1], &s) {
			x.Stretches[n-1].Until = s.Until
			continue
		}
		x.Stretches = append(x.Stretches, s)
	}
	// Who was revoked before it all is no answer.
	over := len(x.Stretches) == 1 && x.Stretches[0].Refused == policy.ReasonRevoked && x.Stretches[0].Since.Equal(r.q.Since)
	return x, len(x.Stretches) > 0 && !over
}

// same reports whether two stretches that follow one another are one.
func same(x, y *Stretch) bool {
	if x.Decision == nil || y.Decision == nil {
		return x.Decision == nil && y.Decision == nil && x.Refused == y.Refused
	}
	return x.Decision.Covers(y.Decision) && y.Decision.Covers(x.Decision)
}

// stretch decides at an instant as it stood then, and says until when nothing
// changes; false: the assignment was not there yet.
func (r *reader) stretch(x *Reader, at time.Time) (s Stretch, known bool) {
	s = Stretch{Since: at, Until: r.q.Until}
	for _, edge := range r.edges {
		if edge.After(at) && edge.Before(s.Until) {
			s.Until = edge
		}
	}
	in, known := r.input(x, at, &s)
	if !known {
		return s, false
	}
	decision, refusal := policy.Decide(in)
	if refusal == nil {
		s.Decision = decision
		if end := decision.Until; !end.IsZero() && end.Before(s.Until) {
			s.Until = end
		}
		return s, true
	}
	s.Refused = refusal.Reason
	// What time alone ends: looked for in steps of what terms are in.
	if refusal.Reason == policy.ReasonHours || refusal.Reason == policy.ReasonNotYetValid {
		for next := at.Truncate(step).Add(step); next.Before(s.Until); next = next.Add(step) {
			in.Now = next
			if _, again := policy.Decide(in); again == nil || again.Reason != refusal.Reason {
				s.Until = next
				break
			}
		}
	}
	return s, true
}

// input is what a decision rested on at an instant.
func (r *reader) input(x *Reader, at time.Time, s *Stretch) (*policy.Input, bool) {
	doc := r.assignments.at(x.AssignmentID, at)
	if doc == nil {
		return nil, false
	}
	a := decode[broker.Assignment](doc)
	d := decode[broker.Delegation](r.delegations.at(x.DelegationID, at))
	m := decode[broker.Mailbox](r.mailboxes.at(r.q.MailboxID, at))
	in := &policy.Input{
		Now: at, Delegation: d.Terms, Assignment: a.Terms, AssignmentRevoked: !a.RevokedAt.IsZero(), AssignmentPending: a.Pending,
		DelegationRevoked: !d.RevokedAt.IsZero() || d.ID == "" || m.ID == "", HardwareKey: true, Password: true,
		Addresses: m.Addresses(), RecoverySenders: m.AllRecoverySenders(), Zones: &r.zones,
	}
	in.Site = site(d.Terms.Sites, a.Terms.Sites)
	for id := range r.locks {
		doc := r.locks.at(id, at)
		if doc == nil {
			continue
		}
		l := decode[broker.Lock](doc)
		if !l.RemovedAt.IsZero() || !slices.Contains([]broker.ID{r.q.MailboxID, r.q.FirmID, x.AgentID}, l.TargetID) {
			continue
		}
		in.Locks = append(in.Locks, policy.Lock{Message: l.Message, Until: l.Until})
		if l.Until.After(at) && l.Until.Before(s.Until) {
			s.Until = l.Until
		}
	}
	return in, true
}

// site is one at which both terms hold, where there is one.
func site(outer, inner []string) string {
	for _, s := range inner {
		if len(outer) == 0 || slices.Contains(outer, s) {
			return s
		}
	}
	if len(outer) > 0 {
		return outer[0]
	}
	return ""
}
