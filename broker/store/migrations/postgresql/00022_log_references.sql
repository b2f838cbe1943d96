-- SPDX-License-Identifier: Apache-2.0

-- For each row of a log, PostgreSQL asked whether its log is there, and took a lock
-- on it: more than half of what an event cost. Who appends has read the log's own
-- row and locked it, and no log is ever deleted.

-- +goose Up

ALTER TABLE events DROP CONSTRAINT events_log_fkey;
ALTER TABLE event_keys DROP CONSTRAINT event_keys_log_fkey;
ALTER TABLE log_hashes DROP CONSTRAINT log_hashes_log_fkey;
