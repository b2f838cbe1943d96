// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/audit/silence"
)

// openCheckpoints makes what signs the transparency logs.
func (s *server) openCheckpoints(context.Context) error {
	var err error
	if s.logKeys, err = openLogKeys(s.config, s.logger.Named("log-keys"), s.registry); err != nil {
		return err
	}
	s.checkpoints, err = checkpoint.New(checkpoint.Config{
		Logs: s.store, Signers: s.logKeys.signers, Logger: s.logger.Named("checkpoints"), Registerer: s.registry,
	})
	return err
}

// openWitnesses makes what notices witnesses that fall silent. They are read once
// before anybody is let in.
func (s *server) openWitnesses(ctx context.Context) error {
	var err error
	s.witnesses, err = silence.New(silence.Config{
		Witnesses: s.store, Logs: s.store, Node: s.config.Node, Logger: s.logger.Named("witnesses"), Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	if err := s.openRetention(); err != nil {
		return err
	}
	return s.witnesses.Look(ctx)
}
