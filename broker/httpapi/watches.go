// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"

	"github.com/postern-mail/postern/broker"
)

// Watch is what the sentinel knows of a mailbox, and how it watches it.
type Watch struct {
	broker.Watch
	Mailbox string `json:"mailbox,omitempty" doc:"Its address."`
	// Terms are the firm's.
	Terms *broker.WatchTerms `json:"terms,omitempty"`
}

type watchesQuery struct {
	Firm string `query:"firm" doc:"Only this firm's, by id or name."`
}

func (a *api) registerWatches() {
	route(a, http.MethodGet, "/v1/watches", "list-watches", "List mailboxes as the sentinel found them", a.listWatches)
	route(a, http.MethodGet, "/v1/mailboxes/{mailbox}/watch", "get-watch", "Show a mailbox as the sentinel found it",
		func(ctx context.Context, in *mailboxPath) (*answer[*Watch], error) {
			m, err := a.findMailbox(ctx, "", in.Mailbox)
			if err != nil {
				return nil, err
			}
			return a.showWatch(ctx, m)
		})
	route(a, http.MethodPut, "/v1/mailboxes/{mailbox}/watch", "set-watch", "Say how the sentinel watches a mailbox", a.setWatch)
	route(a, http.MethodPost, "/v1/mailboxes/{mailbox}/watch/probe", "probe-mailbox", "Have the sentinel look at a mailbox now", a.probe)
}

func (a *api) showWatch(ctx context.Context, m *broker.Mailbox) (*answer[*Watch], error) {
	w, err := a.Watches.Watch(ctx, m.ID)
	if broker.CodeOf(err) == broker.NotFound { // it has just been added
		w, err = &broker.Watch{MailboxID: m.ID, FirmID: m.FirmID}, nil
	}
	if err != nil {
		return nil, err
	}
	return &answer[*Watch]{&Watch{Watch: *w, Mailbox: m.Address, Terms: m.Watch}}, nil
}

func (a *api) listWatches(ctx context.Context, in *watchesQuery) (*answer[List[*Watch]], error) {
	of := principal(ctx).FirmID
	if in.Firm != "" {
		firm, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		of = firm.ID
	}
	mailboxes, err := a.reads(ctx).Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	watches, err := a.Watches.Watches(ctx, of)
	if err != nil {
		return nil, err
	}
	byMailbox := make(map[broker.ID]*broker.Watch, len(watches))
	for _, w := range watches {
		byMailbox[w.MailboxID] = w
	}
	shown := make([]*Watch, 0, len(watches))
	for _, m := range mailboxes {
		if w := byMailbox[m.ID]; w != nil {
			shown = append(shown, &Watch{Watch: *w, Mailbox: m.Address, Terms: m.Watch})
		}
	}
	return listOf(shown), nil
}

func (a *api) setWatch(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	Body    broker.WatchTerms
},
) (*answer[*Watch], error) {
	m, err := a.changeMailbox(ctx, in.Mailbox, func(m *broker.Mailbox) error {
		m.Watch = &in.Body
		if !in.Body.Off && !in.Body.LockOnDrift && len(in.Body.Exceptions) == 0 {
			m.Watch = nil
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.showWatch(ctx, m)
}

func (a *api) probe(ctx context.Context, in *mailboxPath) (*answer[*Watch], error) {
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	if err := a.Watches.ProbeSoon(ctx, m.ID); err != nil {
		return nil, err
	}
	return a.showWatch(ctx, m)
}
