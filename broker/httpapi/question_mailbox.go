// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/reach"
)

// maxReach is how long a time the question can be about who could have read a
// mailbox: a month in which clocks are set back.
const maxReach = 31*24*time.Hour + 2*time.Hour

// MailboxAnswer tells who could have read a mailbox.
type MailboxAnswer struct {
	Mailbox   string         `json:"mailbox,omitempty" doc:"Its address at the end of that time."`
	MailboxID broker.ID      `json:"mailbox_id"`
	Since     time.Time      `json:"since"`
	Until     time.Time      `json:"until"`
	Days      []DayCount     `json:"days" nullable:"false" doc:"What was done in it, by day."`
	Items     []Reader       `json:"items" nullable:"false" doc:"Who was assigned to it at any time of that, as the record has it: by what stood then, not by what stands today."`
	Writers   []reach.Writer `json:"writers" nullable:"false" doc:"Who stored its credential: the last before that time, and all within it."`
	Gone
}

// Reader is an agent on an assignment, and what he could do when.
type Reader struct {
	reach.Reader
	Agent string `json:"agent,omitempty"`
	Used  bool   `json:"used" doc:"Whether he opened anything in it within that time."`
}

type mailboxQuestion struct {
	Mailbox string    `path:"mailbox" doc:"The mailbox, by address, or by id when it was removed."`
	Since   time.Time `query:"since" doc:"From when on; without it, the day before until, or the last 24 hours."`
	Until   time.Time `query:"until" doc:"Until when; without it, a day after since, or now. At most 31 days later."`
}

func (a *api) registerMailboxQuestion() {
	route(a, http.MethodGet, "/v1/questions/mailboxes/{mailbox}", "ask-mailbox",
		"Tell who could have read a mailbox, by what stood then", a.askMailbox)
}

func (a *api) askMailbox(ctx context.Context, in *mailboxQuestion) (*answer[MailboxAnswer], error) {
	s := Span{Since: in.Since, Until: in.Until}
	switch {
	case s.Until.IsZero() && s.Since.IsZero():
		s.Until = a.Now()
		s.Since = s.Until.AddDate(0, 0, -1)
	case s.Until.IsZero():
		s.Until = s.Since.AddDate(0, 0, 1)
	case s.Since.IsZero():
		s.Since = s.Until.AddDate(0, 0, -1)
	}
	if !s.Until.After(s.Since) || s.Until.Sub(s.Since) > maxReach {
		return nil, broker.InvalidField("until", "use a time of up to 31 days after since")
	}
	q, err := a.subjectQuery(ctx, "", "", &s)
	if err != nil {
		return nil, err
	}
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	var id, firm broker.ID
	if err == nil {
		id, firm = m.ID, m.FirmID
	}
	if id, err = a.subject(ctx, "mailbox", in.Mailbox, q, id, err); err != nil {
		return nil, err
	}
	q.Subjects = []broker.ID{id}
	if firm == "" { // it is gone: whose it was its events tell
		events, _, err := a.Questions.SubjectEvents(ctx, broker.SubjectQuery{Subjects: q.Subjects, FirmID: q.FirmID, Limit: 1})
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			return nil, broker.Errorf(broker.NotFound, "there is no mailbox %q", in.Mailbox)
		}
		firm = events[0].FirmID
	}
	own := principal(ctx).FirmID == ""
	found, err := reach.Of(ctx, a.Events, reach.Question{FirmID: firm, MailboxID: id, Since: s.Since, Until: s.Until, BPO: own})
	if err != nil {
		return nil, err
	}
	counts, err := a.Questions.CountSubjects(ctx, q, s.zone())
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	used := map[broker.ID]bool{}
	for _, c := range counts {
		if c.Activity == broker.ActivityRead || c.Activity == broker.ActivitySync {
			used[c.Other] = true
		}
	}
	out := MailboxAnswer{
		Mailbox: found.Address, MailboxID: id, Since: s.Since, Until: s.Until, Days: byDay(counts),
		Items: make([]Reader, len(found.Readers)), Writers: found.Writers,
	}
	if out.Gone, err = a.gone(ctx, firm, s.Since); err != nil {
		return nil, err
	}
	if out.Namesakes, err = a.namesakes(ctx, firm, "mailbox", in.Mailbox, id, q); err != nil {
		return nil, err
	}
	for i, r := range found.Readers {
		out.Items[i] = Reader{r, names.agents[r.AgentID], used[r.AgentID]}
	}
	return &answer[MailboxAnswer]{out}, nil
}
