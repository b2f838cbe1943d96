// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
)

// MailboxUse is what was done in a mailbox, by the record.
type MailboxUse struct {
	Firm       string    `json:"firm,omitempty"`
	Mailbox    string    `json:"mailbox,omitempty"`
	MailboxID  broker.ID `json:"mailbox_id"`
	Events     int64     `json:"events"`
	Sessions   int64     `json:"sessions" doc:"Those that began."`
	Read       int64     `json:"read" doc:"Messages that were opened one by one; one that was opened twice counts twice."`
	Downloaded int64     `json:"downloaded" doc:"Messages that were opened faster than a person reads: a mail client's synchronisation, or an export."`
	Octets     int64     `json:"octets" doc:"Of what was opened."`
	Sent       int64     `json:"sent" doc:"Messages that the mail server took."`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
}

// AgentAnswer tells what an agent did.
type AgentAnswer struct {
	Agent     string       `json:"agent,omitempty"`
	AgentID   broker.ID    `json:"agent_id"`
	Days      []DayCount   `json:"days" nullable:"false" doc:"What there is in all, by day; on the first page alone."`
	Mailboxes []MailboxUse `json:"mailboxes" nullable:"false" doc:"The same, by mailbox."`
	Items     []Told       `json:"items" nullable:"false" doc:"What he did, oldest first."`
	Next      string       `json:"next,omitempty" doc:"There is more: what to give as cursor, for the page that follows."`
	Gone
}

// WorkstationAnswer tells which mailboxes a workstation was in.
type WorkstationAnswer struct {
	Workstation   string       `json:"workstation,omitempty"`
	WorkstationID broker.ID    `json:"workstation_id"`
	Days          []DayCount   `json:"days" nullable:"false" doc:"What there is in all, by day; on the first page alone."`
	Mailboxes     []MailboxUse `json:"mailboxes" nullable:"false" doc:"The same, by mailbox."`
	Items         []*Session   `json:"items" nullable:"false" doc:"The sessions that there were at any time of it, by their end; those that live come last."`
	Next          string       `json:"next,omitempty" doc:"There is more: what to give as cursor, for the page that follows."`
	Gone
}

type agentQuestion struct {
	Agent    string            `path:"agent" doc:"The agent, by name, or by id when he was removed."`
	Mailbox  string            `query:"mailbox" doc:"Only what he did in this mailbox, by id or address."`
	Activity []broker.Activity `query:"activity" enum:"session,session-end,read,sync,change,delete,append,submit,sent,unsent,refused,failed,alert,control,other" doc:"Only what has one of these, separated by commas; without it: what he opened, appended and sent."`
	Firm     string            `query:"firm" doc:"Only this firm's log, by id or name."`
	Span
}

type workstationQuestion struct {
	Workstation string `path:"workstation" doc:"The workstation, by name, or by id when it was removed."`
	Mailbox     string `query:"mailbox" doc:"Only its sessions in this mailbox, by id or address."`
	Firm        string `query:"firm" doc:"Only this firm's log, by id or name."`
	Span
}

// work is what an agent opens, exports and sends.
func work() []broker.Activity {
	return []broker.Activity{
		broker.ActivityRead, broker.ActivitySync, broker.ActivityAppend, broker.ActivitySubmit, broker.ActivitySent, broker.ActivityUnsent,
	}
}

// subjectQuery makes a question of what is common to all about a subject.
func (a *api) subjectQuery(ctx context.Context, firm, mailbox string, s *Span) (q broker.SubjectQuery, err error) {
	q = broker.SubjectQuery{Since: s.Since, Until: s.Until, Limit: s.limit()}
	if q.FirmID, err = a.logsAsked(ctx, firm); err != nil {
		return q, err
	}
	if mailbox != "" {
		if q.Other, err = a.anyMailbox(ctx, mailbox); err != nil {
			return q, err
		}
	}
	q.After, err = s.after()
	return q, err
}

// subject returns the id of what a question is about: of what was removed, by its
// id alone. For a firm's people there is only what its log knows: so what is
// another firm's is as little there as what is nobody's.
func (a *api) subject(ctx context.Context, kind, ref string, q broker.SubjectQuery, id broker.ID, err error) (broker.ID, error) {
	none := broker.Errorf(broker.NotFound, "there is no %s %q", kind, ref)
	if broker.CodeOf(err) == broker.NotFound {
		if id, err = broker.ParseID(ref); err != nil {
			return "", none
		}
	}
	if err != nil || q.FirmID == "" {
		return id, err
	}
	q = broker.SubjectQuery{Subjects: []broker.ID{id}, FirmID: q.FirmID, Limit: 1}
	known, _, err := a.Questions.SubjectEvents(ctx, q)
	if err != nil || len(known) > 0 {
		return id, err
	}
	gone, err := a.gone(ctx, q.FirmID, time.Time{})
	if err == nil {
		err = none
		if !gone.PrunedUntil.IsZero() {
			err = broker.Errorf(broker.NotFound, "there is no %s %q in the record; what it held up to %s was pruned", kind, ref, gone.PrunedUntil.Format(time.RFC3339))
		}
	}
	return id, err
}

func (a *api) askAgent(ctx context.Context, in *agentQuestion) (*answer[AgentAnswer], error) {
	q, err := a.subjectQuery(ctx, in.Firm, in.Mailbox, &in.Span)
	if err != nil {
		return nil, err
	}
	g, err := a.findAgent(ctx, "", in.Agent)
	var id broker.ID
	if err == nil {
		id = g.ID
	}
	if id, err = a.subject(ctx, "agent", in.Agent, q, id, err); err != nil {
		return nil, err
	}
	q.Subjects, q.Activities = []broker.ID{id}, in.Activity
	if len(q.Activities) == 0 {
		q.Activities = work()
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	events, next, err := a.Questions.SubjectEvents(ctx, q)
	if err != nil {
		return nil, err
	}
	out := AgentAnswer{
		Agent: names.agents[id], AgentID: id, Days: []DayCount{}, Mailboxes: []MailboxUse{}, Items: tellAll(events, names), Next: cursor(next),
	}
	if out.Gone, err = a.gone(ctx, q.FirmID, q.Since); err != nil {
		return nil, err
	}
	if out.Namesakes, err = a.namesakes(ctx, "", "agent", in.Agent, id, q); err != nil {
		return nil, err
	}
	if q.After == nil {
		if out.Days, out.Mailboxes, err = a.uses(ctx, q, in.zone()); err != nil {
			return nil, err
		}
	}
	return &answer[AgentAnswer]{out}, nil
}

func (a *api) askWorkstation(ctx context.Context, in *workstationQuestion) (*answer[WorkstationAnswer], error) {
	q, err := a.subjectQuery(ctx, in.Firm, in.Mailbox, &in.Span)
	if err != nil {
		return nil, err
	}
	w, err := a.findWorkstation(ctx, "", in.Workstation)
	var id broker.ID
	if err == nil {
		id = w.ID
	}
	if id, err = a.subject(ctx, "workstation", in.Workstation, q, id, err); err != nil {
		return nil, err
	}
	q.Subjects = []broker.ID{id}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	found, next, err := a.Questions.SubjectSessions(ctx, q)
	if err != nil {
		return nil, err
	}
	out := WorkstationAnswer{
		Workstation: names.workstations[id], WorkstationID: id, Days: []DayCount{}, Mailboxes: []MailboxUse{},
		Items: make([]*Session, len(found)), Next: cursor(next),
	}
	for i, s := range found {
		out.Items[i] = showSession(s, names)
	}
	if out.Gone, err = a.gone(ctx, q.FirmID, q.Since); err != nil {
		return nil, err
	}
	if out.Namesakes, err = a.namesakes(ctx, "", "workstation", in.Workstation, id, q); err != nil {
		return nil, err
	}
	if q.After == nil {
		if out.Days, out.Mailboxes, err = a.uses(ctx, q, in.zone()); err != nil {
			return nil, err
		}
	}
	return &answer[WorkstationAnswer]{out}, nil
}

// uses counts what a question is about, by day and by mailbox.
func (a *api) uses(ctx context.Context, q broker.SubjectQuery, zone int) ([]DayCount, []MailboxUse, error) {
	counts, err := a.Questions.CountSubjects(ctx, q, zone)
	if err != nil {
		return nil, nil, err
	}
	mailboxes, err := a.reads(ctx).Mailboxes(ctx)
	if err != nil {
		return nil, nil, err
	}
	firms, err := a.reads(ctx).Firms(ctx)
	if err != nil {
		return nil, nil, err
	}
	by := map[broker.ID]*MailboxUse{}
	for _, c := range counts {
		if c.Other == "" {
			continue // no mailbox's affair
		}
		u := by[c.Other]
		if u == nil {
			u = &MailboxUse{MailboxID: c.Other, First: c.First, Last: c.Last}
			by[c.Other] = u
		}
		u.add(&c)
	}
	all := []MailboxUse{}
	for _, u := range by {
		all = append(all, *u)
	}
	for i := range all {
		for _, m := range mailboxes {
			if m.ID == all[i].MailboxID {
				all[i].Mailbox = m.Address
				for _, f := range firms {
					if f.ID == m.FirmID {
						all[i].Firm = f.Name
					}
				}
			}
		}
	}
	slices.SortFunc(all, func(x, y MailboxUse) int {
		return cmp.Or(x.First.Compare(y.First), strings.Compare(string(x.MailboxID), string(y.MailboxID)))
	})
	return byDay(counts), all, nil
}

func (u *MailboxUse) add(c *broker.ActivityCount) {
	u.Events += c.Events
	switch c.Activity {
	case broker.ActivitySession:
		u.Sessions += c.Events
	case broker.ActivityRead:
		u.Read, u.Octets = u.Read+c.Messages, u.Octets+c.Octets
	case broker.ActivitySync:
		u.Downloaded, u.Octets = u.Downloaded+c.Messages, u.Octets+c.Octets
	case broker.ActivitySent:
		u.Sent += c.Messages
	}
	if c.First.Before(u.First) {
		u.First = c.First
	}
	if c.Last.After(u.Last) {
		u.Last = c.Last
	}
}

// AroundAlert is what an alert is about, and how much there was around it.
type AroundAlert struct {
	Kind string     `json:"kind" enum:"mailbox,agent,workstation"`
	ID   broker.ID  `json:"id"`
	Name string     `json:"name,omitempty"`
	Days []DayCount `json:"days" nullable:"false"`
}

// BeforeAlert tells what happened before an alert, around what it is about.
type BeforeAlert struct {
	Alert    *Alert        `json:"alert"`
	Since    time.Time     `json:"since"`
	Until    time.Time     `json:"until" doc:"When the alert was raised, or last opened again; that is in it."`
	Subjects []AroundAlert `json:"subjects" nullable:"false" doc:"What the alert is about, and how much there was around each; on the first page alone."`
	Items    []Told        `json:"items" nullable:"false" doc:"What happened around them, oldest first."`
	Next     string        `json:"next,omitempty" doc:"There is more: what to give as cursor, for the page that follows."`
	Gone
}

type alertQuestion struct {
	Alert    string `path:"alert" doc:"The alert's id."`
	Minutes  int    `query:"minutes" minimum:"1" maximum:"44640" doc:"How long before it; 60 unless given."`
	PageSize int    `query:"page_size" minimum:"1" maximum:"10000" doc:"How many events a page has at most; 1000 unless given. It may have fewer though there are more."`
	Cursor   string `query:"cursor" doc:"The next member of the page before, for the page that follows, which has no counts."`
}

func (a *api) askAlert(ctx context.Context, in *alertQuestion) (*answer[BeforeAlert], error) {
	x, err := a.findAlert(ctx, in.Alert)
	if err != nil {
		return nil, err
	}
	s := Span{PageSize: in.PageSize, Cursor: in.Cursor, Until: x.OpenedAt.Add(time.Microsecond)}
	s.Since = x.OpenedAt.Add(-time.Duration(cmp.Or(in.Minutes, 60)) * time.Minute)
	q, err := a.subjectQuery(ctx, "", "", &s)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown, err := a.showAlert(ctx, x, names)
	if err != nil {
		return nil, err
	}
	out := BeforeAlert{Alert: shown, Since: s.Since, Until: s.Until, Subjects: []AroundAlert{}, Items: []Told{}}
	if out.Gone, err = a.gone(ctx, q.FirmID, s.Since); err != nil {
		return nil, err
	}
	for _, about := range []AroundAlert{
		{Kind: "mailbox", ID: x.MailboxID, Name: names.mailboxes[x.MailboxID]},
		{Kind: "agent", ID: x.AgentID, Name: names.agents[x.AgentID]},
		{Kind: "workstation", ID: x.WorkstationID, Name: names.workstations[x.WorkstationID]},
	} {
		if about.ID == "" {
			continue
		}
		q.Subjects = append(q.Subjects, about.ID)
		if about.Days = []DayCount{}; q.After == nil {
			one := q
			one.Subjects = []broker.ID{about.ID}
			counts, err := a.Questions.CountSubjects(ctx, one, s.zone())
			if err != nil {
				return nil, err
			}
			about.Days = byDay(counts)
		}
		out.Subjects = append(out.Subjects, about)
	}
	if len(q.Subjects) == 0 {
		return &answer[BeforeAlert]{out}, nil
	}
	events, next, err := a.Questions.SubjectEvents(ctx, q)
	if err != nil {
		return nil, err
	}
	out.Items, out.Next = tellAll(events, names), cursor(next)
	return &answer[BeforeAlert]{out}, nil
}

func tellAll(events []*broker.StoredEvent, names *directory) []Told {
	all := make([]Told, len(events))
	for i, e := range events {
		all[i] = tell(e, names)
	}
	return all
}

func (a *api) registerSubjectQuestions() {
	route(a, http.MethodGet, "/v1/questions/agents/{agent}", "ask-agent", "Tell what an agent opened, exported and sent", a.askAgent)
	route(a, http.MethodGet, "/v1/questions/workstations/{workstation}", "ask-workstation", "Tell which mailboxes a workstation was in", a.askWorkstation)
	route(a, http.MethodGet, "/v1/questions/alerts/{alert}", "ask-alert", "Tell what happened before an alert, around what it is about", a.askAlert)
}
