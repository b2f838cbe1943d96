-- SPDX-License-Identifier: Apache-2.0

-- All addresses, in lower case, of the mailboxes that are not deleted: so that
-- one that a mailbox of another firm has is found without reading every
-- document. Mailboxes of one firm may share an alias.

-- +goose Up

CREATE TABLE mailbox_addresses (
    address_key TEXT NOT NULL,
    mailbox_id  TEXT NOT NULL REFERENCES mailboxes (id),
    firm_id     TEXT NOT NULL REFERENCES firms (id),
    PRIMARY KEY (address_key, mailbox_id)
);
CREATE INDEX mailbox_addresses_mailbox ON mailbox_addresses (mailbox_id);

INSERT INTO mailbox_addresses (address_key, mailbox_id, firm_id)
    SELECT address_key, id, firm_id FROM mailboxes WHERE deleted_at IS NULL;
-- Addresses are ASCII, which lower() knows.
INSERT INTO mailbox_addresses (address_key, mailbox_id, firm_id)
    SELECT lower(alias.value), m.id, m.firm_id
    FROM mailboxes m, json_each(m.doc, '$.aliases') alias
    WHERE m.deleted_at IS NULL;
