// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/translog"
)

const (
	witnessByID     = `SELECT doc FROM witnesses WHERE id = $1 AND removed_at IS NULL`
	selectWitnesses = `SELECT doc, epoch, size, note, cosigned_at, heard_at, silent_since FROM witnesses WHERE removed_at IS NULL`
	// maxNote bounds a checkpoint with its signatures.
	maxNote = translog.MaxCheckpoint
)

var _ broker.Witnesses = (*Store)(nil)

// CreateWitness is described at broker.Witnesses.
func (s *Store) CreateWitness(ctx context.Context, by broker.Actor, w *broker.Witness) error {
	n := *w
	key, err := translog.ParseWitnessKey(n.Key)
	if err != nil {
		return broker.InvalidField("key", "%v", err)
	}
	n.Name, n.Key = key.Name(), key.String()
	if n.Rule == "" {
		n.Rule = broker.WitnessAlarm
	}
	if !slices.Contains(broker.WitnessRules(), n.Rule) {
		return broker.InvalidField("rule", "use alarm or stop")
	}
	if n.Rule == broker.WitnessStop && n.FirmID == "" {
		return broker.InvalidField("rule", "the BPO's own log has no sessions to stop: use alarm")
	}
	if n.Silence == 0 {
		n.Silence = int(broker.DefaultWitnessSilence.Seconds())
	}
	if n.Silence < int(broker.MinWitnessSilence.Seconds()) || n.Silence > int(broker.MaxWitnessSilence.Seconds()) {
		return broker.InvalidField("silence_seconds", "use %d to %d", int(broker.MinWitnessSilence.Seconds()), int(broker.MaxWitnessSilence.Seconds()))
	}
	if !n.RemovedAt.IsZero() {
		return broker.InvalidField("removed_at", "a new witness cannot be removed")
	}
	err = s.mutate(ctx, by, func(t *tx) error {
		if err := t.mayWitness(by, n.FirmID); err != nil {
			return err
		}
		others, err := many[broker.Witness](t.query, kindWitness, `SELECT doc FROM witnesses WHERE firm_id = $1 AND removed_at IS NULL`, string(n.FirmID))
		if err != nil {
			return err
		}
		if len(others) >= broker.MaxWitnesses {
			return conflict("the log has %d witnesses, and can have no more", len(others))
		}
		for _, o := range others {
			if o.Name == n.Name || o.Key == n.Key {
				return conflict("the log has a witness of the name %s already", o.Name)
			}
		}
		if err := t.identify(&n.ID, &n.CreatedAt); err != nil {
			return err
		}
		doc, err := encode(&n)
		if err != nil {
			return err
		}
		if _, err := t.exec(`INSERT INTO witnesses (id, firm_id, doc, heard_at) VALUES ($1, $2, $3, $4)`,
			string(n.ID), string(n.FirmID), doc, t.now.UnixMicro()); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindWitness, verb: "created", after: doc, event: broker.Event{FirmID: n.FirmID}})
	})
	if err == nil {
		*w = n
	}
	return err
}

// mayWitness refuses what is not the caller's to say of a log's witnesses.
func (t *tx) mayWitness(by broker.Actor, firm broker.ID) error {
	if firm == "" {
		return nil
	}
	if _, err := one[broker.Firm](t.query, kindFirm, firmByID, string(firm)); err != nil {
		return missing(err, "firm")
	}
	return t.speaksFor(by, firm)
}

// RemoveWitness is described at broker.Witnesses.
func (s *Store) RemoveWitness(ctx context.Context, by broker.Actor, id broker.ID) error {
	return s.mutate(ctx, by, func(t *tx) error {
		w, err := one[broker.Witness](t.query, kindWitness, witnessByID, string(id))
		if err != nil {
			return err
		}
		if err := t.mayWitness(by, w.FirmID); err != nil {
			return err
		}
		n := *w
		n.RemovedAt = t.now
		before, after, err := documents(w, &n)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE witnesses SET doc = $1, removed_at = $2 WHERE id = $3`, after, micros(t.now), string(id)); err != nil {
			return err
		}
		return t.recordEvent(by, changed{kind: kindWitness, verb: "removed", before: before, after: after, event: broker.Event{FirmID: w.FirmID}})
	})
}

// Witnesses is described at broker.Witnesses.
func (s *Store) Witnesses(ctx context.Context, firm broker.ID) ([]*broker.WitnessStanding, error) {
	return witnesses(s.read(ctx), ` AND firm_id = $1`, string(firm))
}

// AllWitnesses is described at broker.Witnesses.
func (s *Store) AllWitnesses(ctx context.Context) ([]*broker.WitnessStanding, error) {
	return witnesses(s.read(ctx), ``)
}

func witnesses(q querier, conditions string, args ...any) (all []*broker.WitnessStanding, err error) {
	rows, err := q(selectWitnesses+conditions, args...)
	if err != nil {
		return nil, dbError(err)
	}
	defer func() { err = errors.Join(err, dbError(rows.Close())) }()
	for rows.Next() {
		var doc []byte
		var cosigned, heard, silent int64
		w := new(broker.WitnessStanding)
		if err := rows.Scan(&doc, (*string)(&w.Epoch), &w.Size, &w.Note, &cosigned, &heard, &silent); err != nil {
			return nil, dbError(err)
		}
		if err := decode(doc, &w.Witness); err != nil {
			return nil, broker.Errorf(broker.Internal, "internal error").WithCause(err)
		}
		w.CosignedAt, w.HeardAt, w.SilentSince = fromMicros(cosigned), fromMicros(heard), fromMicros(silent)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *broker.WitnessStanding) int {
		if a.Name != b.Name {
			return strings.Compare(a.Name, b.Name)
		}
		return strings.Compare(string(a.FirmID), string(b.FirmID))
	})
	return all, dbError(rows.Err())
}

// fromMicros is a time from a column; 0 is none.
func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// standing returns a witness within a transaction that nobody else changes it
// beside: it holds its log.
func (t *tx) witness(id broker.ID) (*broker.WitnessStanding, *logHead, error) {
	w, err := one[broker.Witness](t.query, kindWitness, witnessByID, string(id))
	if err != nil {
		return nil, nil, err
	}
	h, err := t.head(w.FirmID)
	if err != nil {
		return nil, nil, err
	}
	all, err := witnesses(t.query, ` AND id = $1`, string(id))
	if err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return nil, nil, notFound(kindWitness)
	}
	return all[0], h, nil
}

// KeepCosignature is described at broker.Witnesses.
func (s *Store) KeepCosignature(ctx context.Context, id broker.ID, c *broker.Cosigned) error {
	kept := *c
	kept.At = stored(kept.At)
	if len(kept.Note) > maxNote || kept.Size < 1 {
		return broker.InvalidField("checkpoint", "not a checkpoint")
	}
	return s.await(ctx, appending, func(t *tx) error {
		w, h, err := t.witness(id)
		if err != nil {
			return err
		}
		if err := t.follows(w, h, &kept); err != nil {
			return err
		}
		if w.Epoch == kept.Epoch && w.Size == kept.Size && w.CosignedAt.Equal(kept.At) {
			return nil // said again, by whomever: it was heard then
		}
		heard, err := t.covered(h, kept.Size)
		if err != nil {
			return err
		}
		if heard.Before(w.HeardAt) {
			heard = w.HeardAt
		}
		silent := int64(0)
		switch {
		case w.SilentSince.IsZero():
		case t.now.Sub(heard) > time.Duration(w.Silence)*time.Second:
			silent = w.SilentSince.UnixMicro()
		default:
			if err := t.recordSilence(broker.Actor{Kind: systemActor.Kind, Name: w.Name}, w, broker.EventWitnessHeard, broker.WitnessSilent{Since: w.SilentSince, Until: t.now}); err != nil {
				return err
			}
		}
		return t.update(`UPDATE witnesses SET epoch = $1, size = $2, note = $3, cosigned_at = $4, heard_at = $5, silent_since = $6 WHERE id = $7`,
			string(kept.Epoch), kept.Size, kept.Note, kept.At.UnixMicro(), heard.UnixMicro(), silent, string(id))
	})
}

// covered returns up to when a log's first events are all that it had: a checkpoint
// that is signed no more, and cosigned again and again, covers nothing new.
func (t *tx) covered(h *logHead, size int64) (time.Time, error) {
	if size >= h.stored {
		return t.now, nil
	}
	rows, err := t.query(`SELECT time FROM events WHERE log = $1 AND seq = $2`, h.number, size)
	if err != nil {
		return time.Time{}, err
	}
	var next int64
	err = scanOne(rows, &next)
	return fromMicros(min(next, t.now.UnixMicro())), err
}

// follows finds that a cosignature may take the place of the witness's last.
func (t *tx) follows(w *broker.WitnessStanding, h *logHead, c *broker.Cosigned) error {
	if c.Epoch != h.epoch {
		return conflict("the checkpoint is not of the log's epoch")
	}
	rows, err := t.query(`SELECT unconfirmed FROM logs WHERE number = $1`, h.number)
	if err != nil {
		return err
	}
	var unconfirmed int
	if err := scanOne(rows, &unconfirmed); err != nil {
		return err
	}
	if unconfirmed != 0 {
		e := broker.Errorf(broker.Refused, "the log was restored from a backup, and nobody has confirmed it: 'postern log confirm-restore'")
		e.Reason = broker.ReasonUnconfirmed
		return e
	}
	if skew := t.now.Sub(c.At); skew.Abs() > broker.WitnessClockSkew {
		return conflict("the witness's clock says %s: it differs by more than %s", c.At.Format(time.RFC3339), broker.WitnessClockSkew)
	}
	switch {
	case c.Size > h.stored:
		return conflict("the log is not as large")
	case c.Size == h.stored && h.tree.Size() == h.stored && [32]byte(h.tree.Root()) != c.Root:
		return conflict("the checkpoint is not the log's")
	case w.Epoch == c.Epoch && c.Size < w.Size:
		return conflict("the witness has cosigned a larger checkpoint")
	case c.At.Before(w.CosignedAt):
		return conflict("the witness has cosigned at a later time")
	}
	return nil
}

// RecordSilence is described at broker.Witnesses.
func (s *Store) RecordSilence(ctx context.Context, by broker.Actor, id broker.ID, since time.Time) error {
	since = stored(since)
	return s.await(ctx, appending, func(t *tx) error {
		w, _, err := t.witness(id)
		if err != nil {
			return err
		}
		if !w.SilentSince.IsZero() || w.HeardAt.After(since) {
			return nil
		}
		if err := t.recordSilence(by, w, broker.EventWitnessSilent, broker.WitnessSilent{Since: since}); err != nil {
			return err
		}
		return t.update(`UPDATE witnesses SET silent_since = $1 WHERE id = $2`, since.UnixMicro(), string(id))
	})
}

func (t *tx) recordSilence(by broker.Actor, w *broker.WitnessStanding, typ broker.EventType, data broker.WitnessSilent) error {
	data.WitnessID, data.Name, data.Rule, data.Size = w.ID, w.Name, w.Rule, w.Size
	return t.appendEvent(&broker.Event{Type: typ, Actor: by, FirmID: w.FirmID, Data: data})
}

// ConfirmRestore is described at broker.Witnesses.
func (s *Store) ConfirmRestore(ctx context.Context, by broker.Actor, firm broker.ID) (epoch broker.ID, err error) {
	err = s.mutate(ctx, by, func(t *tx) error {
		if err := t.mayWitness(by, firm); err != nil {
			return err
		}
		waits, err := t.exists(`SELECT 1 FROM logs WHERE firm_id = $1 AND unconfirmed = 1`, string(firm))
		if err != nil {
			return err
		}
		if !waits {
			return conflict("there is no restore to confirm")
		}
		h, err := t.head(firm)
		if err != nil {
			return err
		}
		epoch = h.epoch
		if err := t.update(`UPDATE logs SET unconfirmed = 0 WHERE firm_id = $1`, string(firm)); err != nil {
			return err
		}
		return t.appendEvent(&broker.Event{Type: broker.EventRestoreConfirmed, Actor: by, FirmID: firm, Data: broker.RestoreConfirmed{Epoch: epoch}})
	})
	return epoch, err
}
