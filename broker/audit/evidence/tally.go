// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	// slot is the grain of counts by time: hours and days of every zone are made
	// of whole ones.
	slot = 15 * time.Minute
	// What the report lists at most. The totals are of all.
	maxRows     = 1000
	maxStanding = 500
	maxSessions = 1500
	maxTimeline = 3000
)

// counts are what was done.
type counts struct {
	Sessions, Downloaded, Bulk, Octets, Sent, Changed, Refused, Failed, Alarms int64
}

func (c *counts) add(o *counts) {
	c.Sessions += o.Sessions
	c.Downloaded += o.Downloaded
	c.Bulk += o.Bulk
	c.Octets += o.Octets
	c.Sent += o.Sent
	c.Changed += o.Changed
	c.Refused += o.Refused
	c.Failed += o.Failed
	c.Alarms += o.Alarms
}

// session is one as the bundle's events tell of it.
type session struct {
	id, agent, mailbox, workstation broker.ID
	protocol                        broker.Protocol
	// from and until are what is known of it: open and closed say that its
	// beginning and its end are among the events.
	from, until  time.Time
	open, closed bool
	reason       broker.EndReason
	counts       counts
	// minute is that of the downloads that inMinute counts.
	minute   int64
	inMinute int64
}

// line is an event as the report lists it. Names are put in when all are known.
type line struct {
	seq              int64
	at               time.Time
	actor            broker.Actor
	mailbox, machine broker.ID
	what             string
	kind             broker.EventType
	outside, grave   bool
}

// markKind is what a mark in the time line stands for.
type markKind int

const (
	markSent markKind = iota
	markRefused
	markAlarm
)

type mark struct {
	at    time.Time
	agent broker.ID
	kind  markKind
}

// tally is what the report says, gathered from one event after another. Its
// size does not grow with their number, but with that of agents, mailboxes,
// workstations, live sessions and quarters of an hour.
type tally struct {
	manifest *Manifest
	zone     *time.Location

	// Within the period: of events outside, which the margin brought, nothing is
	// counted.
	events                       int64
	earliest, latest             time.Time
	total                        counts
	agents, mailboxes, machines  map[broker.ID]*counts
	slots                        map[int64]*counts
	types                        map[broker.EventType]int64
	rows, standing               []line
	rowsLeft, standingLeft       int64
	alarmsLeft                   int64
	outside                      int64
	live                         map[broker.ID]*session
	sessions                     []*session
	sessionsLeft                 int64
	marks                        []mark
	alarms                       []line
	unknown, unanswered, unnamed int64
	stale, restored, unrecorded  int64
	backwards, unwitnessed       int64
	// firstShown and lastShown say that the entries at the ends are there whole.
	firstShown, lastShown bool
	// used are the names that were taken from the manifest.
	used                           map[broker.ID]string
	agentNames                     map[broker.ID]string
	firstOfAll, lastOfAll, highest time.Time
}

func newTally(m *Manifest) (*tally, error) {
	t := &tally{
		manifest: m, zone: time.UTC,
		agents: make(map[broker.ID]*counts), mailboxes: make(map[broker.ID]*counts), machines: make(map[broker.ID]*counts),
		slots: make(map[int64]*counts), types: make(map[broker.EventType]int64), live: make(map[broker.ID]*session),
		used: make(map[broker.ID]string), agentNames: make(map[broker.ID]string),
	}
	if m.Zone != "" {
		var err error
		if t.zone, err = time.LoadLocation(m.Zone); err != nil {
			return nil, fmt.Errorf("the zone %q is not known here: %w", m.Zone, err)
		}
	}
	return t, nil
}

// within reports whether an instant is in the period.
func (t *tally) within(at time.Time) bool {
	m := t.manifest
	return (m.From.IsZero() || !at.Before(m.From)) && (m.Until.IsZero() || at.Before(m.Until))
}

// add takes the next event.
func (t *tally) add(e *Event) {
	if e.Actor.Kind == "agent" && e.Actor.ID != "" && e.Actor.Name != "" {
		t.agentNames[e.Actor.ID] = e.Actor.Name
	}
	t.firstShown, t.lastShown = t.firstShown || e.Seq == t.manifest.First, t.lastShown || e.Seq == t.manifest.Last
	if t.firstOfAll.IsZero() {
		t.firstOfAll = e.Time
	}
	t.lastOfAll = e.Time
	if e.Time.Before(t.highest.Add(-Margin)) {
		t.backwards++
	}
	if e.Time.After(t.highest) {
		t.highest = e.Time
	}
	within := t.within(e.Time)
	c, standing, alarm := t.judge(e)
	t.list(e, within, standing, alarm)
	s := t.follow(e, &c, within)
	if !within {
		t.outside++
		return
	}
	t.events++
	t.types[e.Type]++
	if t.earliest.IsZero() || e.Time.Before(t.earliest) {
		t.earliest = e.Time
	}
	if e.Time.After(t.latest) {
		t.latest = e.Time
	}
	t.count(e, s, &c)
	t.mark(e, &c)
}

// judge says what an event counts for, whether it stands out, and whether it is
// an alarm.
func (t *tally) judge(e *Event) (c counts, standing, alarm bool) {
	switch e.Type {
	case broker.EventSessionOpen:
		c.Sessions = 1
	case broker.EventMessageOpen:
		d := dataOf[broker.MessageOpen](e)
		c.Downloaded = openings(&d)
		for _, m := range d.Messages {
			if !m.Continues {
				c.Octets += m.Octets
			}
		}
	case broker.EventSendResult:
		if d := dataOf[broker.SendResult](e); d.Outcome == "accepted" {
			c.Sent = 1
		}
		standing = true
	case broker.EventSendIntent, broker.EventSendFlagged:
		standing = true
	case broker.EventMessageFlag:
		c.Changed = 1
	case broker.EventMessageCopy, broker.EventMessageMove, broker.EventMessageExpunge, broker.EventMessageAppend, broker.EventFolderChange:
		c.Changed, standing = 1, true
	case broker.EventCommandRefused, broker.EventQuotaReached, broker.EventSendRefused, broker.EventSessionRefused:
		c.Refused, standing = 1, true
	case broker.EventAuthFailed:
		c.Failed, standing = 1, true
	case broker.EventCanaryOpened, broker.EventCanaryDownloaded:
		standing, alarm = true, true
	case broker.EventAlertRaised:
		c.Alarms, standing, alarm = 1, true, true
	case broker.EventMessageIdentify, broker.EventSessionEnd, broker.EventMessageFiling:
	default:
		standing = true // what people and Postern did to the firm's things
	}
	return c, standing, alarm
}

// follow keeps the sessions.
func (t *tally) follow(e *Event, c *counts, within bool) *session {
	if e.SessionID == "" {
		return nil
	}
	s := t.live[e.SessionID]
	if s == nil {
		s = &session{id: e.SessionID, agent: e.AgentID, mailbox: e.MailboxID, workstation: e.WorkstationID, from: e.Time}
		t.live[e.SessionID] = s
		if len(t.sessions) < maxSessions {
			t.sessions = append(t.sessions, s)
		} else {
			t.sessionsLeft++
		}
	}
	s.until = e.Time
	switch e.Type {
	case broker.EventSessionOpen:
		s.open, s.protocol = true, dataOf[broker.SessionOpen](e).Session.Protocol
	case broker.EventMessageOpen:
		if within {
			if minute := e.Time.Unix() / 60; minute != s.minute {
				t.settle(s)
				s.minute = minute
			}
			s.inMinute += c.Downloaded
		}
	case broker.EventSessionEnd:
		s.closed, s.reason = true, dataOf[broker.SessionEnd](e).Reason
		t.settle(s)
		delete(t.live, e.SessionID)
	}
	return s
}

// settle counts the downloads of a session's last minute as a copy of a folder,
// where they are as many.
func (t *tally) settle(s *session) {
	if n := s.inMinute; n >= broker.CanaryBulk {
		bulk := counts{Bulk: n}
		s.counts.add(&bulk)
		t.total.add(&bulk)
		t.each(s.agent, s.mailbox, s.workstation, func(c *counts) { c.add(&bulk) })
		t.slot(time.Unix(s.minute*60, 0)).add(&bulk)
	}
	s.inMinute = 0
}

func (t *tally) slot(at time.Time) *counts {
	return of(t.slots, at.Unix()/int64(slot/time.Second))
}

func of[K comparable](all map[K]*counts, key K) *counts {
	c := all[key]
	if c == nil {
		c = new(counts)
		all[key] = c
	}
	return c
}

func (t *tally) each(agent, mailbox, machine broker.ID, do func(*counts)) {
	if agent != "" {
		do(of(t.agents, agent))
	}
	if mailbox != "" {
		do(of(t.mailboxes, mailbox))
	}
	if machine != "" {
		do(of(t.machines, machine))
	}
}

func (t *tally) count(e *Event, s *session, c *counts) {
	t.total.add(c)
	t.slot(e.Time).add(c)
	t.each(e.AgentID, e.MailboxID, e.WorkstationID, func(whose *counts) { whose.add(c) })
	if s != nil {
		s.counts.add(c)
	}
	switch e.Type {
	case broker.EventSendResult:
		if dataOf[broker.SendResult](e).Outcome == "unknown" {
			t.unknown++
		}
	case broker.EventMessageOpen:
		d := dataOf[broker.MessageOpen](e)
		for _, m := range d.Messages {
			if m.MessageID == "" && !m.Continues {
				t.unnamed++
			}
		}
	case broker.EventMessageIdentify:
		t.unnamed--
	case broker.EventMessageFlag, broker.EventMessageCopy, broker.EventMessageMove, broker.EventMessageExpunge:
		if dataOf[broker.MessageChange](e).Outcome == broker.ChangeUnanswered {
			t.unanswered++
		}
	case broker.EventMessageAppend:
		if dataOf[broker.MessageAppend](e).Outcome == broker.ChangeUnanswered {
			t.unanswered++
		}
	case broker.EventSessionEnd:
		if dataOf[broker.SessionEnd](e).Reason == broker.EndStale {
			t.stale++
		}
	case broker.EventStateRestored:
		t.restored++
	case broker.EventWitnessSilent:
		t.unwitnessed++
	case broker.EventOutage:
		if d := dataOf[broker.Outage](e); d.Unrecorded() {
			t.unrecorded++
		}
	}
}

func (t *tally) mark(e *Event, c *counts) {
	kind := markKind(-1)
	switch {
	case c.Alarms > 0:
		kind = markAlarm
	case c.Refused > 0 || c.Failed > 0:
		kind = markRefused
	case c.Sent > 0:
		kind = markSent
	}
	if kind >= 0 && len(t.marks) < maxTimeline {
		t.marks = append(t.marks, mark{e.Time, e.AgentID, kind})
	}
}

// list keeps the line of an event, as far as there is room.
func (t *tally) list(e *Event, within, standing, alarm bool) {
	l := line{
		seq: e.Seq, at: e.Time, actor: e.Actor, mailbox: e.MailboxID, machine: e.WorkstationID, kind: e.Type, outside: !within, grave: alarm,
	}
	keep := func(list *[]line, most int, left *int64) {
		if len(*list) >= most {
			*left++
			return
		}
		if l.what == "" {
			l.what = describe(e)
		}
		*list = append(*list, l)
	}
	keep(&t.rows, maxRows, &t.rowsLeft)
	if standing && within {
		keep(&t.standing, maxStanding, &t.standingLeft)
	}
	if alarm && within {
		keep(&t.alarms, maxStanding, &t.alarmsLeft)
	}
}

// who is whose doing an event was.
func (t *tally) who(a broker.Actor) string {
	name := a.Name
	if name == "" {
		name = t.name(a.ID)
	}
	switch a.Kind {
	case "agent":
		return shown(name)
	case "system":
		return "Postern"
	case "stranger":
		return "unknown"
	}
	return strings.TrimSpace(shown(a.Kind + " " + name))
}

// name is that of a thing: an agent's as the log has it, else a directory's.
func (t *tally) name(id broker.ID) string {
	if id == "" {
		return ""
	}
	if name := t.agentNames[id]; name != "" {
		return name
	}
	if name := t.manifest.Names[id]; name != "" {
		t.used[id] = name
		return name
	}
	return string(id)
}

// end settles what was under way at the last event.
func (t *tally) end() {
	for _, s := range t.live {
		t.settle(s)
	}
}
