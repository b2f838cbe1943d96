// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/broker"
)

const (
	alertByID     = `SELECT doc FROM alerts WHERE id = $1`
	defaultAlerts = 1000
	maxAlerts     = 10000
)

var _ broker.Alerts = (*Store)(nil)

// AcknowledgeAlert is described at broker.Alerts.
func (s *Store) AcknowledgeAlert(ctx context.Context, by broker.Actor, id broker.ID, note string) (*broker.Alert, error) {
	return s.answerAlert(ctx, by, id, note, func(a *broker.Alert, answer *broker.AlertAnswer) (broker.EventType, error) {
		switch a.State {
		case broker.AlertAcknowledged:
			return "", nil
		case broker.AlertResolved:
			return "", conflict("the alert was resolved at %s", a.Resolved.At.Format("2006-01-02 15:04:05Z07:00"))
		}
		a.State, a.Acknowledged = broker.AlertAcknowledged, answer
		return broker.EventAlertAcknowledged, nil
	})
}

// ResolveAlert is described at broker.Alerts.
func (s *Store) ResolveAlert(ctx context.Context, by broker.Actor, id broker.ID, note string) (*broker.Alert, error) {
	return s.answerAlert(ctx, by, id, note, func(a *broker.Alert, answer *broker.AlertAnswer) (broker.EventType, error) {
		if a.State == broker.AlertResolved {
			return "", nil
		}
		a.State, a.Resolved = broker.AlertResolved, answer
		return broker.EventAlertResolved, nil
	})
}

// answerAlert changes an alert as a person says, and records it.
func (s *Store) answerAlert(ctx context.Context, by broker.Actor, id broker.ID, note string,
	answer func(*broker.Alert, *broker.AlertAnswer) (broker.EventType, error),
) (*broker.Alert, error) {
	if err := text("note", note, broker.MaxAlertNote); err != nil {
		return nil, err
	}
	var a *broker.Alert
	err := s.mutate(ctx, by, func(t *tx) (err error) {
		if err := t.storeAlerts(); err != nil { // of the same Together
			return err
		}
		if a, err = one[broker.Alert](t.query, kindAlert, alertByID, string(id)); err != nil {
			return err
		}
		if a.FirmID != "" {
			if err := t.speaksFor(by, a.FirmID); err != nil {
				return err
			}
		}
		if e := t.expected; e != nil && e.ID == id && broker.TagOf(a.Standing()) != e.Tag {
			err := conflict("it has changed since it was read")
			err.Reason = broker.ReasonStale
			return err
		}
		typ, err := answer(a, &broker.AlertAnswer{By: by, At: t.now, Note: note})
		if err != nil || typ == "" {
			return err
		}
		if err := t.storeAlert("", a, false); err != nil {
			return err
		}
		return t.appendEvent(&broker.Event{
			Type: typ, Actor: by, FirmID: a.FirmID,
			SessionID: a.SessionID, AgentID: a.AgentID, WorkstationID: a.WorkstationID, MailboxID: a.MailboxID,
			Data: broker.AlertAnswered{AlertID: a.ID, Kind: a.Kind, Severity: a.Severity, Count: a.Count, Note: note},
		})
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Alert returns an alert.
func (s *Store) Alert(ctx context.Context, id broker.ID) (*broker.Alert, error) {
	return one[broker.Alert](s.read(ctx), kindAlert, alertByID, string(id))
}

// Alerts returns alerts, newest first.
func (s *Store) Alerts(ctx context.Context, q broker.AlertQuery) ([]*broker.Alert, error) {
	if q.Limit == 0 {
		q.Limit = defaultAlerts
	}
	if q.Limit < 1 || q.Limit > maxAlerts {
		return nil, broker.InvalidField("limit", "use 1 to %d", maxAlerts)
	}
	var conditions []string
	var args []any
	where := func(column string, values ...any) {
		marks := make([]string, len(values))
		for i, v := range values {
			args = append(args, v)
			marks[i] = fmt.Sprintf("$%d", len(args))
		}
		conditions = append(conditions, column+" IN ("+strings.Join(marks, ", ")+")")
	}
	if q.FirmID != "" || q.OwnOnly {
		where("firm_id", string(q.FirmID))
	}
	if len(q.States) > 0 {
		where("state", arguments(q.States)...)
	}
	if q.Severity != "" {
		least := slices.Index(broker.Severities(), q.Severity)
		if least < 0 {
			return nil, broker.InvalidField("severity", "use info, warning or critical")
		}
		where("severity", arguments(broker.Severities()[least:])...)
	}
	if q.Kind != "" {
		where("kind", string(q.Kind))
	}
	if q.MailboxID != "" {
		where("mailbox_id", string(q.MailboxID))
	}
	if q.AgentID != "" {
		where("agent_id", string(q.AgentID))
	}
	if !q.Since.IsZero() {
		args = append(args, q.Since.UnixMicro())
		conditions = append(conditions, fmt.Sprintf("last_seen >= $%d", len(args)))
	}
	query := `SELECT doc FROM alerts`
	if len(conditions) > 0 {
		query += ` WHERE ` + strings.Join(conditions, ` AND `)
	}
	args = append(args, q.Limit)
	return many[broker.Alert](s.read(ctx), kindAlert, fmt.Sprintf(`%s ORDER BY id DESC LIMIT $%d`, query, len(args)), args...)
}

// arguments makes a query's arguments of words.
func arguments[T ~string](words []T) []any {
	all := make([]any, len(words))
	for i, w := range words {
		all[i] = string(w)
	}
	return all
}

// AlertCounts is described at broker.Alerts.
func (s *Store) AlertCounts(ctx context.Context, firm broker.ID) ([]broker.AlertCount, error) {
	rows, err := s.read(ctx)(`SELECT firm_id, severity, state, COUNT(*) FROM alerts WHERE state <> 'resolved' AND ($1 = '' OR firm_id = $1)
		GROUP BY firm_id, severity, state ORDER BY firm_id, severity, state`, string(firm))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []broker.AlertCount
	for rows.Next() {
		var c broker.AlertCount
		if err := rows.Scan(&c.FirmID, &c.Severity, &c.State, &c.Count); err != nil {
			return nil, dbError(err)
		}
		all = append(all, c)
	}
	return all, dbError(rows.Err())
}
