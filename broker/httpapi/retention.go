// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Retention is how long the records of a log are kept.
type Retention struct {
	FirmID broker.ID `json:"firm_id,omitempty" doc:"Whose log it is; none: the BPO's own."`
	Firm   string    `json:"firm,omitempty"`
	Days   int       `json:"days" doc:"For how many days records are kept now; 0: for ever."`
	// Next and NextFrom are of a change that does not count yet.
	Next        *int      `json:"next_days,omitempty" doc:"For how many from next_from on, where that differs."`
	NextFrom    time.Time `json:"next_from,omitzero"`
	Set         *int      `json:"set_days,omitempty" doc:"What the firm has set; without it, the default counts."`
	Minimum     int       `json:"minimum_days" doc:"The BPO's minimum for firms."`
	Default     int       `json:"default_days" doc:"What counts for firms that have set nothing; 0: for ever."`
	PrunedUntil time.Time `json:"pruned_until,omitzero" doc:"The time of the newest record that was pruned: up to there some are gone."`
}

// RetentionInput sets how long a firm's records are kept.
type RetentionInput struct {
	Firm string `json:"firm,omitempty" doc:"The firm, by id or name; a firm's people need not give it."`
	Days *int   `json:"days,omitempty" minimum:"0" maximum:"36500" doc:"For how many days, 30 or more; 0: for ever; without it, as the BPO's default says. A shorter time than before counts seven days later."`
}

// RetentionRulesInput changes the BPO's rules.
type RetentionRulesInput struct {
	Minimum *int `json:"minimum_days,omitempty" minimum:"30" maximum:"36500" doc:"For how many days the records of any firm are kept at least."`
	Default *int `json:"default_days,omitempty" minimum:"0" maximum:"36500" doc:"For how many where the firm has set nothing; 0: for ever."`
	Own     *int `json:"own_days,omitempty" minimum:"0" maximum:"36500" doc:"For how many those of the BPO's own log; 0: for ever."`
}

// Hold is a legal hold with its firm's name.
type Hold struct {
	broker.Hold
	Firm string `json:"firm,omitempty"`
	// EndsAt is when a hold that was released ends.
	EndsAt time.Time `json:"ends_at,omitzero" doc:"When it ends, since it was released: seven days after that."`
}

// HoldInput places a hold.
type HoldInput struct {
	Firm   string     `json:"firm,omitempty" doc:"The firm whose records it keeps, by id or name; without it, the BPO's own log or, for a firm's people, their firm's."`
	Reason string     `json:"reason" minLength:"1" maxLength:"500" doc:"Why, such as a court's reference. Both sides read it."`
	Since  *time.Time `json:"since,omitempty" doc:"It keeps records of then or later; without it, from the first on."`
	Until  *time.Time `json:"until,omitempty" doc:"It keeps records of before then; without it, those to come as well."`
}

// HoldRelease releases a hold.
type HoldRelease struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why it is not needed any more."`
}

func (a *api) registerRetention() {
	route(a, http.MethodGet, "/v1/retention", "get-retention", "Tell how long the records of a log are kept", a.getRetention)
	route(a, http.MethodPut, "/v1/retention", "set-retention", "Set how long a firm's records are kept", a.setRetention)
	route(a, http.MethodPut, "/v1/retention/rules", "set-retention-rules", "Set the BPO's minimum and default, and how long its own records are kept", a.setRetentionRules)
	route(a, http.MethodGet, "/v1/holds", "list-holds", "List legal holds", a.listHolds)
	route(a, http.MethodPost, "/v1/holds", "create-hold", "Place a legal hold: what it covers is not pruned", a.createHold)
	route(a, http.MethodPost, "/v1/holds/{hold}/release", "release-hold", "Release a legal hold that your side has placed", a.releaseHold)
}

func (a *api) getRetention(ctx context.Context, in *logQuery) (*answer[Retention], error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	return a.showRetention(ctx, id)
}

func (a *api) showRetention(ctx context.Context, id broker.ID) (*answer[Retention], error) {
	x, err := a.Retentions.Retention(ctx, id)
	if err != nil {
		return nil, err
	}
	shown := Retention{
		FirmID: id, Days: x.Days, Minimum: x.Rules.Minimum.Days, Default: x.Rules.Default.Days, PrunedUntil: x.PrunedUntil,
	}
	now := a.Now()
	edges := []time.Time{x.Rules.Own.From}
	at := x.Rules.Own.At
	if id != "" {
		names, err := a.directory(ctx)
		if err != nil {
			return nil, err
		}
		shown.Firm = names.firms[id]
		if x.Firm.Chosen {
			shown.Set = &x.Firm.Days
		}
		edges = []time.Time{x.Firm.From, x.Rules.Minimum.From, x.Rules.Default.From}
		at = func(t time.Time) int { return x.Firm.Effective(x.Rules, t) }
	}
	slices.SortFunc(edges, time.Time.Compare)
	for _, edge := range edges {
		if edge.After(now) && shown.Next == nil && at(edge) != x.Days {
			days := at(edge)
			shown.Next, shown.NextFrom = &days, edge
		}
	}
	return &answer[Retention]{shown}, nil
}

func (a *api) setRetention(ctx context.Context, in *struct{ Body RetentionInput }) (*answer[Retention], error) {
	id, err := a.logOf(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	if id == "" {
		return nil, broker.InvalidField("firm", "missing: how long the BPO's own records are kept is in its rules")
	}
	if err := a.Retentions.SetRetention(ctx, actor(ctx), id, in.Body.Days); err != nil {
		return nil, err
	}
	return a.showRetention(ctx, id)
}

func (a *api) setRetentionRules(ctx context.Context, in *struct{ Body RetentionRulesInput }) (*answer[Retention], error) {
	w := broker.RetentionWish{Minimum: in.Body.Minimum, Default: in.Body.Default, Own: in.Body.Own}
	if err := a.Retentions.SetRetentionRules(ctx, actor(ctx), w); err != nil {
		return nil, err
	}
	return a.showRetention(ctx, "")
}

func showHold(h *broker.Hold, names *directory) *Hold {
	shown := &Hold{Hold: *h, Firm: names.firms[h.FirmID]}
	if !h.ReleasedAt.IsZero() {
		shown.EndsAt = h.ReleasedAt.Add(broker.RetentionNotice)
	}
	return shown
}

// listHolds lists those of a firm; the BPO's people see all without one.
func (a *api) listHolds(ctx context.Context, in *holdsQuery) (*answer[List[*Hold]], error) {
	id, err := a.logOf(ctx, in.Firm)
	if err != nil {
		return nil, err
	}
	of := &id
	if id == "" {
		of = nil
	}
	all, err := a.Retentions.Holds(ctx, of)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	var shown []*Hold
	for _, h := range all {
		if in.All || h.Stands(a.Now()) {
			shown = append(shown, showHold(h, names))
		}
	}
	return listOf(shown), nil
}

type holdsQuery struct {
	Firm string `query:"firm" doc:"The firm whose records they keep, by id or name; without it, those of all logs or, for a firm's people, their firm's."`
	All  bool   `query:"all" doc:"Those that have ended as well."`
}

func (a *api) createHold(ctx context.Context, in *struct{ Body HoldInput }) (*answer[*Hold], error) {
	id, err := a.logOf(ctx, in.Body.Firm)
	if err != nil {
		return nil, err
	}
	h := &broker.Hold{FirmID: id, Reason: in.Body.Reason}
	if in.Body.Since != nil {
		h.Since = *in.Body.Since
	}
	if in.Body.Until != nil {
		h.Until = *in.Body.Until
	}
	if err := a.Retentions.CreateHold(ctx, actor(ctx), h); err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Hold]{showHold(h, names)}, nil
}

type holdRelease struct {
	Hold string `path:"hold" doc:"Its id."`
	Body HoldRelease
}

func (a *api) releaseHold(ctx context.Context, in *holdRelease) (*answer[*Hold], error) {
	firm := principal(ctx).FirmID
	of := &firm
	if firm == "" {
		of = nil
	}
	all, err := a.Retentions.Holds(ctx, of)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(h *broker.Hold) bool { return string(h.ID) == in.Hold })
	if i < 0 {
		return nil, broker.Errorf(broker.NotFound, "there is no hold %q", in.Hold)
	}
	h, err := a.Retentions.ReleaseHold(ctx, actor(ctx), all[i].ID, in.Body.Reason)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[*Hold]{showHold(h, names)}, nil
}
