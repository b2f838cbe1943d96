-- SPDX-License-Identifier: Apache-2.0

-- An index that is kept in step with every event costs more pages of the
-- write-ahead log than the event itself: each session and each type writes at
-- a place of its own. event_keys is filled a little later, many events at a
-- time; logs.keyed says up to where (exclusive), and what is beyond is read as
-- it stands. Frequent types have no keys: whoever reads the log meets them.

-- +goose Up

CREATE TABLE event_keys (
    log INTEGER NOT NULL REFERENCES logs (number),
    key TEXT    NOT NULL,
    seq BIGINT  NOT NULL,
    PRIMARY KEY (log, key, seq)
) WITHOUT ROWID;

ALTER TABLE logs ADD COLUMN keyed BIGINT NOT NULL DEFAULT 0;

DROP INDEX events_type;
DROP INDEX events_session;

-- Ids of sessions are UUIDv7: their order is that of their making.
DROP INDEX sessions_opened;
DROP INDEX sessions_live;
CREATE INDEX sessions_live ON sessions (id) WHERE ended_at IS NULL;
