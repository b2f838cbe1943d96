-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- The names of workstations that are not deleted, in certificates of a
-- company's own CA.
CREATE TABLE workstation_names (
    authority      TEXT NOT NULL,
    name           TEXT NOT NULL,
    workstation_id TEXT NOT NULL REFERENCES workstations (id),
    PRIMARY KEY (authority, name)
);
CREATE INDEX workstation_names_workstation ON workstation_names (workstation_id);
