-- SPDX-License-Identifier: Apache-2.0

-- A node's right to hold sessions, by the database's own clock. holder is the
-- process: one that starts under a node's name takes the lease over.

-- +goose Up

CREATE TABLE leases (
    node       TEXT NOT NULL PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
