-- SPDX-License-Identifier: Apache-2.0

-- A code is over when it is redeemed or replaced.

-- +goose Up

CREATE TABLE enrolment_codes (
    id       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name_key TEXT COLLATE "C" NOT NULL,
    hash     BYTEA NOT NULL UNIQUE,
    doc      TEXT NOT NULL,
    over_at  BIGINT
);
CREATE INDEX enrolment_codes_name ON enrolment_codes (name_key) WHERE over_at IS NULL;
