// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func newServeCommand() *cobra.Command {
	var file string
	var checkOnly bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until SIGTERM or an interrupt, which ends sessions in order; a
second one stops at once. SIGHUP rereads the certificates, which also happens
by itself when their files change, and has sinks open their files anew.

Every key of the configuration is documented in
deployments/postern.example.yaml; 'postern init' writes one to start from.`,
		Example: `  postern serve --config /etc/postern/postern.yaml
  postern serve --config /etc/postern/postern.yaml --check`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("--config is missing; 'postern init --dir DIR' makes a configuration")
			}
			config, err := loadConfig(file)
			if err != nil {
				return err
			}
			if checkOnly {
				if err := checkFiles(config); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is good.\n", file)
				return nil
			}
			return serve(cmd, file, config)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the configuration `file`")
	cmd.Flags().BoolVar(&checkOnly, "check", false, "only check the configuration and the files that it names")
	return cmd
}

// checkFiles opens what the configuration names, as far as that changes
// nothing and disturbs no server that runs.
func checkFiles(c *Config) error {
	_, certificates := newCertificates(c, zap.NewNop(), prometheus.NewRegistry())
	key, tokenKey := readTokenKey(c.AppPasswords.KeyFile)
	key.Wipe()
	_, upstreams := newUpstream(c, nil)
	_, issuers := readCAs("oauth.ca_file", c.OAuth.CAFile)
	_, credentials := openCredentials(&c.Credentials, zap.NewNop(), prometheus.NewRegistry())
	_, drivers := newDrivers(c)
	credentials = errors.Join(credentials, drivers)
	if c.Credentials.Vault != nil && c.Credentials.Vault.RotatorAuth != nil {
		_, rotator := openRotatorSecrets(&c.Credentials, zap.NewNop(), prometheus.NewRegistry())
		credentials = errors.Join(credentials, rotator)
	}
	state := c.checkState()
	_, sinks := newSinks(c, nil)
	_, authority := openWorkstationCA(c, zap.NewNop(), prometheus.NewRegistry())
	companyCAs, company := newCompanyCAs(c, nil, zap.NewNop(), prometheus.NewRegistry())
	if company == nil {
		company = companyCAs.CheckLists()
	}
	return errors.Join(certificates, authority, company, tokenKey, upstreams, issuers, credentials, state, sinks)
}

// serve runs the server, and does what signals say.
func serve(cmd *cobra.Command, file string, config *Config) error {
	// Before anything secret is read.
	hardened := harden()
	logger, err := newLogger(config.Log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if hardened != nil {
		logger.Warn("memory is less protected than it could be", zap.Error(hardened))
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)

	manager := newServiceManager(logger)
	s, err := newServer(cmd.Context(), config, logger)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	s.serving = manager.ready
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopping, late := false, (<-chan time.Time)(nil)
	for {
		select {
		case err := <-done:
			s.Close()
			return err
		case <-late:
			return errors.New("stopped at once, with work under way")
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP && stopping:
			case sig == syscall.SIGHUP:
				manager.reloading()
				if err := s.Reload(); err != nil {
					logger.Error("certificates not reloaded; the old ones stay in use", zap.Error(err))
				}
				manager.ready()
			case stopping:
				logger.Warn("stopping at once", zap.Stringer("signal", sig))
				s.Abort()
				late = time.After(closingTime)
			default:
				logger.Info("asked to stop; once more to stop at once", zap.Stringer("signal", sig))
				stopping = true
				manager.stopping()
				stop()
			}
		}
	}
}
