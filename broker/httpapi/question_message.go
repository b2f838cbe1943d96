// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/postern-mail/postern/broker"
)

// MessageAnswer tells who opened a message.
type MessageAnswer struct {
	Days  []DayCount `json:"days" nullable:"false" doc:"What there is in all, by day; on the first page alone."`
	Items []Told     `json:"items" nullable:"false" doc:"Who opened the message, oldest first; and where the Message-ID was asked for, who appended or sent one that has it."`
	Next  string     `json:"next,omitempty" doc:"There is more: what to give as cursor, for the page that follows."`
	Gone
}

type messageQuestion struct {
	MessageID   string            `query:"message_id" doc:"The message's Message-ID; its sender chose it, and may have given it to several."`
	Mailbox     string            `query:"mailbox" doc:"Or where the message is: the mailbox, by id or address,"`
	Folder      string            `query:"folder" doc:"its folder,"`
	UIDValidity uint32            `query:"uid_validity" doc:"the folder's UIDVALIDITY,"`
	UID         uint32            `query:"uid" doc:"and the message's UID."`
	Activity    []broker.Activity `query:"activity" enum:"read,sync,append,submit,sent,unsent,alert" doc:"Only what has one of these, separated by commas."`
	Firm        string            `query:"firm" doc:"Only this firm's log, by id or name."`
	Span
}

func (a *api) registerQuestions() {
	route(a, http.MethodGet, "/v1/questions/messages", "ask-message", "Tell who opened a message", a.askMessage)
	a.registerSubjectQuestions()
	a.registerMailboxQuestion()
}

func (a *api) askMessage(ctx context.Context, in *messageQuestion) (*answer[MessageAnswer], error) {
	firm, err := a.logsAsked(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	q := broker.MessageQuery{
		MessageID: in.MessageID, Folder: in.Folder, UIDValidity: in.UIDValidity, UID: in.UID, FirmID: firm,
		Since: in.Since, Until: in.Until, Activities: in.Activity, Limit: in.limit(),
	}
	place := in.Mailbox != "" || in.Folder != "" || in.UIDValidity != 0 || in.UID != 0
	switch {
	case (in.MessageID != "") == place:
		return nil, broker.InvalidField("message_id", "give a Message-ID, or mailbox, folder, UIDVALIDITY and UID")
	case place && (in.Mailbox == "" || in.Folder == "" || in.UIDValidity == 0 || in.UID == 0):
		return nil, broker.InvalidField("uid", "a message's place is its mailbox, folder, UIDVALIDITY and UID: give all four")
	case place:
		m, err := a.anyMailbox(ctx, in.Mailbox)
		if err != nil {
			return nil, err
		}
		q.MailboxID = m
	}
	if q.After, err = in.after(); err != nil {
		return nil, err
	}
	events, next, err := a.Questions.MessageEvents(ctx, q)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	out := MessageAnswer{Days: []DayCount{}, Items: make([]Told, len(events)), Next: cursor(next)}
	for i, e := range events {
		out.Items[i] = tell(e.StoredEvent, names)
		out.Items[i].Opened = openedParts(e)
	}
	since := q.Since
	if q.MessageID != "" {
		since = time.Time{} // what tied the Message-ID to a place may be older
	}
	if out.Gone, err = a.gone(ctx, q.FirmID, since); err != nil {
		return nil, err
	}
	if q.After == nil {
		counts, err := a.Questions.CountMessage(ctx, q, in.zone())
		if err != nil {
			return nil, err
		}
		out.Days = byDay(counts)
	}
	return &answer[MessageAnswer]{out}, nil
}

func openedParts(e *broker.MessageEvent) (all []OpenedPart) {
	where, ok := e.Data.(broker.MessageOpen)
	for _, m := range e.Opened {
		if ok {
			all = append(all, OpenedPart{where.Folder, where.UIDValidity, m.UID, m.MessageID, m.Section, m.Octets})
		}
	}
	return all
}

// anyMailbox returns the id of a mailbox, which may be gone.
func (a *api) anyMailbox(ctx context.Context, ref string) (broker.ID, error) {
	if id, err := broker.ParseID(ref); err == nil {
		return id, nil
	}
	m, err := a.findMailbox(ctx, "mailbox", ref)
	if err != nil {
		return "", err
	}
	return m.ID, nil
}
