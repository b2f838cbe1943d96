-- SPDX-License-Identifier: Apache-2.0

-- Where the events are that answer questions. It is made of the records a little
-- after them, many at a time, and can be made anew: logs.indexed says up to where
-- (exclusive), and what is beyond is read as it stands. So no foreign keys.
--
-- A subject is a mailbox, an agent or a workstation; other is the mailbox of an
-- agent's or a workstation's event, and the agent of a mailbox's. what is a
-- broker.Activity; of the end of a session, messages is its length in seconds,
-- rounded up. A message is 64 bits of a hash, of its place (mailbox, folder,
-- UIDVALIDITY, UID) or, where that is not known, of its Message-ID; message_ids
-- leads from the one hash to the other. day (UTC) keeps what is written at one
-- time on few pages, though hashes lie anywhere.

-- +goose Up

ALTER TABLE logs ADD COLUMN indexed BIGINT NOT NULL DEFAULT 0;

CREATE TABLE subjects (
    number INTEGER NOT NULL PRIMARY KEY,
    id     TEXT    NOT NULL UNIQUE
);

CREATE TABLE subject_events (
    subject  INTEGER NOT NULL,
    time     BIGINT  NOT NULL,
    log      INTEGER NOT NULL,
    seq      BIGINT  NOT NULL,
    what     INTEGER NOT NULL,
    other    INTEGER NOT NULL,
    messages BIGINT  NOT NULL,
    octets   BIGINT  NOT NULL,
    PRIMARY KEY (subject, time, log, seq)
) WITHOUT ROWID;

CREATE TABLE message_events (
    day     INTEGER NOT NULL,
    message BIGINT  NOT NULL,
    time    BIGINT  NOT NULL,
    log     INTEGER NOT NULL,
    seq     BIGINT  NOT NULL,
    what    INTEGER NOT NULL,
    PRIMARY KEY (day, message, time, log, seq)
) WITHOUT ROWID;

CREATE TABLE message_ids (
    day     INTEGER NOT NULL,
    id      BIGINT  NOT NULL,
    log     INTEGER NOT NULL,
    message BIGINT  NOT NULL,
    PRIMARY KEY (day, id, log, message)
) WITHOUT ROWID;
