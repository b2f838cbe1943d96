// SPDX-License-Identifier: Apache-2.0

package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// dayMicros is a day in the microseconds of columns.
const dayMicros = int64(24 * time.Hour / time.Microsecond)

// indexed is what the index holds of one event.
type indexed struct {
	log, seq, time   int64
	firm             broker.ID
	what             int
	messages, octets int64
	// mailbox, agent and workstation are its subjects, and are empty where it
	// has none.
	mailbox, agent, workstation broker.ID
	// opened are the messages that it is about, named what tells their
	// Message-IDs.
	opened []int64
	named  []namedMessage
}

// namedMessage is the hash of a message's Message-ID, and of its place.
type namedMessage struct{ id, message int64 }

// subjects are whom an event is about, each with the other side: see the tables.
func (x *indexed) subjects() [3]struct{ subject, other broker.ID } {
	return [3]struct{ subject, other broker.ID }{
		{x.mailbox, x.agent}, {x.agent, x.mailbox}, {x.workstation, x.mailbox},
	}
}

// indexRecord makes of a record what the index holds of it. A record that is
// not understood has its time and its place alone: it must not keep the index
// from those after it.
func indexRecord(log, seq, at int64, record []byte) indexed {
	var data json.RawMessage
	e := broker.Event{Data: &data}
	x := indexed{log: log, seq: seq, time: at}
	if json.Unmarshal(record, &e) != nil {
		return x
	}
	x.what = slices.Index(broker.Activities(), broker.ActivityOf(&e))
	x.firm, x.mailbox, x.agent, x.workstation = e.FirmID, e.MailboxID, e.AgentID, e.WorkstationID
	x.addMessages(&e)
	return x
}

// addMessages adds the messages that an event is about.
func (x *indexed) addMessages(e *broker.Event) {
	add := func(folder string, uidValidity, uid uint32, id string) {
		message := messageHash(x.mailbox, folder, uidValidity, uid)
		switch {
		case uid == 0 && id == "":
			return
		case uid == 0:
			message = idHash(id)
		case id != "":
			if n := (namedMessage{idHash(id), message}); !slices.Contains(x.named, n) {
				x.named = append(x.named, n)
			}
		}
		if !slices.Contains(x.opened, message) {
			x.opened = append(x.opened, message)
		}
	}
	switch e.Type {
	case broker.EventSessionEnd:
		// How long it was, so that the sessions of a time are found by the index.
		if m, err := broker.DataOf[broker.SessionEnd](e); err == nil && !m.OpenedAt.IsZero() {
			x.messages = max(0, int64(math.Ceil(e.Time.Sub(m.OpenedAt).Seconds())))
		}
	case broker.EventMessageOpen:
		m, err := broker.DataOf[broker.MessageOpen](e)
		if err != nil {
			return
		}
		for _, o := range m.Messages {
			add(m.Folder, m.UIDValidity, o.UID, o.MessageID)
			x.octets += o.Octets
			if o.Continues {
				x.octets -= o.Octets
			}
		}
		x.messages = int64(len(x.opened))
	case broker.EventMessageIdentify:
		if m, err := broker.DataOf[broker.MessageIdentify](e); err == nil && m.UID != 0 && m.MessageID != "" {
			x.named = []namedMessage{{idHash(m.MessageID), messageHash(x.mailbox, m.Folder, m.UIDValidity, m.UID)}}
		}
	case broker.EventMessageAppend:
		if m, err := broker.DataOf[broker.MessageAppend](e); err == nil {
			add(m.Folder, 0, 0, m.MessageID)
			x.messages, x.octets = 1, m.Octets
		}
	case broker.EventSendIntent:
		if m, err := broker.DataOf[broker.SendIntent](e); err == nil {
			add("", 0, 0, m.MessageID)
			x.messages, x.octets = 1, m.Octets
		}
	case broker.EventSendResult:
		if m, err := broker.DataOf[broker.SendResult](e); err == nil {
			add("", 0, 0, m.MessageID)
			x.messages = 1
		}
	case broker.EventBypassed:
		m, err := broker.DataOf[broker.Bypassed](e)
		if err != nil {
			return
		}
		for _, o := range m.Messages {
			add(m.Folder, m.UIDValidity, o.UID, o.MessageID)
		}
		x.messages = int64(m.Count)
	}
}

// messageHash is a message's place in 64 bits. Two that have the same are told
// apart by the records that it leads to.
func messageHash(mailbox broker.ID, folder string, uidValidity, uid uint32) int64 {
	b := make([]byte, 0, 128)
	b = append(append(append(append(b, 'p'), mailbox...), 0), folder...)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(append(b, 0), uidValidity), uid)
	return hash64(b)
}

// idHash is a Message-ID in 64 bits.
func idHash(id string) int64 { return hash64(append([]byte{'i'}, messageID(id)...)) }

// messageID is a Message-ID as people ask for it: in angle brackets, without what
// else its sender has put into the field or left out (RFC 5322 §3.6.4, §4.5.4).
func messageID(field string) string {
	if i := strings.IndexByte(field, '<'); i >= 0 {
		if j := strings.IndexByte(field[i:], '>'); j > 0 {
			return strings.ReplaceAll(field[i:i+j+1], " ", "")
		}
	}
	if words := strings.Fields(field); len(words) > 0 {
		return "<" + strings.Trim(words[0], "<>") + ">"
	}
	return field
}

func hash64(b []byte) int64 {
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]))
}
