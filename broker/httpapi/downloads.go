// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// reportPage is how many events a report reads at a time.
const reportPage = 5000

// Downloads are what went to workstations since a day, by the record.
type Downloads struct {
	Since     time.Time  `json:"since"`
	Downloads []Download `json:"downloads" nullable:"false" doc:"What was downloaded since then, by workstation and mailbox. Messages, whole or in parts, lie in the mail client's cache there as a rule, and no revoke recalls them."`
	// Complete is false when the logs were longer than the time, or shorter by what
	// was pruned.
	Complete bool `json:"complete" doc:"Whether all of the logs since then were read, and nothing of that time was pruned."`
}

// Download is what one agent downloaded from one mailbox to one workstation.
type Download struct {
	Workstation   string    `json:"workstation,omitempty"`
	WorkstationID broker.ID `json:"workstation_id,omitempty" doc:"None: a machine of a network-only site."`
	Agent         string    `json:"agent,omitempty"`
	AgentID       broker.ID `json:"agent_id"`
	Firm          string    `json:"firm,omitempty"`
	Mailbox       string    `json:"mailbox,omitempty"`
	MailboxID     broker.ID `json:"mailbox_id"`
	Messages      int       `json:"messages" doc:"Messages of which anything was opened, each once."`
	Whole         int       `json:"whole" doc:"Those of them that were downloaded whole."`
	Parts         int       `json:"parts" doc:"Those of which text or attachments were downloaded in parts, which may add up to the whole."`
	Octets        int64     `json:"octets"`
	First         time.Time `json:"first"`
	Last          time.Time `json:"last"`
}

type downloadKey struct{ agent, workstation, firm, mailbox broker.ID }

// messageKey is a message as IMAP names it for good (RFC 9051 §2.3.1.1).
type messageKey struct {
	folder           string
	uidValidity, uid uint32
}

// tally counts one Download.
type tally struct {
	first, last time.Time
	// agent is his name in the record, for one who was removed.
	agent    string
	octets   int64
	messages map[messageKey]extent
}

// extent is how much of a message was downloaded at most.
type extent int

const (
	fields extent = iota // of its header
	parts                // of its body
	whole
)

// extentOf reads the section of a FETCH response (RFC 9051 §7.5.2, RFC 3516
// §4.2). A part of a section ends in <origin>: mail clients fetch long messages
// so, and have them whole at the end, which no one response shows.
func extentOf(section string) extent {
	section = strings.ToUpper(section)
	switch section {
	case "BODY[]", "BINARY[]", "RFC822":
		return whole
	case "RFC822.HEADER":
		return fields
	}
	inside, _, _ := strings.Cut(section[strings.IndexByte(section, '[')+1:], "]")
	if strings.HasPrefix(inside, "HEADER") || strings.HasSuffix(inside, ".MIME") {
		return fields
	}
	return parts
}

func (a *api) registerDownloads() {
	route(a, http.MethodGet, "/v1/downloads", "list-downloads",
		"Report what an agent downloaded, or what was downloaded to a workstation, those that were removed among them",
		func(ctx context.Context, in *struct {
			Agent       string `query:"agent" doc:"An agent, by id or (while he is there) name."`
			Workstation string `query:"workstation" doc:"A workstation, by id or (while it is there) name."`
			Days        int    `query:"days" minimum:"1" maximum:"366" doc:"How far back it looks; 30 unless given."`
		},
		) (*answer[Downloads], error) {
			if (in.Agent == "") == (in.Workstation == "") {
				return nil, broker.InvalidField("agent", "give one of agent and workstation")
			}
			id := broker.ID(in.Agent + in.Workstation)
			if _, err := broker.ParseID(string(id)); err != nil {
				if in.Agent != "" {
					g, err := a.findAgent(ctx, "agent", in.Agent)
					if err != nil {
						return nil, err
					}
					id = g.ID
				} else {
					w, err := a.findWorkstation(ctx, "workstation", in.Workstation)
					if err != nil {
						return nil, err
					}
					id = w.ID
				}
			}
			match := func(e *broker.Event) bool { return e.AgentID == id }
			if in.Workstation != "" {
				match = func(e *broker.Event) bool { return e.WorkstationID == id }
			}
			names, err := a.directory(ctx)
			if err != nil {
				return nil, err
			}
			return &answer[Downloads]{a.downloads(ctx, in.Days, names, match)}, nil
		})
}

// downloads reads what the logs hold of the events that match. What cannot be
// read leaves the report incomplete: it comes after something was taken away,
// and must not make that look undone. names are from before that.
func (a *api) downloads(ctx context.Context, days int, names *directory, match func(*broker.Event) bool) Downloads {
	if days == 0 {
		days = defaultReportDays
	}
	out := Downloads{Since: a.Now().UTC().AddDate(0, 0, -days), Downloads: []Download{}}
	tallies := map[downloadKey]*tally{}
	err := a.readLogs(ctx, out.Since, broker.EventMessageOpen, func(e *broker.StoredEvent) {
		opened, ok := e.Data.(broker.MessageOpen)
		if !ok || !match(&e.Event) || e.Time.Before(out.Since) {
			return
		}
		key := downloadKey{e.AgentID, e.WorkstationID, e.FirmID, e.MailboxID}
		t := tallies[key]
		if t == nil {
			t = &tally{first: e.Time, agent: e.Actor.Name, messages: map[messageKey]extent{}}
			tallies[key] = t
		}
		t.last = e.Time
		t.add(&opened)
	})
	gone, unknown := a.gone(ctx, "", out.Since)
	err = errors.Join(err, unknown)
	out.Complete = err == nil && gone.PrunedUntil.IsZero()
	if err != nil {
		a.Logger.Error("a report of downloads is not complete", zap.Error(err))
	}
	for key, t := range tallies {
		d := Download{
			WorkstationID: key.workstation, Workstation: names.workstations[key.workstation],
			AgentID: key.agent, Agent: cmp.Or(names.agents[key.agent], t.agent), Firm: names.firms[key.firm],
			MailboxID: key.mailbox, Mailbox: names.mailboxes[key.mailbox],
			Messages: len(t.messages), Octets: t.octets, First: t.first, Last: t.last,
		}
		for _, e := range t.messages {
			switch e {
			case whole:
				d.Whole++
			case parts:
				d.Parts++
			}
		}
		out.Downloads = append(out.Downloads, d)
	}
	slices.SortFunc(out.Downloads, func(x, y Download) int { return x.First.Compare(y.First) })
	return out
}

func (t *tally) add(opened *broker.MessageOpen) {
	for _, m := range opened.Messages {
		t.octets += m.Octets
		if m.UID == 0 {
			continue // a second entry tells its UID
		}
		key := messageKey{opened.Folder, opened.UIDValidity, m.UID}
		t.messages[key] = max(t.messages[key], extentOf(m.Section))
	}
}

// use is who and what was used on a workstation.
// directory are the agents who typed their directory's password there.
type use struct{ agents, passwords, directory map[broker.ID]bool }

// usedOn reads which agents worked on a workstation, with which app passwords.
func (a *api) usedOn(ctx context.Context, workstation broker.ID, days int) (use, error) {
	u := use{map[broker.ID]bool{}, map[broker.ID]bool{}, map[broker.ID]bool{}}
	note := func(s *broker.Session) {
		if s.WorkstationID != workstation {
			return
		}
		u.agents[s.AgentID] = true
		if s.AppPasswordID != "" {
			u.passwords[s.AppPasswordID] = true
		}
		if s.Authentication == broker.AuthLDAP {
			u.directory[s.AgentID] = true
		}
	}
	for _, s := range a.Sessions.Live() {
		note(s)
	}
	if days == 0 {
		days = defaultReportDays
	}
	err := a.readLogs(ctx, a.Now().AddDate(0, 0, -days), broker.EventSessionOpen, func(e *broker.StoredEvent) {
		if opened, ok := e.Data.(broker.SessionOpen); ok {
			note(&opened.Session)
		}
	})
	if err != nil {
		a.Logger.Error("which app passwords were used on a workstation is not known for certain", zap.Error(err))
	}
	return u, err
}

// readLogs reads the events of a type in every firm's log since an instant.
func (a *api) readLogs(ctx context.Context, since time.Time, typ broker.EventType, each func(*broker.StoredEvent)) error {
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	firms, err := a.State.Firms(ctx)
	if err != nil {
		return err
	}
	for _, f := range firms {
		after, err := a.seqBefore(ctx, f.ID, since)
		if err != nil {
			return err
		}
		for {
			page, err := a.Events.Events(ctx, broker.EventQuery{FirmID: f.ID, After: after, Type: typ, Limit: reportPage})
			if err != nil {
				return err
			}
			for _, e := range page {
				each(e)
			}
			if len(page) < reportPage {
				break
			}
			after = page[len(page)-1].Seq
		}
	}
	return nil
}

// seqBefore finds the last event of a log before an instant, by halving: the
// events of a log are in the order of their time, but for the moments that they
// waited to be written.
func (a *api) seqBefore(ctx context.Context, firm broker.ID, since time.Time) (int64, error) {
	since = since.Add(-time.Minute)
	before := func(seq int64) (bool, error) {
		page, err := a.Events.Events(ctx, broker.EventQuery{FirmID: firm, After: seq - 1, Limit: 1})
		if err != nil || len(page) == 0 {
			return false, err
		}
		return page[0].Time.Before(since), nil
	}
	low, high := int64(-1), int64(1)
	for {
		is, err := before(high)
		if err != nil {
			return 0, err
		}
		if !is {
			break
		}
		low, high = high, high*2
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		is, err := before(middle)
		if err != nil {
			return 0, err
		}
		if is {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// indexed names an element of a member.
func indexed(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
