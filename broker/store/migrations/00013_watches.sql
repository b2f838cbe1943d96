-- SPDX-License-Identifier: Apache-2.0

-- What the sentinel knows of mailboxes. holder is the process that looks at one,
-- until held_until by the database's clock; due_at is when the next look is due.

-- +goose Up

CREATE TABLE watches (
    mailbox_id TEXT NOT NULL PRIMARY KEY REFERENCES mailboxes (id),
    firm_id    TEXT NOT NULL REFERENCES firms (id),
    doc        TEXT NOT NULL,
    due_at     BIGINT NOT NULL,
    holder     TEXT,
    node       TEXT,
    held_until BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX watches_due ON watches (due_at);
CREATE INDEX watches_firm ON watches (firm_id);
