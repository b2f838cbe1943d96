-- SPDX-License-Identifier: Apache-2.0

-- Messages whose opening is an alarm.

-- +goose Up

CREATE TABLE canaries (
    id         TEXT NOT NULL PRIMARY KEY,
    mailbox_id TEXT NOT NULL REFERENCES mailboxes (id),
    doc        TEXT NOT NULL,
    removed_at BIGINT
);
CREATE INDEX canaries_mailbox ON canaries (mailbox_id) WHERE removed_at IS NULL;
