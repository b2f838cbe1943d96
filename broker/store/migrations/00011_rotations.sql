-- SPDX-License-Identifier: Apache-2.0

-- A rotation's document is its journal. Of those that have not ended a mailbox
-- has one at most. holder is the process that works on it, until held_until by
-- the database's clock; due_at is when there is something to do.

-- +goose Up

CREATE TABLE providers (
    id         TEXT NOT NULL PRIMARY KEY,
    firm_id    TEXT NOT NULL REFERENCES firms (id),
    name_key   TEXT NOT NULL,
    doc        TEXT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX providers_name ON providers (firm_id, name_key) WHERE deleted_at IS NULL;

CREATE TABLE rotations (
    id          TEXT NOT NULL PRIMARY KEY,
    firm_id     TEXT NOT NULL REFERENCES firms (id),
    mailbox_id  TEXT NOT NULL REFERENCES mailboxes (id),
    provider_id TEXT NOT NULL,
    doc         TEXT NOT NULL,
    due_at      BIGINT,
    ended_at    BIGINT,
    cleaned_at  BIGINT,
    holder      TEXT,
    node        TEXT,
    held_until  BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX rotations_open ON rotations (mailbox_id) WHERE ended_at IS NULL;
CREATE INDEX rotations_mailbox ON rotations (mailbox_id, id);
CREATE INDEX rotations_due ON rotations (due_at) WHERE due_at IS NOT NULL;
