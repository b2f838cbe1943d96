// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// RotationMethodInput is how a mailbox's password is replaced, and when.
type RotationMethodInput struct {
	Provider     string                 `json:"provider" minLength:"1" doc:"The provider, by id or name."`
	Settings     map[string]any         `json:"settings,omitempty" doc:"The mailbox's own at the provider."`
	EveryDays    int                    `json:"every_days,omitempty" minimum:"0" maximum:"3660" doc:"The schedule; 0: none. Up to a tenth earlier, so that mailboxes do not all rotate together."`
	Window       *policy.Hours          `json:"window,omitempty" doc:"When a rotation by schedule may begin."`
	On           []broker.RotationCause `json:"on,omitempty" nullable:"false" enum:"revoke,off-board,lock,drift" doc:"What else begins one."`
	FirmOnly     bool                   `json:"firm_only,omitempty" doc:"Keep the BPO's admins from beginning one."`
	LockWhenLost bool                   `json:"lock_when_lost,omitempty" doc:"Lock the mailbox when neither password opens it."`
}

// RotateInput names mailboxes: by exactly one of its members.
type RotateInput struct {
	Mailboxes   []string `json:"mailboxes,omitempty" nullable:"false" doc:"By id or address."`
	Firm        string   `json:"firm,omitempty" doc:"All of a firm's."`
	Agent       string   `json:"agent,omitempty" doc:"All that an agent is or was assigned to."`
	Workstation string   `json:"workstation,omitempty" doc:"All that were worked in from a workstation."`
	DryRun      bool     `json:"dry_run,omitempty" doc:"Only say what would be rotated."`
}

// Rotation is a rotation with its mailbox's address.
type Rotation struct {
	broker.Rotation
	Mailbox string `json:"mailbox,omitempty"`
}

// Rotating is one mailbox that was to be rotated.
type Rotating struct {
	ID      broker.ID `json:"id" doc:"The mailbox's."`
	Mailbox string    `json:"mailbox"`
	// Rotation is what was begun; absent in a dry run, or where it was refused.
	Rotation *Rotation `json:"rotation,omitempty"`
	// Refused says why none was begun.
	Refused string `json:"refused,omitempty"`
}

type rotationsQuery struct {
	Mailbox string `query:"mailbox" doc:"Only this mailbox's, by id or address."`
	Firm    string `query:"firm" doc:"Only this firm's, by id or name."`
	Open    bool   `query:"open" doc:"Only those that have not ended."`
}

const enterPath = "/v1/mailboxes/{mailbox}/rotation/password"

func (a *api) registerRotations() {
	route(a, http.MethodPut, "/v1/mailboxes/{mailbox}/rotation", "set-rotation", "Say how a mailbox's password is replaced, and when", a.setRotation)
	route(a, http.MethodDelete, "/v1/mailboxes/{mailbox}/rotation", "remove-rotation", "Replace a mailbox's password no more",
		func(ctx context.Context, in *mailboxPath) (*tagged[*Mailbox], error) {
			return a.changeMethod(ctx, in.Mailbox, func(*broker.Mailbox) (*broker.RotationMethod, error) { return nil, nil })
		})
	register(a, huma.Operation{
		Method: http.MethodPut, Path: enterPath, OperationID: "enter-password",
		Summary:     "Enter a password that was set at the provider, and have it verified and the old one proved dead",
		Description: "Its kind is password. No route returns it.",
		// huma's validation echoes input; decodeCredential takes its place.
		SkipValidateBody: true,
	}, a.enterPassword)
	body := a.huma.OpenAPI().Paths[enterPath].Put.RequestBody
	body.Content["application/json"].Schema = a.huma.OpenAPI().Components.Schemas.
		Schema(reflect.TypeFor[CredentialInput](), true, "CredentialInput")
	route(a, http.MethodPost, "/v1/rotations", "rotate", "Begin to replace passwords", a.rotate)
	route(a, http.MethodGet, "/v1/rotations", "list-rotations", "List rotations, newest first", a.listRotations)
	route(a, http.MethodGet, "/v1/rotations/{rotation}", "get-rotation", "Show a rotation",
		func(ctx context.Context, in *struct {
			Rotation string `path:"rotation" doc:"Id."`
		},
		) (*answer[*Rotation], error) {
			id, err := pathID("rotation", in.Rotation)
			if err != nil {
				return nil, err
			}
			r, err := a.Rotations.Rotation(ctx, id)
			if own := principal(ctx).FirmID; err == nil && own != "" && r.FirmID != own {
				err = broker.Errorf(broker.NotFound, "no such rotation")
			}
			if err != nil {
				return nil, err
			}
			return &answer[*Rotation]{&Rotation{Rotation: *r, Mailbox: a.addressOf(ctx, r.MailboxID)}}, nil
		})
}

// addressOf is a mailbox's address; empty when it is gone.
func (a *api) addressOf(ctx context.Context, id broker.ID) string {
	m, err := a.reads(ctx).Mailbox(ctx, id)
	if err != nil {
		return ""
	}
	return m.Address
}

func (a *api) setRotation(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	Body    RotationMethodInput
},
) (*tagged[*Mailbox], error) {
	return a.changeMethod(ctx, in.Mailbox, func(m *broker.Mailbox) (*broker.RotationMethod, error) {
		p, err := a.findProvider(ctx, "provider", in.Body.Provider)
		if err != nil {
			return nil, err
		}
		method := &broker.RotationMethod{
			ProviderID: p.ID, EveryDays: in.Body.EveryDays, On: in.Body.On,
			FirmOnly: in.Body.FirmOnly, LockWhenLost: in.Body.LockWhenLost,
		}
		if in.Body.Window != nil {
			method.Window = *in.Body.Window
		}
		if method.Settings, err = settingsOf(in.Body.Settings); err != nil {
			return nil, err
		}
		return method, a.checkSettings(p, method)
	})
}

func (a *api) changeMethod(ctx context.Context, ref string, method func(*broker.Mailbox) (*broker.RotationMethod, error)) (*tagged[*Mailbox], error) {
	m, err := a.changeMailbox(ctx, ref, func(m *broker.Mailbox) (err error) {
		m.Rotation, err = method(m)
		return err
	})
	if err != nil {
		return nil, err
	}
	shown, err := a.showMailbox(ctx, m)
	return show(m, shown), err
}

// changeMailbox changes what is the firm's to say of a mailbox.
func (a *api) changeMailbox(ctx context.Context, ref string, change func(*broker.Mailbox) error) (*broker.Mailbox, error) {
	m, err := a.findMailbox(ctx, "", ref)
	if err != nil {
		return nil, err
	}
	unlock, err := a.changing.lock(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m, err = a.reads(ctx).Mailbox(ctx, m.ID); err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, m.FirmID); err != nil {
		return nil, err
	}
	after := *m
	if err := change(&after); err != nil {
		return nil, err
	}
	if err := a.State.UpdateMailbox(ctx, actor(ctx), &after); err != nil {
		return nil, err
	}
	return &after, nil
}

func (a *api) rotate(ctx context.Context, in *struct{ Body RotateInput }) (*answer[List[*Rotating]], error) {
	mailboxes, err := a.toRotate(ctx, &in.Body)
	if err != nil {
		return nil, err
	}
	out := make([]*Rotating, 0, len(mailboxes))
	for _, m := range mailboxes {
		x := &Rotating{ID: m.ID, Mailbox: m.Address}
		out = append(out, x)
		switch {
		case m.Rotation == nil:
			x.Refused = "it has no way of rotating its password: give it a provider"
		case m.Rotation.FirmOnly && principal(ctx).Role == broker.RoleAdmin:
			x.Refused = "the firm rotates its password itself"
		case in.Body.DryRun:
		default:
			r := &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDemand}
			err := a.Rotations.RequestRotation(ctx, actor(ctx), r)
			switch broker.CodeOf(err) {
			case "":
				x.Rotation = &Rotation{Rotation: *r, Mailbox: m.Address}
			case broker.Conflict, broker.Refused, broker.Invalid:
				x.Refused = broker.PublicText(err)
			default:
				return nil, err
			}
		}
	}
	return listOf(out), nil
}

// toRotate finds the mailboxes that a request names.
func (a *api) toRotate(ctx context.Context, in *RotateInput) ([]*broker.Mailbox, error) {
	given := 0
	for _, is := range []bool{len(in.Mailboxes) > 0, in.Firm != "", in.Agent != "", in.Workstation != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, broker.Errorf(broker.Invalid, "name exactly one of mailboxes, firm, agent and workstation")
	}
	wanted := map[broker.ID]bool{}
	switch {
	case len(in.Mailboxes) > 0:
		for i, ref := range in.Mailboxes {
			m, err := a.findMailbox(ctx, indexed("mailboxes", i), ref)
			if err != nil {
				return nil, err
			}
			wanted[m.ID] = true
		}
	case in.Firm != "":
		firm, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		all, err := a.reads(ctx).Mailboxes(ctx)
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			wanted[m.ID] = wanted[m.ID] || m.FirmID == firm.ID
		}
	case in.Agent != "":
		g, err := a.findAgent(ctx, "agent", in.Agent)
		if err != nil {
			return nil, err
		}
		all, err := a.reads(ctx).Assignments(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			wanted[s.MailboxID] = wanted[s.MailboxID] || s.AgentID == g.ID
		}
	default:
		w, err := a.findWorkstation(ctx, "workstation", in.Workstation)
		if err != nil {
			return nil, err
		}
		all, err := a.reads(ctx).Sessions(ctx, false, maxSessions)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			wanted[s.MailboxID] = wanted[s.MailboxID] || s.WorkstationID == w.ID
		}
	}
	all, err := a.reads(ctx).Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m *broker.Mailbox) bool { return !wanted[m.ID] }), nil
}

// enterPassword begins a rotation to a password that a person has set. It is
// stored after the rotation is in the journal, which gives up when it does not
// come.
func (a *api) enterPassword(ctx context.Context, in *struct {
	Mailbox string `path:"mailbox" doc:"Id or address."`
	RawBody []byte `contentType:"application/json"`
},
) (*answer[*Rotation], error) {
	// huma puts the buffer back into a pool.
	defer clear(in.RawBody)
	c, err := decodeCredential(in.RawBody)
	if err != nil {
		return nil, err
	}
	defer c.Secret.Wipe()
	if c.Kind != broker.KindPassword {
		return nil, broker.InvalidField("kind", "only passwords are rotated")
	}
	m, err := a.findMailbox(ctx, "", in.Mailbox)
	if err != nil {
		return nil, err
	}
	if err := a.actsFor(ctx, m.FirmID); err != nil {
		return nil, err
	}
	r := &broker.Rotation{MailboxID: m.ID, Cause: broker.RotateOnDemand, Entered: true, Pending: []broker.ID{broker.NewID()}}
	if err := a.Rotations.RequestRotation(ctx, actor(ctx), r); err != nil {
		return nil, err
	}
	if err := a.RotationSecrets.SetPendingCredential(ctx, m.FirmID, m.ID, r.PendingID(), c); err != nil {
		a.Logger.Error("a password that was entered could not be stored", zap.String("mailbox", m.Address), zap.Error(err))
		return nil, err
	}
	return &answer[*Rotation]{&Rotation{Rotation: *r, Mailbox: m.Address}}, nil
}

func (a *api) listRotations(ctx context.Context, in *rotationsQuery) (*answer[List[*Rotation]], error) {
	q := broker.RotationQuery{FirmID: principal(ctx).FirmID, Open: in.Open, Limit: maxPage}
	if in.Firm != "" {
		firm, err := a.findFirm(ctx, "firm", in.Firm)
		if err != nil {
			return nil, err
		}
		q.FirmID = firm.ID
	}
	if in.Mailbox != "" {
		m, err := a.findMailbox(ctx, "mailbox", in.Mailbox)
		if err != nil {
			return nil, err
		}
		q.MailboxID = m.ID
	}
	all, err := a.Rotations.Rotations(ctx, q)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]*Rotation, 0, len(all))
	for _, r := range all {
		shown = append(shown, &Rotation{Rotation: *r, Mailbox: names.mailboxes[r.MailboxID]})
	}
	return listOf(shown), nil
}

// settled refuses what a rotation under way must not meet.
func (a *api) settled(ctx context.Context, m *broker.Mailbox) error {
	open, err := a.Rotations.Rotations(ctx, broker.RotationQuery{MailboxID: m.ID, Open: true, Limit: 1})
	if err != nil || len(open) == 0 {
		return err
	}
	return broker.Errorf(broker.Conflict, "the password is being rotated: wait for the end of rotation %s", open[0].ID)
}

// releasePending removes the passwords that all ended rotations have kept: they were
// entrusted to the present endpoints.
func (a *api) releasePending(ctx context.Context, m *broker.Mailbox) error {
	all, err := a.Rotations.Rotations(ctx, broker.RotationQuery{MailboxID: m.ID, Limit: maxPage})
	if err != nil {
		return err
	}
	for _, r := range all {
		if !r.CleanedAt.IsZero() {
			continue
		}
		for _, id := range r.Pending {
			if err := a.RotationSecrets.DeletePendingCredential(ctx, m.FirmID, m.ID, id); err != nil {
				return err
			}
		}
	}
	return nil
}
