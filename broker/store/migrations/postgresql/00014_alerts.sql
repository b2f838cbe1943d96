-- SPDX-License-Identifier: Apache-2.0

-- subject_key is the kind and the subject: of each one alert at most stands.
-- firm_id is that of the log, empty for the BPO's own. No foreign keys: an alert
-- is made with its event, whatever became of the things that it is about.

-- +goose Up

CREATE TABLE alerts (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    firm_id     TEXT COLLATE "C" NOT NULL,
    subject_key TEXT COLLATE "C" NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL,
    severity    TEXT COLLATE "C" NOT NULL,
    state       TEXT COLLATE "C" NOT NULL,
    mailbox_id  TEXT COLLATE "C",
    agent_id    TEXT COLLATE "C",
    last_seen   BIGINT NOT NULL,
    doc         TEXT NOT NULL
);
CREATE UNIQUE INDEX alerts_standing ON alerts (firm_id, subject_key) WHERE state <> 'resolved';
CREATE INDEX alerts_subject ON alerts (firm_id, subject_key, id);
CREATE INDEX alerts_firm ON alerts (firm_id, id);
