-- SPDX-License-Identifier: Apache-2.0

-- What the sentinel keeps of folders, to compare them with.

-- +goose Up

CREATE TABLE watched_folders (
    mailbox_id TEXT NOT NULL REFERENCES mailboxes (id),
    folder     TEXT NOT NULL,
    kept       BLOB NOT NULL,
    PRIMARY KEY (mailbox_id, folder)
);
