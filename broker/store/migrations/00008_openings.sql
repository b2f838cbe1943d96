-- SPDX-License-Identifier: Apache-2.0

-- What was opened within the last day under assignments that have quotas, by
-- minutes; older rows go with the next message.

-- +goose Up

CREATE TABLE openings (
    assignment_id TEXT   NOT NULL,
    minute        BIGINT NOT NULL,
    messages      BIGINT NOT NULL,
    octets        BIGINT NOT NULL,
    headers       BIGINT NOT NULL,
    PRIMARY KEY (assignment_id, minute)
);
