-- SPDX-License-Identifier: Apache-2.0

-- Which sessions a subject had at a time is asked of the ends of sessions (what is
-- 2), which may lie at any time after it: they are few among the other events.

-- +goose Up

CREATE INDEX subject_sessions ON subject_events (subject, time, log, seq, what, other, messages, octets) WHERE what = 2;
