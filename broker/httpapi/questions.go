// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/reach"
)

// Told is an event that answers a question.
type Told struct {
	Activity      broker.Activity `json:"activity" doc:"What it tells, in a word."`
	Time          time.Time       `json:"time"`
	Firm          string          `json:"firm,omitempty"`
	FirmID        broker.ID       `json:"firm_id,omitempty" doc:"In whose log it stands; none: the BPO's own."`
	Seq           int64           `json:"seq" doc:"Its place there."`
	Mailbox       string          `json:"mailbox,omitempty"`
	MailboxID     broker.ID       `json:"mailbox_id,omitempty"`
	Agent         string          `json:"agent,omitempty"`
	AgentID       broker.ID       `json:"agent_id,omitempty"`
	Workstation   string          `json:"workstation,omitempty"`
	WorkstationID broker.ID       `json:"workstation_id,omitempty" doc:"None: a machine of a network-only site, or no session's affair."`
	SessionID     broker.ID       `json:"session_id,omitempty"`
	Opened        []OpenedPart    `json:"opened,omitempty" doc:"What was opened of the message that was asked for."`
	Record        json.RawMessage `json:"record" doc:"The event as it stands in the log."`
}

// OpenedPart is what one answer of the mail server gave of a message.
type OpenedPart struct {
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uid_validity"`
	UID         uint32 `json:"uid" doc:"0: the server did not tell."`
	MessageID   string `json:"message_id,omitempty"`
	Section     string `json:"section"`
	Octets      int64  `json:"octets"`
}

// Gone tells of what is not in the answer.
type Gone struct {
	PrunedUntil time.Time   `json:"pruned_until,omitzero" doc:"Records from before then were pruned, some or all: the answer holds what is left. Only where the time that was asked for reaches there."`
	Namesakes   []broker.ID `json:"namesakes,omitempty" doc:"Others that had the name or address that was asked for, in the time that was: the answer is not about them. Ask by id."`
}

// gone says how far pruning reaches into the time of a question.
func (a *api) gone(ctx context.Context, firm broker.ID, since time.Time) (Gone, error) {
	of := &firm
	if firm == "" {
		of = nil // all logs are asked
	}
	until, err := a.Retentions.PrunedUntil(ctx, of)
	if err != nil || !until.After(since) {
		return Gone{}, err
	}
	return Gone{PrunedUntil: until}, nil
}

// namesakes finds who else had a name in the time of a question, as a log tells: of
// mailboxes their firm's, of the BPO's own things its own, for its people.
func (a *api) namesakes(ctx context.Context, log broker.ID, kind, ref string, id broker.ID, q broker.SubjectQuery) ([]broker.ID, error) {
	if _, err := broker.ParseID(ref); err == nil || log == "" && principal(ctx).FirmID != "" {
		return nil, nil // it was asked for by id, or is not for the asker
	}
	field := "name"
	if kind == "mailbox" {
		field = "address"
	}
	all, err := reach.Named(ctx, a.Events, log, kind, field, ref, q.Since, q.Until)
	return slices.DeleteFunc(all, func(x broker.ID) bool { return x == id }), err
}

// DayCount is how much of an activity a day had.
type DayCount struct {
	Day      string          `json:"day" doc:"In the zone of since, or else UTC."`
	Activity broker.Activity `json:"activity"`
	Events   int64           `json:"events"`
	Messages int64           `json:"messages" doc:"Messages that the events tell of: one that was opened twice counts twice."`
	Octets   int64           `json:"octets"`
}

// Span bounds a question's times, and pages its answer.
type Span struct {
	Since    time.Time `query:"since" doc:"Only what was then or later."`
	Until    time.Time `query:"until" doc:"Only what was before then."`
	PageSize int       `query:"page_size" minimum:"1" maximum:"10000" doc:"How many events a page has at most; 1000 unless given. It may have fewer though there are more."`
	Cursor   string    `query:"cursor" doc:"The next member of the page before, for the page that follows, which has no counts."`
}

// zone is that of since, in seconds east of UTC.
func (s *Span) zone() int {
	_, offset := s.Since.Zone()
	return offset
}

func (s *Span) limit() int {
	if s.PageSize == 0 {
		return defaultPage
	}
	return s.PageSize
}

// after is the place that the page before ended with.
func (s *Span) after() (*broker.Place, error) {
	if s.Cursor == "" {
		return nil, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s.Cursor)
	parts := strings.Split(string(text), " ")
	if err == nil && len(parts) == 3 {
		micros, err1 := strconv.ParseInt(parts[0], 10, 64)
		seq, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err1 == nil && err2 == nil {
			return &broker.Place{Time: time.UnixMicro(micros), Seq: seq, Log: broker.ID(parts[2])}, nil
		}
	}
	return nil, broker.InvalidField("cursor", "is none that was given out")
}

// cursor is what to ask with for the page that follows a place.
func cursor(p *broker.Place) string {
	if p == nil {
		return ""
	}
	text := strconv.FormatInt(p.Time.UnixMicro(), 10) + " " + strconv.FormatInt(p.Seq, 10) + " " + string(p.Log)
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// logsAsked says which logs a question reads: of a firm's people, their own alone;
// of others the named one, or all.
func (a *api) logsAsked(ctx context.Context, firm string) (broker.ID, error) {
	p := principal(ctx)
	if p.Role.OfFirm() && p.FirmID == "" {
		return "", broker.Errorf(broker.Refused, "this is not for your role")
	}
	if firm == "" {
		return p.FirmID, nil
	}
	f, err := a.findFirm(ctx, "firm", firm)
	if err != nil {
		return "", err
	}
	return f.ID, nil
}

// tell shows an event with the names of what it is about.
func tell(e *broker.StoredEvent, names *directory) Told {
	t := Told{
		Activity: broker.ActivityOf(&e.Event), Time: e.Time, FirmID: e.FirmID, Firm: names.firms[e.FirmID], Seq: e.Seq,
		MailboxID: e.MailboxID, Mailbox: names.mailboxes[e.MailboxID], AgentID: e.AgentID, Agent: names.agents[e.AgentID],
		WorkstationID: e.WorkstationID, Workstation: names.workstations[e.WorkstationID], SessionID: e.SessionID, Record: e.Record,
	}
	if t.Agent == "" && e.AgentID != "" && e.Actor.ID == e.AgentID {
		t.Agent = e.Actor.Name // he was removed
	}
	return t
}

// byDay adds up counts by day and activity; they are in that order.
func byDay(counts []broker.ActivityCount) []DayCount {
	all := []DayCount{}
	for _, c := range counts {
		if n := len(all); n == 0 || all[n-1].Day != c.Day || all[n-1].Activity != c.Activity {
			all = append(all, DayCount{Day: c.Day, Activity: c.Activity})
		}
		d := &all[len(all)-1]
		d.Events, d.Messages, d.Octets = d.Events+c.Events, d.Messages+c.Messages, d.Octets+c.Octets
	}
	return all
}
