// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"time"

	"github.com/postern-mail/postern/broker"
)

const (
	retentionOf = `SELECT doc FROM retention WHERE firm_id = $1`
	holdsOn     = `SELECT doc FROM holds WHERE firm_id = $1 ORDER BY id`
)

// retention is what a log's records are kept by.
type retention struct {
	log   broker.ID
	rules broker.RetentionRules
	firm  broker.FirmRetention
}

// days returns for how many days the records are kept; 0: for ever.
func (r *retention) days(now time.Time) int {
	if r.log == "" {
		return r.rules.Own.At(now)
	}
	return r.firm.Effective(r.rules, now)
}

// readRetention reads what was said of a log.
func readRetention(q querier, log broker.ID) (*retention, error) {
	r := &retention{log: log, rules: broker.NewRetentionRules(), firm: broker.FirmRetention{FirmID: log}}
	rules, err := many[broker.RetentionRules](q, kindRetention, retentionOf, "")
	if err != nil {
		return nil, err
	}
	if len(rules) > 0 {
		r.rules = *rules[0]
	}
	if log == "" {
		return r, nil
	}
	firm, err := many[broker.FirmRetention](q, kindRetention, retentionOf, string(log))
	if len(firm) > 0 {
		r.firm = *firm[0]
	}
	return r, err
}

// Retention is described at broker.Retentions.
func (s *Store) Retention(ctx context.Context, firm broker.ID) (*broker.RetentionStanding, error) {
	q := s.read(ctx)
	if firm != "" {
		if _, err := one[broker.Firm](q, kindFirm, firmByID, string(firm)); err != nil {
			return nil, err
		}
	}
	r, err := readRetention(q, firm)
	if err != nil {
		return nil, err
	}
	x := &broker.RetentionStanding{FirmID: firm, Rules: r.rules, Firm: r.firm, Days: r.days(s.now())}
	x.PrunedUntil, err = s.PrunedUntil(ctx, &firm)
	return x, err
}

// PrunedUntil is described at broker.Retentions.
func (s *Store) PrunedUntil(ctx context.Context, firm *broker.ID) (time.Time, error) {
	query, args := `SELECT coalesce(max(pruned_until), 0) FROM logs`, []any(nil)
	if firm != nil {
		query, args = query+` WHERE firm_id = $1`, []any{string(*firm)}
	}
	rows, err := s.read(ctx)(query, args...)
	if err != nil {
		return time.Time{}, err
	}
	var until int64
	err = scanOne(rows, &until)
	return fromMicros(until), dbError(err)
}

// SetRetention is described at broker.Retentions.
func (s *Store) SetRetention(ctx context.Context, by broker.Actor, firm broker.ID, days *int) error {
	if days != nil {
		n := *days
		if days = &n; n != 0 && (n < broker.MinRetentionDays || n > broker.MaxRetentionDays) {
			return broker.InvalidField("days", "use %d to %d, or 0 for ever", broker.MinRetentionDays, broker.MaxRetentionDays)
		}
	}
	return s.mutate(ctx, by, func(t *tx) error {
		if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(firm)); err != nil {
			return missing(err, "firm")
		}
		if err := t.speaksFor(by, firm); err != nil {
			return err
		}
		r, err := readRetention(t.query, firm)
		if err != nil {
			return err
		}
		if least := r.rules.Minimum.Days; days != nil && *days != 0 && *days < least {
			return broker.InvalidField("days", "the BPO keeps records for %d days at least", least)
		}
		after := r.firm.With(r.rules, days, t.now)
		return t.storeRetention(by, firm, &r.firm, &after)
	})
}

// storeRetention writes what a firm has said, and its event.
func (t *tx) storeRetention(by broker.Actor, firm broker.ID, old, updated *broker.FirmRetention) error {
	if old.Chosen == updated.Chosen && old.Days == updated.Days {
		return nil
	}
	before, after, err := documents(old, updated)
	if err != nil {
		return err
	}
	if err := t.putRetention(firm, after); err != nil {
		return err
	}
	return t.recordEvent(by, changed{kind: kindRetention, verb: "updated", before: before, after: after, event: broker.Event{FirmID: firm}})
}

func (t *tx) putRetention(log broker.ID, doc string) error {
	_, err := t.exec(`INSERT INTO retention (firm_id, doc) VALUES ($1, $2) ON CONFLICT (firm_id) DO UPDATE SET doc = excluded.doc`, string(log), doc)
	return err
}

// SetRetentionRules is described at broker.Retentions.
func (s *Store) SetRetentionRules(ctx context.Context, by broker.Actor, w broker.RetentionWish) error {
	for field, days := range map[string]*int{"minimum_days": w.Minimum, "default_days": w.Default, "own_days": w.Own} {
		forEver := field != "minimum_days"
		switch {
		case days == nil, forEver && *days == 0:
		case *days < broker.MinRetentionDays || *days > broker.MaxRetentionDays:
			return broker.InvalidField(field, "use %d to %d%s", broker.MinRetentionDays, broker.MaxRetentionDays, map[bool]string{true: ", or 0 for ever"}[forEver])
		}
	}
	return s.mutate(ctx, by, func(t *tx) error {
		r, err := readRetention(t.query, "")
		if err != nil {
			return err
		}
		rules := r.rules.With(w, t.now)
		if d := rules.Default.Days; d != 0 && d < rules.Minimum.Days {
			return broker.InvalidField("default_days", "it is less than the minimum of %d days", rules.Minimum.Days)
		}
		before, after, err := documents(&r.rules, &rules)
		if err != nil || before == after {
			return err
		}
		if err := t.putRetention("", after); err != nil {
			return err
		}
		logs := []broker.ID{""}
		if rules.Minimum != r.rules.Minimum || rules.Default != r.rules.Default {
			// A firm learns from its own log what others have decided for it.
			firms, err := many[broker.Firm](t.query, kindFirm, `SELECT doc FROM firms ORDER BY id`)
			if err != nil {
				return err
			}
			for _, f := range firms {
				logs = append(logs, f.ID)
			}
		}
		for _, log := range logs {
			if err := t.recordEvent(by, changed{kind: kindRetention, verb: "updated", before: before, after: after, event: broker.Event{FirmID: log}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Holds is described at broker.Retentions.
func (s *Store) Holds(ctx context.Context, firm *broker.ID) ([]*broker.Hold, error) {
	if firm == nil {
		return many[broker.Hold](s.read(ctx), kindHold, `SELECT doc FROM holds ORDER BY id`)
	}
	return many[broker.Hold](s.read(ctx), kindHold, holdsOn, string(*firm))
}

// CreateHold is described at broker.Retentions.
func (s *Store) CreateHold(ctx context.Context, by broker.Actor, h *broker.Hold) error {
	n := *h
	if n.Reason == "" {
		return broker.InvalidField("reason", "missing")
	}
	if err := text("reason", n.Reason, maxText); err != nil {
		return err
	}
	if n.Since, n.Until = stored(n.Since), stored(n.Until); !n.Until.IsZero() && !n.Until.After(n.Since) {
		return broker.InvalidField("until", "it is not after since")
	}
	n.By, n.OfFirm = by, by.Kind == string(broker.RoleFirmAdmin)
	n.ReleasedAt, n.ReleasedBy, n.ReleaseReason = time.Time{}, nil, ""
	err := s.mutate(ctx, by, func(t *tx) error {
		if n.FirmID != "" {
			if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(n.FirmID)); err != nil {
				return missing(err, "firm")
			}
		}
		all, err := many[broker.Hold](t.query, kindHold, holdsOn, string(n.FirmID))
		if err != nil {
			return err
		}
		standing := 0
		for _, x := range all {
			if x.ReleasedAt.IsZero() && x.OfFirm == n.OfFirm {
				standing++
			}
		}
		if standing >= broker.MaxHolds {
			return conflict("there are %d holds on the log, and can be no more", standing)
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO holds (id, firm_id, doc) VALUES ($1, $2, $3)`, string(n.ID), string(n.FirmID), doc); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindHold, verb: "created", after: doc, event: broker.Event{FirmID: n.FirmID}})
	})
	if err == nil {
		*h = n
	}
	return err
}

// ReleaseHold is described at broker.Retentions.
func (s *Store) ReleaseHold(ctx context.Context, by broker.Actor, id broker.ID, reason string) (*broker.Hold, error) {
	if reason == "" {
		return nil, broker.InvalidField("reason", "missing")
	}
	if err := text("reason", reason, maxText); err != nil {
		return nil, err
	}
	var n broker.Hold
	err := s.mutate(ctx, by, func(t *tx) error {
		h, err := one[broker.Hold](t.query, kindHold, `SELECT doc FROM holds WHERE id = $1`, string(id))
		if err != nil {
			return err
		}
		if ofFirm := by.Kind == string(broker.RoleFirmAdmin); ofFirm != h.OfFirm {
			return broker.Errorf(broker.Refused, "%s", map[bool]string{
				true: "the firm has placed this hold: only its own admins release it", false: "the BPO has placed this hold: only its admins release it",
			}[h.OfFirm])
		}
		if !h.ReleasedAt.IsZero() {
			return conflict("the hold was released already")
		}
		n = *h
		n.ReleasedAt, n.ReleasedBy, n.ReleaseReason = t.now, &by, reason
		before, after, err := documents(h, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE holds SET doc = $1, released_at = $2, kept_until = $3 WHERE id = $4`,
			after, micros(t.now), micros(t.now.Add(broker.RetentionNotice)), string(id)); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindHold, verb: "released", before: before, after: after, event: broker.Event{FirmID: n.FirmID}})
	})
	return &n, err
}
