-- SPDX-License-Identifier: Apache-2.0

-- Who delivers to a sink, and up to where (next, exclusive) it has each log. A
-- log without a row is due from its first event on. No foreign key to logs: it would wait for those
-- who append.

-- +goose Up

CREATE TABLE sinks (
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder        TEXT COLLATE "C" NOT NULL,
    node          TEXT COLLATE "C" NOT NULL,
    held_until    BIGINT NOT NULL,
    failing_since BIGINT NOT NULL,
    failure       TEXT COLLATE "C" NOT NULL
);

CREATE TABLE sink_positions (
    sink TEXT COLLATE "C" NOT NULL REFERENCES sinks (name),
    log  BIGINT NOT NULL,
    next BIGINT NOT NULL,
    PRIMARY KEY (sink, log)
);
