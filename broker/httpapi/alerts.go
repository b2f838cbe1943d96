// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Alert is an alert with the names of what it is about, and what to do.
type Alert struct {
	broker.Alert
	Firm        string `json:"firm,omitempty"`
	Mailbox     string `json:"mailbox,omitempty"`
	Agent       string `json:"agent,omitempty"`
	Workstation string `json:"workstation,omitempty"`
	Meaning     string `json:"meaning" doc:"What has happened, for every alert of the kind."`
	Action      string `json:"action" doc:"What to do about it."`
	Ends        string `json:"ends,omitempty" doc:"What resolves it by itself; absent: a person does."`
	// Canary is the message of a canary's alert.
	Canary *broker.Canary `json:"canary,omitempty" doc:"The marked message that was opened. Only the firm's own people are told."`
}

// AlertCount is how many alerts stand.
type AlertCount struct {
	Severity     broker.Severity `json:"severity"`
	Open         int             `json:"open"`
	Acknowledged int             `json:"acknowledged"`
}

// AlertNote is what a person says to an alert.
type AlertNote struct {
	Note string `json:"note,omitempty" doc:"What was found, or is being done. It stands in the record."`
}

type alertsQuery struct {
	State    []broker.AlertState `query:"state" enum:"open,acknowledged,resolved" doc:"Only those in one of these states, separated by commas."`
	Severity broker.Severity     `query:"severity" enum:"info,warning,critical" doc:"Only those as severe, or more."`
	Kind     string              `query:"kind" doc:"Only those of this kind."`
	Firm     string              `query:"firm" doc:"Only this firm's, by id or name."`
	Own      bool                `query:"own" doc:"Only the BPO's own."`
	Mailbox  string              `query:"mailbox" doc:"Only those about this mailbox, by id or address."`
	Agent    string              `query:"agent" doc:"Only those about this agent, by id or name."`
	Since    time.Time           `query:"since" doc:"Only those seen since then."`
}

type alertPath struct {
	Alert string `path:"alert" doc:"Id."`
}

type alertAnswer struct {
	Alert string     `path:"alert" doc:"Id."`
	Body  *AlertNote `required:"false"`
}

func (a *api) registerAlerts() {
	route(a, http.MethodGet, "/v1/alerts", "list-alerts", "List alerts, newest first", a.listAlerts)
	route(a, http.MethodGet, "/v1/alert-counts", "count-alerts", "Count the alerts that stand", a.countAlerts)
	route(a, http.MethodGet, "/v1/alerts/{alert}", "get-alert", "Show an alert",
		func(ctx context.Context, in *alertPath) (*tagged[*Alert], error) {
			x, err := a.findAlert(ctx, in.Alert)
			if err != nil {
				return nil, err
			}
			return a.tagAlert(ctx, x)
		})
	route(a, http.MethodPost, "/v1/alerts/{alert}/acknowledge", "acknowledge-alert",
		"Say that somebody sees to an alert: it is open again when it becomes graver, or repeats after a day",
		func(ctx context.Context, in *alertAnswer) (*tagged[*Alert], error) {
			return a.answerAlert(ctx, in, a.Alerts.AcknowledgeAlert)
		})
	route(a, http.MethodPost, "/v1/alerts/{alert}/resolve", "resolve-alert", "Say that an alert is over: if it repeats, it is raised again",
		func(ctx context.Context, in *alertAnswer) (*tagged[*Alert], error) {
			return a.answerAlert(ctx, in, a.Alerts.ResolveAlert)
		})
}

func (a *api) listAlerts(ctx context.Context, in *alertsQuery) (*answer[List[*Alert]], error) {
	q := broker.AlertQuery{
		FirmID: principal(ctx).FirmID, States: in.State, Severity: in.Severity, Kind: broker.AlertKind(in.Kind), Since: in.Since, Limit: maxPage,
	}
	if in.Kind != "" && !slices.ContainsFunc(broker.AlertKinds(), func(s broker.AlertSpec) bool { return s.Kind == q.Kind }) {
		return nil, broker.InvalidField("kind", "there are no alerts of kind %q", in.Kind)
	}
	if in.Own && (in.Firm != "" || q.FirmID != "") {
		return nil, broker.InvalidField("own", "the BPO's own are no firm's")
	}
	q.OwnOnly = in.Own
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
	if in.Agent != "" {
		g, err := a.findAgent(ctx, "agent", in.Agent)
		if err != nil {
			return nil, err
		}
		q.AgentID = g.ID
	}
	all, err := a.Alerts.Alerts(ctx, q)
	if err != nil {
		return nil, err
	}
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]*Alert, len(all))
	for i, x := range all {
		if shown[i], err = a.showAlert(ctx, x, names); err != nil {
			return nil, err
		}
	}
	return listOf(shown), nil
}

func (a *api) showAlert(ctx context.Context, x *broker.Alert, names *directory) (*Alert, error) {
	spec := broker.AlertKindSpec(x.Kind)
	shown := &Alert{
		Alert: *x, Firm: names.firms[x.FirmID], Mailbox: names.mailboxes[x.MailboxID], Agent: names.agents[x.AgentID],
		Workstation: names.workstations[x.WorkstationID], Meaning: spec.Meaning, Action: spec.Action, Ends: spec.Ends,
	}
	return shown, a.nameCanary(ctx, shown)
}

// tagAlert shows an alert under the tag of its standing.
func (a *api) tagAlert(ctx context.Context, x *broker.Alert) (*tagged[*Alert], error) {
	names, err := a.directory(ctx)
	if err != nil {
		return nil, err
	}
	shown, err := a.showAlert(ctx, x, names)
	if err != nil {
		return nil, err
	}
	return show(x.Standing(), shown), nil
}

// countAlerts counts those that the caller may see.
func (a *api) countAlerts(ctx context.Context, _ *none) (*answer[List[AlertCount]], error) {
	all, err := a.Alerts.AlertCounts(ctx, principal(ctx).FirmID)
	if err != nil {
		return nil, err
	}
	severities := broker.Severities()
	slices.Reverse(severities)
	counts := make([]AlertCount, len(severities))
	for i, s := range severities {
		counts[i].Severity = s
		for _, c := range all {
			switch {
			case c.Severity != s:
			case c.State == broker.AlertOpen:
				counts[i].Open += c.Count
			default:
				counts[i].Acknowledged += c.Count
			}
		}
	}
	return listOf(counts), nil
}

// findAlert finds an alert by its id, among a firm's for its people.
func (a *api) findAlert(ctx context.Context, ref string) (*broker.Alert, error) {
	id, err := pathID("alert", ref)
	if err != nil {
		return nil, err
	}
	x, err := a.Alerts.Alert(ctx, id)
	if own := principal(ctx).FirmID; err == nil && own != "" && x.FirmID != own {
		err = broker.Errorf(broker.NotFound, "no such alert")
	}
	return x, err
}

// answerAlert has a person's answer to an alert stored.
func (a *api) answerAlert(ctx context.Context, in *alertAnswer,
	store func(ctx context.Context, by broker.Actor, id broker.ID, note string) (*broker.Alert, error),
) (*tagged[*Alert], error) {
	x, err := a.findAlert(ctx, in.Alert)
	if err != nil {
		return nil, err
	}
	asItIs := func() (any, error) {
		names, err := a.directory(ctx)
		if err != nil {
			return nil, err
		}
		return a.showAlert(ctx, x, names)
	}
	if ctx, err = unchanged(ctx, x.ID, x.Standing(), asItIs); err != nil {
		return nil, err
	}
	note := ""
	if in.Body != nil {
		note = in.Body.Note
	}
	if x, err = store(ctx, actor(ctx), x.ID, note); err != nil {
		return nil, err
	}
	return a.tagAlert(ctx, x)
}
