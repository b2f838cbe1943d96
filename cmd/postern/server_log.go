// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/postern-mail/postern/broker/audit/checkpoint"
	"github.com/postern-mail/postern/broker/audit/silence"
)

// logKeyPurpose separates the key that signs the transparency logs from others
// that come of the same secret.
const logKeyPurpose = "postern/transparency log"

// openCheckpoints makes what signs the transparency logs.
func (s *server) openCheckpoints(context.Context) error {
	signer, err := derivedLogSigner(s.config)
	if err != nil {
		return err
	}
	s.checkpoints, err = checkpoint.New(checkpoint.Config{
		Logs: s.store, Signers: []checkpoint.Signer{signer}, Logger: s.logger.Named("checkpoints"), Registerer: s.registry,
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
	return s.witnesses.Look(ctx)
}

// derivedLogSigner is the key that comes of the app passwords' key, which all
// nodes have and every backup is made with.
func derivedLogSigner(c *Config) (checkpoint.Signer, error) {
	key, err := readTokenKey(c.AppPasswords.KeyFile)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	seed, err := hkdf.Key(sha256.New, key.Reveal(), nil, logKeyPurpose, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return checkpoint.NewLocal(seed), nil
}
