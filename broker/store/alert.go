// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/broker"
)

// alarms is what an event does to alerts of its log.
type alarms struct {
	event       broker.ID
	by          broker.Actor
	workstation broker.ID
	changes     []broker.AlertChange
}

// standing are the alerts that a transaction has looked up, each written once
// at its end: so a storm of events of one kind and subject costs a row for each
// transaction, and one event of the log for all. They belong to logs whose heads
// the transaction holds, or it is alone: nobody else changes them meanwhile.
type standing struct {
	byKey map[alertKey]*standingAlert
	order []*standingAlert
}

type alertKey struct {
	log broker.ID
	key string
}

type standingAlert struct {
	key string
	// alert is the last of its key; nil: there was none yet.
	alert        *broker.Alert
	fresh, dirty bool
	// raisedBy is the event that opened it, if one did; its by and ids.
	raisedBy *broker.Event
}

// changeAlerts does to alerts what an event that was just written does.
func (t *tx) changeAlerts(p *pending) error {
	if p.alarms == nil {
		return nil
	}
	for _, c := range p.alarms.changes {
		x, err := t.standingAlert(p.log, string(c.Kind)+":"+c.Subject)
		if err != nil {
			return err
		}
		switch {
		case c.Resolves:
			x.resolve(p, t.now)
		case c.Amends:
			x.amend(&c)
		default:
			x.raise(p, &c, t.now)
		}
	}
	return nil
}

// standingAlert looks up the last alert of a key, in this transaction or before.
func (t *tx) standingAlert(log broker.ID, key string) (*standingAlert, error) {
	k := alertKey{log, key}
	if x := t.alerts.byKey[k]; x != nil {
		return x, nil
	}
	last, err := many[broker.Alert](t.query, kindAlert,
		`SELECT doc FROM alerts WHERE firm_id = $1 AND subject_key = $2 ORDER BY id DESC LIMIT 1`, string(log), key)
	if err != nil {
		return nil, err
	}
	x := &standingAlert{key: key}
	if len(last) > 0 {
		x.alert = last[0]
	}
	if t.alerts.byKey == nil {
		t.alerts.byKey = make(map[alertKey]*standingAlert)
	}
	t.alerts.byKey[k] = x
	t.alerts.order = append(t.alerts.order, x)
	return x, nil
}

func (x *standingAlert) resolve(p *pending, now time.Time) {
	a := x.alert
	if a == nil || a.State == broker.AlertResolved {
		return
	}
	a.State, x.dirty = broker.AlertResolved, true
	a.Resolved = &broker.AlertAnswer{By: p.alarms.by, At: now, EventID: p.alarms.event}
}

// amend tells more of what raised the alert.
func (x *standingAlert) amend(c *broker.AlertChange) {
	if x.alert != nil && x.alert.State != broker.AlertResolved {
		x.alert.Detail, x.dirty = cut(c.Detail, broker.MaxAlertDetail), true
	}
}

// raise adds an event to the alert that stands, opens one again that it must
// not be added to in silence, or makes one.
func (x *standingAlert) raise(p *pending, c *broker.AlertChange, now time.Time) {
	x.dirty = true
	a := x.alert
	if a == nil || a.State == broker.AlertResolved && now.Sub(a.Resolved.At) > broker.AlertRelapse {
		a = &broker.Alert{
			ID: broker.NewID(), FirmID: p.log, Kind: c.Kind, Severity: c.Severity, Subject: c.Subject, FirstSeen: p.time,
			MailboxID: p.mailbox, AgentID: p.agent, WorkstationID: p.alarms.workstation, SessionID: p.session,
		}
		x.alert, x.fresh = a, true
		x.open(p, now)
	} else {
		switch {
		case a.State == broker.AlertResolved:
			a.Severity = c.Severity
			x.open(p, now)
		case c.Severity.Above(a.Severity):
			a.Severity = c.Severity
			x.open(p, now)
		case a.State == broker.AlertAcknowledged && now.Sub(a.LastSeen) > broker.AlertQuiet:
			x.open(p, now)
		}
		for held, id := range map[*broker.ID]broker.ID{
			&a.MailboxID: p.mailbox, &a.AgentID: p.agent, &a.WorkstationID: p.alarms.workstation, &a.SessionID: p.session,
		} {
			if *held != id {
				*held = ""
			}
		}
	}
	a.Detail = cut(c.Detail, broker.MaxAlertDetail)
	a.Count++
	if p.time.After(a.LastSeen) {
		a.LastSeen = p.time
	}
	if len(a.Evidence) >= broker.AlertEvidenceFirst+broker.AlertEvidenceLast {
		a.Evidence = slices.Delete(a.Evidence, broker.AlertEvidenceFirst, broker.AlertEvidenceFirst+1)
	}
	a.Evidence = append(a.Evidence, broker.AlertEvidence{EventID: p.alarms.event, Seq: p.seq, Type: p.typ, Time: p.time})
}

// open opens the alert, and has that recorded.
func (x *standingAlert) open(p *pending, now time.Time) {
	a := x.alert
	a.State, a.OpenedAt, a.Acknowledged, a.Resolved = broker.AlertOpen, now, nil, nil
	x.raisedBy = &broker.Event{
		Type: broker.EventAlertRaised, Actor: systemActor, FirmID: p.log,
		SessionID: p.session, AgentID: p.agent, WorkstationID: p.alarms.workstation, MailboxID: p.mailbox,
		Data: broker.AlertRaised{AlertID: a.ID, Kind: a.Kind, Severity: a.Severity, Cause: p.alarms.event},
	}
}

// storeAlerts writes the alerts that have changed, before the commit.
func (t *tx) storeAlerts() error {
	for _, x := range t.alerts.order {
		if !x.dirty {
			continue
		}
		if err := t.storeAlert(x.key, x.alert, x.fresh); err != nil {
			return err
		}
		if x.raisedBy != nil {
			if err := t.appendEvent(x.raisedBy); err != nil {
				return err
			}
		}
	}
	t.alerts = standing{}
	return nil
}

func (t *tx) storeAlert(key string, a *broker.Alert, fresh bool) error {
	doc, err := encode(a)
	if err != nil {
		return err
	}
	args := []any{
		string(a.Severity), string(a.State), optional(a.MailboxID), optional(a.AgentID), a.LastSeen.UnixMicro(), doc, string(a.ID),
	}
	if !fresh {
		return t.update(`UPDATE alerts SET severity = $1, state = $2, mailbox_id = $3, agent_id = $4, last_seen = $5, doc = $6 WHERE id = $7`, args...)
	}
	_, err = t.exec(`INSERT INTO alerts (severity, state, mailbox_id, agent_id, last_seen, doc, id, firm_id, subject_key, kind)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, append(args, string(a.FirmID), key, string(a.Kind))...)
	return err
}

// cut shortens s to at most n octets, between two characters.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	const mark = "…"
	end := n - len(mark)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
