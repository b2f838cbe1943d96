// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
)

// postgreSQL says where the state is, if it is in PostgreSQL.
func (c *Config) postgreSQL() *store.PostgreSQL {
	p := c.State.PostgreSQL
	if p == nil {
		return nil
	}
	return &store.PostgreSQL{DSN: p.DSN, PasswordFile: p.PasswordFile}
}

// leases are kept where nodes may be several.
func (s *server) leases() broker.Leases {
	if s.config.State.PostgreSQL == nil {
		return nil
	}
	return s.store
}

// stateKey is the key that errors of the state are about.
func (c *Config) stateKey() string {
	if c.State.PostgreSQL != nil {
		return "state.postgresql"
	}
	return "state.sqlite"
}

// checkState finds what can be wrong with the state without opening it.
func (c *Config) checkState() error {
	p := c.postgreSQL()
	if p == nil {
		return nil
	}
	if err := p.Check(); err != nil {
		return keyError(c.stateKey(), err)
	}
	return nil
}

// inSQLite refuses what is done to a file.
func (c *Config) inSQLite() error {
	if c.State.PostgreSQL == nil {
		return nil
	}
	return broker.Errorf(broker.Refused, "the state is in PostgreSQL, which has tools of its own for this: "+
		"pg_dump and pg_restore, or base backups with the write-ahead log (pg_basebackup, recovery to a point in time); "+
		"keep the keys and this configuration apart, and see \"Backup and restore\" in the operator's handbook")
}
