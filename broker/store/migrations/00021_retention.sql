-- SPDX-License-Identifier: Apache-2.0

-- How long records are kept: a firm's document under its id, the BPO's rules
-- under the empty one. Of an event that was pruned type, record and salt are
-- empty, and the ids are gone; leaf_hash and time stay. Below prune_from nothing
-- is left to prune, unless a hold was released since: kept_until is up to when a
-- hold keeps records after its release, and is NULL once that was looked at.
-- pruned_until is the time of the newest record that was pruned.

-- +goose Up

ALTER TABLE logs ADD COLUMN prune_from   BIGINT NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN pruned_until BIGINT NOT NULL DEFAULT 0;

CREATE TABLE retention (
    firm_id TEXT NOT NULL PRIMARY KEY,
    doc     TEXT NOT NULL
);

CREATE TABLE holds (
    id          TEXT NOT NULL PRIMARY KEY,
    firm_id     TEXT NOT NULL,
    doc         TEXT NOT NULL,
    released_at BIGINT,
    kept_until  BIGINT
);
CREATE INDEX holds_firm ON holds (firm_id);
