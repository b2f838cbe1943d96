// SPDX-License-Identifier: Apache-2.0

package store

import "github.com/postern-mail/postern/broker"

// forgetWatched has every mailbox compared with nothing at its next look: of what
// sessions did since the backup, a database that was restored has no record, and all
// of it would seem to be somebody else's doing.
func (t *tx) forgetWatched() error {
	all, err := many[broker.Watch](t.query, kindWatch, `SELECT doc FROM watches`)
	if err != nil {
		return err
	}
	for _, w := range all {
		w.Source = "" // what is kept is of nobody's mailbox then
		doc, err := encode(w)
		if err != nil {
			return err
		}
		if err := t.update(`UPDATE watches SET doc = $1 WHERE mailbox_id = $2`, doc, string(w.MailboxID)); err != nil {
			return err
		}
	}
	return nil
}
