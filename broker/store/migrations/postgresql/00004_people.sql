-- SPDX-License-Identifier: Apache-2.0

-- Those who manage Postern. firm_id is empty for the BPO's own, so that names
-- are unique among them as among a firm's. identity_key is the issuer and the
-- subject of an OpenID Connect identity.

-- +goose Up

CREATE TABLE people (
    id           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    firm_id      TEXT COLLATE "C" NOT NULL,
    name_key     TEXT COLLATE "C" NOT NULL,
    identity_key TEXT COLLATE "C",
    doc          TEXT NOT NULL,
    removed_at   BIGINT
);
CREATE UNIQUE INDEX people_name ON people (firm_id, name_key) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX people_identity ON people (identity_key) WHERE removed_at IS NULL;

CREATE TABLE api_tokens (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    person_id  TEXT COLLATE "C" NOT NULL REFERENCES people (id),
    firm_id    TEXT COLLATE "C" NOT NULL,
    hash       BYTEA NOT NULL UNIQUE,
    doc        TEXT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX api_tokens_person ON api_tokens (person_id);
CREATE INDEX api_tokens_firm ON api_tokens (firm_id, id);

-- A claim is over when it is redeemed or replaced.
CREATE TABLE claims (
    id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    firm_id TEXT COLLATE "C" NOT NULL REFERENCES firms (id),
    hash    BYTEA NOT NULL UNIQUE,
    doc     TEXT NOT NULL,
    over_at BIGINT
);
CREATE INDEX claims_firm ON claims (firm_id);

-- What a firm reads of its own is found without passing over another's.
CREATE INDEX mailboxes_firm ON mailboxes (firm_id);
CREATE INDEX delegations_firm ON delegations (firm_id, id);
CREATE INDEX assignments_firm ON assignments (firm_id, created_at);

ALTER TABLE sessions ADD COLUMN firm_id TEXT COLLATE "C";
CREATE INDEX sessions_firm ON sessions (firm_id, id);
CREATE INDEX sessions_firm_live ON sessions (firm_id, id) WHERE ended_at IS NULL;
