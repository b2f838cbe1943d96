-- SPDX-License-Identifier: Apache-2.0

-- A log's Merkle tree (RFC 6962 §2.1) has the leaf hashes of its events as
-- leaves. tree_edge are the hashes of the complete subtrees that tree_size
-- leaves make up, widest first. log_hashes holds what tiles above the lowest
-- consist of: the roots of complete subtrees of 256^level leaves; the lowest
-- are in events. Of checkpoints the newest is kept, and the newest that was
-- witnessed: they are for others to keep.

-- +goose Up

ALTER TABLE logs ADD COLUMN epoch      TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE logs ADD COLUMN tree_size  BIGINT NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN tree_edge  BYTEA  NOT NULL DEFAULT '';

CREATE TABLE log_hashes (
    log    BIGINT NOT NULL REFERENCES logs (number),
    level  INTEGER NOT NULL,
    number BIGINT  NOT NULL,
    hash   BYTEA   NOT NULL,
    PRIMARY KEY (log, level, number)
);

CREATE TABLE log_checkpoints (
    log       BIGINT NOT NULL REFERENCES logs (number),
    witnessed INTEGER NOT NULL CHECK (witnessed IN (0, 1)),
    epoch     TEXT COLLATE "C" NOT NULL,
    size      BIGINT  NOT NULL,
    note      TEXT COLLATE "C" NOT NULL,
    signed_at BIGINT  NOT NULL,
    PRIMARY KEY (log, witnessed)
);
