-- SPDX-License-Identifier: Apache-2.0

-- Of PostgreSQL alone: SQLite's table is its own index.

-- +goose Up

SELECT 1;
