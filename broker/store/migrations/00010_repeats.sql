-- SPDX-License-Identifier: Apache-2.0

-- Requests that their senders may repeat, by the key that they chose. status is
-- NULL while the first is under way; body is NULL where its answer held a
-- secret.

-- +goose Up

CREATE TABLE repeats (
    caller      TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at  BIGINT NOT NULL,
    status      INTEGER,
    body        BLOB,
    PRIMARY KEY (caller, key)
);
CREATE INDEX repeats_created ON repeats (created_at);
