-- SPDX-License-Identifier: Apache-2.0

-- What was sent within the last hour under assignments that limit messages or
-- recipients per hour; older rows go with the next message.

-- +goose Up

CREATE TABLE sendings (
    intent        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    assignment_id TEXT COLLATE "C" NOT NULL,
    reserved_at   BIGINT           NOT NULL,
    recipients    BIGINT           NOT NULL
);
CREATE INDEX sendings_assignment ON sendings (assignment_id, reserved_at);
