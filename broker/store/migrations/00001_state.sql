-- SPDX-License-Identifier: Apache-2.0

-- Times are microseconds since 1970 UTC. doc is a thing's JSON document; the
-- columns beside it are those that are unique, joined or searched. *_key is a
-- name in lower case. Things are marked deleted, never removed.

-- +goose Up

CREATE TABLE policy (
    one      INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision BIGINT  NOT NULL
);
INSERT INTO policy (one, revision) VALUES (1, 0);

CREATE TABLE firms (
    id       TEXT NOT NULL PRIMARY KEY,
    name_key TEXT NOT NULL UNIQUE,
    doc      TEXT NOT NULL
);

CREATE TABLE mailboxes (
    id          TEXT NOT NULL PRIMARY KEY,
    firm_id     TEXT NOT NULL REFERENCES firms (id),
    address_key TEXT NOT NULL,
    doc         TEXT NOT NULL,
    deleted_at  BIGINT
);
CREATE UNIQUE INDEX mailboxes_address ON mailboxes (address_key) WHERE deleted_at IS NULL;

CREATE TABLE agents (
    id         TEXT NOT NULL PRIMARY KEY,
    name_key   TEXT NOT NULL,
    doc        TEXT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX agents_name ON agents (name_key) WHERE deleted_at IS NULL;

CREATE TABLE sites (
    id         TEXT NOT NULL PRIMARY KEY,
    name_key   TEXT NOT NULL,
    doc        TEXT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX sites_name ON sites (name_key) WHERE deleted_at IS NULL;

CREATE TABLE workstations (
    id         TEXT NOT NULL PRIMARY KEY,
    name_key   TEXT NOT NULL,
    site_id    TEXT REFERENCES sites (id),
    doc        TEXT NOT NULL,
    deleted_at BIGINT
);
CREATE UNIQUE INDEX workstations_name ON workstations (name_key) WHERE deleted_at IS NULL;

-- The pins of workstations that are not deleted.
CREATE TABLE workstation_pins (
    pin            TEXT NOT NULL PRIMARY KEY,
    workstation_id TEXT NOT NULL REFERENCES workstations (id)
);
CREATE INDEX workstation_pins_workstation ON workstation_pins (workstation_id);

CREATE TABLE delegations (
    id         TEXT NOT NULL PRIMARY KEY,
    firm_id    TEXT NOT NULL REFERENCES firms (id),
    mailbox_id TEXT NOT NULL REFERENCES mailboxes (id),
    doc        TEXT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX delegations_mailbox ON delegations (mailbox_id);

CREATE TABLE assignments (
    id            TEXT NOT NULL PRIMARY KEY,
    delegation_id TEXT NOT NULL REFERENCES delegations (id),
    firm_id       TEXT NOT NULL REFERENCES firms (id),
    mailbox_id    TEXT NOT NULL REFERENCES mailboxes (id),
    agent_id      TEXT NOT NULL REFERENCES agents (id),
    created_at    BIGINT NOT NULL,
    doc           TEXT NOT NULL,
    revoked_at    BIGINT
);
CREATE INDEX assignments_agent_mailbox ON assignments (agent_id, mailbox_id);
CREATE INDEX assignments_delegation ON assignments (delegation_id);

CREATE TABLE app_passwords (
    id         TEXT NOT NULL PRIMARY KEY,
    agent_id   TEXT NOT NULL REFERENCES agents (id),
    hash       BLOB NOT NULL UNIQUE,
    doc        TEXT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX app_passwords_agent ON app_passwords (agent_id);

-- target_id names a row of the table that target tells.
CREATE TABLE locks (
    id         TEXT NOT NULL PRIMARY KEY,
    target     TEXT NOT NULL,
    target_id  TEXT NOT NULL,
    doc        TEXT NOT NULL,
    removed_at BIGINT
);
CREATE INDEX locks_standing ON locks (target, target_id) WHERE removed_at IS NULL;

-- A session's document is written when it opens. No foreign keys: the row is
-- part of the record, and must be written whatever became of the things that
-- it names.
CREATE TABLE sessions (
    id         TEXT   NOT NULL PRIMARY KEY,
    node       TEXT   NOT NULL,
    opened_at  BIGINT NOT NULL,
    doc        TEXT   NOT NULL,
    ended_at   BIGINT,
    end_reason TEXT
);
CREATE INDEX sessions_opened ON sessions (opened_at);
CREATE INDEX sessions_live ON sessions (opened_at) WHERE ended_at IS NULL;

-- One log per firm, and the BPO's own under the empty firm_id. number is a
-- short stand-in for the id in the events' keys.
CREATE TABLE logs (
    number   INTEGER NOT NULL PRIMARY KEY,
    firm_id  TEXT    NOT NULL UNIQUE,
    next_seq BIGINT  NOT NULL
);

-- record is the exact JSON; leaf_hash = SHA-256(0x00 || salt || record).
CREATE TABLE events (
    log        INTEGER NOT NULL REFERENCES logs (number),
    seq        BIGINT  NOT NULL,
    type       TEXT    NOT NULL,
    session_id TEXT,
    mailbox_id TEXT,
    agent_id   TEXT,
    time       BIGINT  NOT NULL,
    record     BLOB    NOT NULL,
    salt       BLOB    NOT NULL,
    leaf_hash  BLOB    NOT NULL
);
CREATE UNIQUE INDEX events_log ON events (log, seq);
CREATE INDEX events_type ON events (log, type, seq);
CREATE INDEX events_session ON events (session_id, seq) WHERE session_id IS NOT NULL;
