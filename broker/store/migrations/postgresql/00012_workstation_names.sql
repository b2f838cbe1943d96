-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- The names of workstations that are not deleted, in certificates of a
-- company's own CA.
CREATE TABLE workstation_names (
    authority      TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C" NOT NULL,
    workstation_id TEXT COLLATE "C" NOT NULL REFERENCES workstations (id),
    PRIMARY KEY (authority, name)
);
CREATE INDEX workstation_names_workstation ON workstation_names (workstation_id);
