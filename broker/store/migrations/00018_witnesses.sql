-- SPDX-License-Identifier: Apache-2.0

-- Witnesses cosign the logs' checkpoints. Of what each has cosigned the newest is
-- kept, in columns, since it changes every few seconds: they describe no change of
-- the witness. unconfirmed marks a log whose epoch began with a restore that
-- nobody has confirmed yet.

-- +goose Up

ALTER TABLE logs ADD COLUMN unconfirmed INTEGER NOT NULL DEFAULT 0;

CREATE TABLE witnesses (
    id           TEXT   NOT NULL PRIMARY KEY,
    firm_id      TEXT   NOT NULL,
    doc          TEXT   NOT NULL,
    removed_at   BIGINT,
    epoch        TEXT   NOT NULL DEFAULT '',
    size         BIGINT NOT NULL DEFAULT 0,
    note         TEXT   NOT NULL DEFAULT '',
    cosigned_at  BIGINT NOT NULL DEFAULT 0,
    heard_at     BIGINT NOT NULL,
    silent_since BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX witnesses_firm ON witnesses (firm_id) WHERE removed_at IS NULL;
