// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// CanaryInput marks a message: by its place, by its Message-ID, or by both.
type CanaryInput struct {
	Folder      string `json:"folder,omitempty" doc:"The folder's name, as people read it." example:"Board"`
	UID         uint32 `json:"uid,omitempty" doc:"The message's UID there."`
	UIDValidity uint32 `json:"uid_validity,omitempty" doc:"The folder's UIDVALIDITY; without it, the one that the sentinel has read."`
	MessageID   string `json:"message_id,omitempty" doc:"Its copies are canaries too." example:"<minutes@acme.example>"`
	Note        string `json:"note,omitempty" doc:"For yourselves."`
}

type canaryPath struct {
	Canary string `path:"canary" doc:"Id."`
}

func (a *api) registerCanaries() {
	const path = "/v1/mailboxes/{mailbox}/canaries"
	route(a, http.MethodGet, path, "list-canaries", "List the messages whose opening raises an alert", a.listCanaries)
	route(a, http.MethodPost, path, "create-canary", "Have the opening of a message raise an alert", a.createCanary)
	route(a, http.MethodDelete, "/v1/canaries/{canary}", "remove-canary", "Have the opening of a message raise an alert no more", a.removeCanary)
}

func (a *api) listCanaries(ctx context.Context, in *mailboxPath) (*answer[List[*broker.Canary]], error) {
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	all, err := a.Canaries.Canaries(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	return listOf(all), nil
}

func (a *api) createCanary(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	Body    CanaryInput
},
) (*answer[*broker.Canary], error) {
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	b := in.Body
	if strings.EqualFold(b.Folder, "INBOX") { // RFC 9051 §5.1
		b.Folder = "INBOX"
	}
	c := &broker.Canary{
		MailboxID: m.ID, Folder: b.Folder, UIDValidity: b.UIDValidity, UID: b.UID, MessageID: strings.TrimSpace(b.MessageID), Note: b.Note,
	}
	if c.UID != 0 && c.UIDValidity == 0 {
		if c.UIDValidity, err = a.uidValidity(ctx, m, c.Folder); err != nil {
			return nil, err
		}
	}
	if err := a.Canaries.CreateCanary(ctx, actor(ctx), c); err != nil {
		return nil, err
	}
	return &answer[*broker.Canary]{c}, nil
}

// uidValidity is a folder's as the sentinel has read it: without one a UID names
// nothing for long.
func (a *api) uidValidity(ctx context.Context, m *broker.Mailbox, folder string) (uint32, error) {
	w, err := a.Watches.Watch(ctx, m.ID)
	if err != nil && broker.CodeOf(err) != broker.NotFound {
		return 0, err
	}
	if err == nil {
		i := slices.IndexFunc(w.Folders, func(f broker.WatchedFolder) bool { return f.Name == folder })
		if i >= 0 {
			return w.Folders[i].UIDValidity, nil
		}
	}
	return 0, broker.InvalidField("folder",
		"the sentinel has read no folder of this name: have it look (`postern sentinel probe`), or give the folder's UIDVALIDITY, or the Message-ID alone")
}

func (a *api) removeCanary(ctx context.Context, in *canaryPath) (*answer[*broker.Canary], error) {
	id, err := pathID("canary", in.Canary)
	if err != nil {
		return nil, err
	}
	c, err := a.Canaries.Canary(ctx, id)
	if err != nil {
		return nil, err
	}
	if c.FirmID != principal(ctx).FirmID {
		return nil, broker.Errorf(broker.NotFound, "no such canary")
	}
	if err := a.Canaries.RemoveCanary(ctx, actor(ctx), id); err != nil {
		return nil, err
	}
	if c, err = a.Canaries.Canary(ctx, id); err != nil {
		return nil, err
	}
	return &answer[*broker.Canary]{c}, nil
}

// nameCanary puts the marked message into an alert, for the people of the firm
// whose secret it is.
func (a *api) nameCanary(ctx context.Context, x *Alert) error {
	own := principal(ctx).FirmID
	if x.Kind != broker.AlertCanary || own == "" || x.FirmID != own {
		return nil
	}
	c, err := a.Canaries.Canary(ctx, x.Alert.CanaryID())
	if err != nil {
		return err
	}
	x.Canary = c
	return nil
}
