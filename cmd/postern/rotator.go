// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/broker/store"
)

// rotatorNode is what a rotator of its own is called beside the server of its
// node: each takes over what an earlier process of its name left.
const rotatorNode = "/rotator"

// rotatesInServer reports whether 'postern serve' replaces passwords.
func (c *Config) rotatesInServer() bool {
	return !c.Rotation.Separate && (c.Credentials.Vault == nil || c.Credentials.Vault.RotatorAuth != nil)
}

func newRotator(c *Config, node string, state *store.Store, secrets broker.RotationSecrets, upstream broker.Upstream, drivers map[string]broker.Driver, logger *zap.Logger) (*rotation.Rotator, error) {
	return rotation.New(rotation.Config{
		State: state, Secrets: secrets, Upstream: upstream, Drivers: drivers, Node: node,
		Concurrency: c.Rotation.Concurrency, PerProvider: c.Rotation.PerProvider,
		SessionsEnd: time.Duration(c.State.Lease), Limits: rotation.Limits{Keep: time.Duration(c.Rotation.Keep)},
		Logger: logger,
	})
}

func newRotatorCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "rotator",
		Short: "Replace passwords, in a process of its own",
		Long: `Work on rotations until SIGTERM or an interrupt. It reads the server's
configuration, of which it needs state, credentials, upstream, rotation and log,
and logs in to Vault with rotator_auth: then 'postern serve' needs no role that
reads provider accounts, or reads and writes credentials. Set rotation.separate
there. Any number may run, under different nodes' names.`,
		Example: "  postern rotator --config /etc/postern/postern.yaml",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("--config is missing")
			}
			config, err := loadConfig(file)
			if err != nil {
				return err
			}
			if config.Credentials.Vault != nil && config.Credentials.Vault.RotatorAuth == nil {
				return usagef("%s: credentials.vault.rotator_auth is missing", file)
			}
			if err := runRotator(cmd, config); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration `file`")
	return cmd
}

func runRotator(cmd *cobra.Command, c *Config) (err error) {
	// Before anything secret is read.
	hardened := harden()
	logger, err := newLogger(c.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if hardened != nil {
		logger.Warn("memory is less protected than it could be", zap.Error(hardened))
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
	defer stop()
	manager := newServiceManager(logger)
	state, err := store.Open(ctx, store.Config{Path: c.State.SQLite, PostgreSQL: c.postgreSQL(), Logger: logger.Named("store")})
	if err != nil {
		return keyError(c.stateKey(), err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	secrets, err := openRotatorSecrets(&c.Credentials, logger.Named("credentials"), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	upstream, err := newUpstream(c, logger.Named("upstream"))
	if err != nil {
		return err
	}
	drivers, err := newDrivers(c)
	if err != nil {
		return err
	}
	rotator, err := newRotator(c, c.Node+rotatorNode, state, secrets, upstream, drivers, logger.Named("rotation"))
	if err != nil {
		return err
	}
	var failure error
	ctx, fail := context.WithCancel(ctx)
	defer fail()
	services := newStage(ctx, func(name string, err error) {
		logger.Error("a part of the rotator failed", zap.String("part", name), zap.Error(err))
		failure = errors.Join(failure, fmt.Errorf("%s: %w", name, err))
		fail()
	})
	services.start("credentials", secrets.Run)
	work := newStage(ctx, services.failed)
	work.start("rotations", rotator.Run)
	manager.ready()
	logger.Info("rotating", zap.String("version", version()), zap.String("node", c.Node+rotatorNode))
	<-ctx.Done()
	manager.stopping()
	work.stop()
	services.stop()
	return failure
}
