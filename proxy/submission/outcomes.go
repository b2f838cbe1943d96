// SPDX-License-Identifier: Apache-2.0

package submission

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// outcome is what became of a submission, in the words of send.result.
type outcome string

const (
	outcomePending  outcome = "" // in the table alone
	outcomeAccepted outcome = "accepted"
	outcomeRefused  outcome = "refused"
	outcomeNotSent  outcome = "not-sent"
	outcomeUnknown  outcome = "unknown"
)

// submission is one message handed to an upstream, or about to be.
type submission struct {
	key, group [32]byte
	intent     broker.ID
	at         time.Time
	// Guarded by the table's mutex.
	outcome outcome
	// confirmed says that the client spoke again after it was answered: it
	// has the answer, and means it when it sends the same once more.
	confirmed bool
}

// outcomes remembers the submissions of the last hour, so that a client that
// repeats one whose answer it never got does not send it twice. It is memory:
// after a restart nothing of it is left but the events.
type outcomes struct {
	now func() time.Time

	mu    sync.Mutex
	byKey map[[32]byte]*submission
	// groups counts the submissions with one mailbox and Message-ID.
	groups map[[32]byte][]*submission
	// queue holds all of them, oldest first.
	queue []*submission
}

func newOutcomes(now func() time.Time) *outcomes {
	return &outcomes{now: now, byKey: make(map[[32]byte]*submission), groups: make(map[[32]byte][]*submission)}
}

// key names a submission: the mailbox, the envelope and the octets, which
// hold the Message-ID. The envelope belongs to it: clients send one message
// in several transactions when its recipients are many.
func (m *message) key(sum []byte) [32]byte {
	recipients := make([]string, len(m.tx.rcpts))
	for i, to := range m.tx.rcpts {
		recipients[i] = to.String()
	}
	slices.Sort(recipients)
	h := sha256.New()
	h.Write(sum)
	h.Write([]byte(m.session.live.Mailbox().ID))
	for _, s := range append(recipients, m.tx.mail.from.String()) {
		h.Write([]byte{0})
		h.Write([]byte(s))
	}
	return [32]byte(h.Sum(nil))
}

// begin enters a submission as pending, and returns an earlier one with the
// same key whose answer the client may not know. The earlier one stays when
// it is pending or accepted: then the new one is not entered, and must not be
// sent.
func (o *outcomes) begin(key [32]byte, mailbox broker.ID, h *header) (sub *submission, before *submission) {
	sub = &submission{key: key, intent: broker.NewID(), at: o.now()}
	sub.group = sha256.Sum256([]byte(string(mailbox) + "\x00" + h.messageID))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire()
	if old := o.byKey[key]; old != nil && !old.confirmed && sub.at.Sub(old.at) < outcomesFor {
		earlier := *old
		if old.outcome != outcomeUnknown {
			return sub, &earlier
		}
		before = &earlier
		sub.at = old.at // however often it is repeated, the hour is one
		o.remove(old)
	}
	o.byKey[key] = sub
	o.groups[sub.group] = append(o.groups[sub.group], sub)
	o.queue = append(o.queue, sub)
	return sub, before
}

// settle enters what became of a submission; what was not sent is forgotten.
func (o *outcomes) settle(sub *submission, result outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sub.outcome = result
	if result != outcomeAccepted && result != outcomeUnknown {
		o.remove(sub)
	}
}

// confirm enters that the client has its answer.
func (o *outcomes) confirm(sub *submission) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.byKey[sub.key]; s != nil {
		s.confirmed = true
	}
}

// ambiguous reports whether another submission of the hour had the same
// Message-ID: then finding that in Sent says nothing about this one.
func (o *outcomes) ambiguous(sub *submission) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.groups[sub.group], func(other *submission) bool { return other.key != sub.key })
}

// expire forgets what is old, and the oldest of what is too much.
func (o *outcomes) expire() {
	old := o.now().Add(-outcomesFor)
	n := 0
	for n < len(o.queue) && (o.queue[n].at.Before(old) || len(o.queue)-n >= outcomesKept) {
		o.unlink(o.queue[n])
		n++
	}
	if n > 0 {
		o.queue = slices.Delete(o.queue, 0, n)
	}
}

// remove forgets one.
func (o *outcomes) remove(sub *submission) {
	o.unlink(sub)
	if i := slices.Index(o.queue, sub); i >= 0 {
		o.queue = slices.Delete(o.queue, i, i+1)
	}
}

func (o *outcomes) unlink(sub *submission) {
	if o.byKey[sub.key] == sub {
		delete(o.byKey, sub.key)
	}
	rest := slices.DeleteFunc(o.groups[sub.group], func(s *submission) bool { return s == sub })
	if len(rest) == 0 {
		delete(o.groups, sub.group)
		return
	}
	o.groups[sub.group] = rest
}
