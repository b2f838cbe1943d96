// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

const (
	watchByID = `SELECT doc FROM watches WHERE mailbox_id = $1`
	// unwatched are mailboxes without a watch, abandoned watches without a mailbox.
	unwatched = `FROM mailboxes m WHERE m.deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM watches w WHERE w.mailbox_id = m.id)`
	abandoned = `FROM watches WHERE mailbox_id IN (SELECT id FROM mailboxes WHERE deleted_at IS NOT NULL)`
	// maxExceptions and maxFolderPatterns bound what a firm declares.
	maxExceptions     = 50
	maxFolderPatterns = 50
)

var _ broker.Watches = (*Store)(nil)

// checkWatch checks how a mailbox is watched.
func checkWatch(m *broker.Mailbox) error {
	if m.Watch == nil {
		return nil
	}
	w := *m.Watch
	m.Watch = &w
	w.Exceptions = slices.Clone(w.Exceptions)
	if len(w.Exceptions) > maxExceptions {
		return broker.InvalidField("watch.exceptions", "more than %d", maxExceptions)
	}
	for _, x := range w.Exceptions {
		if len(x.Folders) > maxFolderPatterns {
			return broker.InvalidField("watch.exceptions.folders", "more than %d", maxFolderPatterns)
		}
		terms := policy.Terms{Actions: policy.List, Folders: policy.FolderPatterns{Allow: x.Folders}, Hours: x.Hours}
		if field, reason := terms.Validate(); reason != "" {
			return broker.InvalidField("watch.exceptions."+field, "%s", reason)
		}
		for _, c := range x.Changes {
			if !slices.Contains(broker.Bypasses(), c) {
				return broker.InvalidField("watch.exceptions.changes", "%q is none of seen, flags, removed, added, folder", c)
			}
		}
		if err := text("watch.exceptions.note", x.Note, 200); err != nil {
			return err
		}
	}
	return nil
}

// PrepareWatches is described at broker.Watches.
func (s *Store) PrepareWatches(ctx context.Context, due time.Duration) error {
	// Asked beside all writers first: mostly there is nothing.
	rows, err := s.read(ctx)(`SELECT 1 WHERE EXISTS (SELECT 1 ` + unwatched + `) OR EXISTS (SELECT 1 ` + abandoned + `)`)
	if err != nil {
		return dbError(err)
	}
	found := rows.Next()
	rows.Close()
	if err := rows.Err(); err != nil || !found {
		return dbError(err)
	}
	return s.write(ctx, func(t *tx) error {
		if _, err := t.exec(`DELETE FROM watched_folders WHERE mailbox_id IN (SELECT mailbox_id ` + abandoned + `)`); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE ` + abandoned); err != nil {
			return err
		}
		fresh, err := many[broker.Mailbox](t.query, kindMailbox, `SELECT m.doc `+unwatched+` ORDER BY m.id`)
		if err != nil {
			return err
		}
		for _, m := range fresh {
			if err := t.watch(m, stored(t.now.Add(due))); err != nil {
				return err
			}
		}
		return nil
	})
}

// watch makes a mailbox's watch, or makes it due.
func (t *tx) watch(m *broker.Mailbox, due time.Time) error {
	doc, err := encode(&broker.Watch{MailboxID: m.ID, FirmID: m.FirmID, NextAt: due})
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO watches (mailbox_id, firm_id, doc, due_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (mailbox_id) DO UPDATE SET due_at = excluded.due_at`,
		string(m.ID), string(m.FirmID), doc, due.UnixMicro())
	return err
}

// ClaimWatch is described at broker.Watches.
func (s *Store) ClaimWatch(ctx context.Context, c broker.WatchClaim) (*broker.Watch, error) {
	now := s.now().UnixMicro()
	due := []any{now}
	for _, firm := range c.Without {
		due = append(due, string(firm))
	}
	condition := `due_at <= $1`
	if len(c.Without) > 0 {
		condition += ` AND firm_id NOT IN ` + placeholders(2, len(c.Without))
	}
	rows, err := s.read(ctx)(`SELECT 1 FROM watches WHERE `+condition+` LIMIT 1`, due...)
	if err != nil {
		return nil, dbError(err)
	}
	found := rows.Next()
	rows.Close()
	if err := rows.Err(); err != nil || !found {
		return nil, dbError(err)
	}
	var claimed *broker.Watch
	err = s.write(ctx, func(t *tx) error {
		clock, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		args := append(slices.Clip(due), clock)
		found, err := many[broker.Watch](t.query, kindWatch,
			fmt.Sprintf(`SELECT doc FROM watches WHERE %s AND held_until <= $%d ORDER BY due_at, mailbox_id LIMIT 1`, condition, len(args)), args...)
		if err != nil || len(found) == 0 {
			return err
		}
		claimed = found[0]
		// What is asked for while it is looked at makes it due again.
		return t.update(`UPDATE watches SET holder = $1, node = $2, held_until = $3, due_at = $3 WHERE mailbox_id = $4`,
			string(c.Holder), c.Node, clock+c.Lasts.Microseconds(), string(claimed.MailboxID))
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// FinishWatch is described at broker.Watches.
func (s *Store) FinishWatch(ctx context.Context, c broker.WatchClaim, r *broker.WatchResult) error {
	by := broker.Actor{Kind: systemActor.Kind, Name: c.Node}
	return s.mutate(ctx, by, func(t *tx) error {
		clock, err := s.dialect.clock(t)
		if err != nil {
			return err
		}
		w := r.Watch
		ok, err := t.exists(`SELECT 1 FROM watches WHERE mailbox_id = $1 AND holder = $2 AND held_until > $3`,
			string(w.MailboxID), string(c.Holder), clock)
		if err != nil {
			return err
		}
		if !ok {
			return conflict("another process watches the mailbox")
		}
		w.NextAt, w.ProbedAt, w.GoodAt = stored(w.NextAt), stored(w.ProbedAt), stored(w.GoodAt)
		doc, err := encode(&w)
		if err != nil {
			return err
		}
		// One that was asked for meanwhile stays due.
		if err := t.update(`UPDATE watches SET doc = $1, held_until = 0, due_at = CASE WHEN due_at < held_until THEN due_at ELSE $2 END
			WHERE mailbox_id = $3`, doc, w.NextAt.UnixMicro(), string(w.MailboxID)); err != nil {
			return err
		}
		for folder, kept := range r.Folders {
			if err := t.keepFolder(w.MailboxID, folder, kept); err != nil {
				return err
			}
		}
		for _, e := range r.Events {
			e.Actor, e.FirmID, e.MailboxID = by, w.FirmID, w.MailboxID
			if err := t.appendEvent(e); err != nil {
				return err
			}
		}
		if r.Lock != "" {
			return t.lockWatched(by, w.MailboxID, r.Lock)
		}
		return nil
	})
}

func (t *tx) keepFolder(mailbox broker.ID, folder string, kept []byte) error {
	if kept == nil {
		_, err := t.exec(`DELETE FROM watched_folders WHERE mailbox_id = $1 AND folder = $2`, string(mailbox), folder)
		return err
	}
	_, err := t.exec(`INSERT INTO watched_folders (mailbox_id, folder, kept) VALUES ($1, $2, $3)
		ON CONFLICT (mailbox_id, folder) DO UPDATE SET kept = excluded.kept`, string(mailbox), folder, kept)
	return err
}

// WatchedFolders is described at broker.Watches.
func (s *Store) WatchedFolders(ctx context.Context, mailbox broker.ID) (map[string][]byte, error) {
	rows, err := s.read(ctx)(`SELECT folder, kept FROM watched_folders WHERE mailbox_id = $1`, string(mailbox))
	if err != nil {
		return nil, dbError(err)
	}
	defer rows.Close()
	all := make(map[string][]byte)
	for rows.Next() {
		var folder string
		var kept []byte
		if err := rows.Scan(&folder, &kept); err != nil {
			return nil, dbError(err)
		}
		all[folder] = kept
	}
	return all, dbError(rows.Err())
}

// lockWatched locks a mailbox that no lock is on.
func (t *tx) lockWatched(by broker.Actor, mailbox broker.ID, message string) error {
	locked, err := t.exists(`SELECT 1 FROM locks WHERE target = $1 AND target_id = $2 AND removed_at IS NULL`,
		string(broker.LockMailbox), string(mailbox))
	if err != nil || locked {
		return err
	}
	return t.createLock(by, &broker.Lock{Target: broker.LockMailbox, TargetID: mailbox, Message: message})
}

// ReleaseWatches is described at broker.Watches.
func (s *Store) ReleaseWatches(ctx context.Context, node string) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE watches SET held_until = 0, due_at = $1 WHERE node = $2 AND held_until > 0`, t.now.UnixMicro(), node)
		return err
	})
}

// Watch is described at broker.Watches.
func (s *Store) Watch(ctx context.Context, mailbox broker.ID) (*broker.Watch, error) {
	return one[broker.Watch](s.read(ctx), kindWatch, watchByID, string(mailbox))
}

// Watches is described at broker.Watches.
func (s *Store) Watches(ctx context.Context, firm broker.ID) ([]*broker.Watch, error) {
	return many[broker.Watch](s.read(ctx), kindWatch,
		`SELECT doc FROM watches WHERE ($1 = '' OR firm_id = $1) ORDER BY mailbox_id`, string(firm))
}

// ProbeSoon is described at broker.Watches.
func (s *Store) ProbeSoon(ctx context.Context, mailbox broker.ID) error {
	return s.write(ctx, func(t *tx) error {
		m, err := one[broker.Mailbox](t.query, kindMailbox, mailboxByID, string(mailbox))
		if err != nil {
			return err
		}
		return t.watch(m, t.now)
	})
}
