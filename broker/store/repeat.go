// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"

	"github.com/postern-mail/postern/broker"
)

var _ broker.Repeats = (*Store)(nil)

// maxRepeatKey bounds a key, in octets.
const maxRepeatKey = 200

// BeginRequest notes a request, unless its key is known.
func (s *Store) BeginRequest(ctx context.Context, k broker.RepeatKey) (*broker.FirstAnswer, error) {
	if k.Key == "" {
		return nil, broker.InvalidField("Idempotency-Key", "empty")
	}
	if err := text("Idempotency-Key", k.Key, maxRepeatKey); err != nil {
		return nil, err
	}
	k.Fingerprint = bytes.Clone(k.Fingerprint)
	var first *broker.FirstAnswer
	err := s.write(ctx, func(t *tx) error {
		if _, err := t.exec(`DELETE FROM repeats WHERE created_at < $1`, t.now.Add(-broker.RepeatLifetime).UnixMicro()); err != nil {
			return err
		}
		rows, err := t.query(`SELECT fingerprint, status, body FROM repeats WHERE caller = $1 AND key = $2`, k.Caller, k.Key)
		if err != nil {
			return err
		}
		var fingerprint, body []byte
		var status sql.NullInt64
		switch err := scanOne(rows, &fingerprint, &status, &body); {
		case errors.Is(err, sql.ErrNoRows):
			_, err := t.exec(`INSERT INTO repeats (caller, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)`,
				k.Caller, k.Key, k.Fingerprint, t.now.UnixMicro())
			return err
		case err != nil:
			return err
		case !bytes.Equal(fingerprint, k.Fingerprint):
			return broker.InvalidField("Idempotency-Key", "it was used for another request")
		}
		first = &broker.FirstAnswer{Done: status.Valid, Status: int(status.Int64), Body: bytes.Clone(body)}
		return nil
	})
	return first, err
}

// EndRequest notes what a request came to.
func (s *Store) EndRequest(ctx context.Context, k broker.RepeatKey, a broker.FirstAnswer) error {
	body := bytes.Clone(a.Body)
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`UPDATE repeats SET status = $1, body = $2 WHERE caller = $3 AND key = $4`, a.Status, body, k.Caller, k.Key)
		return err
	})
}

// ForgetRequest forgets a key.
func (s *Store) ForgetRequest(ctx context.Context, k broker.RepeatKey) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec(`DELETE FROM repeats WHERE caller = $1 AND key = $2`, k.Caller, k.Key)
		return err
	})
}
