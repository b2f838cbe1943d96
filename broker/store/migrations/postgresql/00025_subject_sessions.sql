-- SPDX-License-Identifier: Apache-2.0

-- Which sessions a subject had at a time is asked of the ends of sessions (what is
-- 2), which may lie at any time after it: they are few among the other events.
--
-- What is told from an index alone must be known to be visible to all, and of a
-- session that has ended the index of those that live keeps a row: vacuuming finds
-- out and takes away, so it comes often.

-- +goose Up

CREATE INDEX subject_sessions ON subject_events (subject, time, log, seq) INCLUDE (other, messages, octets) WHERE what = 2;

ALTER TABLE subject_events SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE message_events SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.05);
ALTER TABLE sessions SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
