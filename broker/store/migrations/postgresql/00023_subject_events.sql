-- SPDX-License-Identifier: Apache-2.0

-- Questions about a subject count all of its events in a time: the index holds what
-- they count, so that they need not look for each row where it lies.

-- +goose Up

ALTER TABLE subject_events DROP CONSTRAINT subject_events_pkey;
ALTER TABLE subject_events ADD CONSTRAINT subject_events_pkey
    PRIMARY KEY (subject, time, log, seq) INCLUDE (what, other, messages, octets);
