-- SPDX-License-Identifier: Apache-2.0

-- The time that pruning goes by, in microseconds: it follows the clock in small
-- steps, so that a clock which jumps ahead destroys nothing. clock is what that said
-- at the last step.

-- +goose Up

CREATE TABLE prune_time (
    one   INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    at    BIGINT NOT NULL,
    clock BIGINT NOT NULL
);
