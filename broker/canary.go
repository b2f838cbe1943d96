// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Canary is a message whose opening raises an alert: one that nobody has a reason
// to open. It is known again by its place, its Message-ID or both. Which messages
// are canaries is for the firm's own people to know, and nobody else: no event and
// no stored alert tells.
type Canary struct {
	ID        ID `json:"id"`
	FirmID    ID `json:"firm_id"`
	MailboxID ID `json:"mailbox_id"`
	// Folder, UIDValidity and UID are its place; UID 0: it goes by its Message-ID.
	// Folder is decoded, and INBOX in upper case, as events have it.
	Folder      string `json:"folder,omitempty"`
	UIDValidity uint32 `json:"uid_validity,omitempty"`
	UID         uint32 `json:"uid,omitempty"`
	MessageID   string `json:"message_id,omitempty"`
	// Note is the firm's own.
	Note      string    `json:"note,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	RemovedAt time.Time `json:"removed_at,omitzero"`
}

// Canaries keeps them: broker/store, which also holds against them each event
// that says what of a mailbox was opened, in the event's own transaction: what was
// marked before the opening was recorded raises the alert, on every node. Errors
// are those of State; only a firm's own admin changes them, all others are
// Refused, also before the firm was claimed.
type Canaries interface {
	CreateCanary(ctx context.Context, by Actor, c *Canary) error
	// RemoveCanary ends one, which can still be read by its id; NotFound where it was
	// ended before.
	RemoveCanary(ctx context.Context, by Actor, id ID) error
	Canary(ctx context.Context, id ID) (*Canary, error)
	// Canaries are a mailbox's that were not removed.
	Canaries(ctx context.Context, mailbox ID) ([]*Canary, error)
}

// What bounds canaries.
const (
	// MaxCanaries is how many a mailbox has.
	MaxCanaries = 1000
	// CanaryBulk is how many messages a session opens within CanaryBulkWithin that
	// nobody reads so fast: it downloads.
	CanaryBulk       = 10
	CanaryBulkWithin = time.Minute
)

// CanaryMarked is the data of canary.created and canary.removed. It does not tell
// the message: the BPO reads a firm's log.
type CanaryMarked struct {
	Canary ID `json:"canary"`
}

// CanaryOpened is the data of canary.opened and canary.downloaded.
type CanaryOpened struct {
	Canary ID `json:"canary"`
	// Opening is the event that it was found in, in the same log and transaction.
	Opening ID `json:"opening"`
	// How is what was done.
	How CanaryHow `json:"how"`
	// Messages is how many messages the session has opened in the mailbox by then,
	// within CanaryBulkWithin.
	Messages int `json:"messages"`
}

// CanaryHow is what was done to a canary.
type CanaryHow string

// The ways.
const (
	CanaryRead   CanaryHow = "read"
	CanaryCopied CanaryHow = "copied"
	CanaryMoved  CanaryHow = "moved"
)

// String says what happened, in a line.
func (o CanaryOpened) String() string {
	if o.Messages < CanaryBulk {
		return string(o.How)
	}
	return fmt.Sprintf("%s in a bulk download: with it %d messages within %d s", o.How, o.Messages, int(CanaryBulkWithin.Seconds()))
}

// CanaryID is the canary that an alert of kind AlertCanary is about, as its rule
// in AlertChanges has put it into the subject.
func (a *Alert) CanaryID() ID {
	if parts := strings.Split(a.Subject, "/"); a.Kind == AlertCanary && len(parts) == 3 {
		return ID(parts[1])
	}
	return ""
}

// TellsOpenings reports whether events of a type say what of a mailbox was
// opened, copied or moved.
func TellsOpenings(t EventType) bool {
	switch t {
	case EventMessageOpen, EventMessageIdentify, EventMessageCopy, EventMessageMove:
		return true
	}
	return false
}

// CanaryMatch is one canary that an event tells the opening of.
type CanaryMatch struct {
	Canary *Canary
	How    CanaryHow
}

// CanariesIn returns which of a mailbox's canaries an event tells the opening of,
// each once, and how many messages it says were opened.
func CanariesIn(e *Event, marked []*Canary) (found []CanaryMatch, messages int, err error) {
	match := func(how CanaryHow, is func(*Canary) bool) {
		for _, c := range marked {
			if is(c) {
				found = append(found, CanaryMatch{c, how})
			}
		}
	}
	switch e.Type {
	case EventMessageOpen:
		d, err := DataOf[MessageOpen](e)
		if err != nil {
			return nil, 0, err
		}
		last := OpenedMessage{}
		for _, m := range d.Messages {
			if !m.Continues && (m.UID != last.UID || m.Seq != last.Seq) { // not another part of the same
				messages++
			}
			last = m
		}
		match(CanaryRead, func(c *Canary) bool {
			for _, m := range d.Messages {
				if c.at(d.Folder, d.UIDValidity, m.UID) || c.named(m.MessageID) {
					return true
				}
			}
			return false
		})
	case EventMessageIdentify:
		d, err := DataOf[MessageIdentify](e)
		if err != nil {
			return nil, 0, err
		}
		match(CanaryRead, func(c *Canary) bool {
			// By its place it was found when it was opened.
			return c.named(d.MessageID) && !c.at(d.Folder, d.UIDValidity, d.UID)
		})
	case EventMessageCopy, EventMessageMove:
		d, err := DataOf[MessageChange](e)
		if err != nil {
			return nil, 0, err
		}
		how := CanaryCopied
		if e.Type == EventMessageMove {
			how = CanaryMoved
		}
		match(how, func(c *Canary) bool { return c.at(d.Folder, d.UIDValidity, c.UID) && d.mayHold(c.UID) })
	}
	return found, messages, nil
}

func (c *Canary) at(folder string, validity, uid uint32) bool {
	return c.UID != 0 && c.UID == uid && c.UIDValidity == validity && c.Folder == folder
}

// named compares as servers' SEARCH does, whatever the case.
func (c *Canary) named(id string) bool {
	return c.MessageID != "" && id != "" && strings.EqualFold(bareMessageID(c.MessageID), bareMessageID(id))
}

func bareMessageID(id string) string { return strings.Trim(id, "<> \t") }

// mayHold reports whether a UID is among the messages of a COPY or MOVE. Of sets
// that were too long for the record it is taken to be; of message numbers nothing
// is known but what COPYUID tells (RFC 4315).
func (d *MessageChange) mayHold(uid uint32) bool {
	set := d.Set
	if fields := strings.Fields(d.CopyUID); len(fields) > 1 {
		set = fields[1]
	} else if !d.UIDs {
		return false
	}
	for part := range strings.SplitSeq(set, ",") {
		if strings.HasSuffix(part, "…") {
			return true
		}
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		from, to := uidIn(first), uidIn(last)
		if min(from, to) <= uint64(uid) && uint64(uid) <= max(from, to) {
			return true
		}
	}
	return false
}

// uidIn reads one UID of a set; "*", and what is none, is above all others.
func uidIn(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 1 << 32
	}
	return n
}
