// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/vault"
)

// credentials are what the configuration chose.
type credentials interface {
	broker.RotationSecrets
	// Run does what must be done all the time, until ctx ends.
	Run(ctx context.Context) error
}

func openCredentials(c *CredentialsConfig, logger *zap.Logger, registry prometheus.Registerer) (credentials, error) {
	if c.Vault != nil {
		return openVault(c.Vault, logger, registry)
	}
	return openSealed(c.Sealed)
}

func openVault(c *VaultConfig, logger *zap.Logger, registry prometheus.Registerer) (credentials, error) {
	config := vault.Config{
		Address:    c.Address,
		Namespace:  c.Namespace,
		CACert:     c.CAFile,
		ServerName: c.ServerName,
		Mount:      c.Mount,
		Timeout:    time.Duration(c.Timeout),
		Auth:       vaultAuth(c.Auth),
		Registerer: registry,
		Logger:     logger,
	}
	if c.WriterAuth != nil {
		writer := vaultAuth(c.WriterAuth)
		config.Writer = &writer
	}
	client, err := vault.New(config)
	if err != nil {
		return nil, vaultError("credentials.vault", err)
	}
	return client, nil
}

// openRotatorSecrets opens them as the rotator: the only one who reads provider
// accounts and writes what he has read.
func openRotatorSecrets(c *CredentialsConfig, logger *zap.Logger, registry prometheus.Registerer) (credentials, error) {
	if c.Vault == nil {
		return openSealed(c.Sealed)
	}
	v := *c.Vault
	v.Auth, v.WriterAuth = c.Vault.RotatorAuth, nil
	opened, err := openVault(&v, logger, registry)
	var e *broker.Error
	if errors.As(err, &e) {
		named := *e
		named.Field = strings.Replace(e.Field, "vault.auth", "vault.rotator_auth", 1)
		return nil, &named
	}
	return opened, err
}

// vaultError gives an error of broker/vault the name that its field has in the
// configuration file. Environment variables keep theirs.
func vaultError(section string, err error) error {
	var e *broker.Error
	if !errors.As(err, &e) || e.Field == "" {
		return keyError(section, err)
	}
	named := *e
	if e.Field == "environment" || strings.HasPrefix(e.Field, "VAULT_") {
		return &named
	}
	field := e.Field
	for _, rename := range [][2]string{{"writer", "writer_auth"}, {"ca_cert", "ca_file"}} {
		if rest, ok := strings.CutPrefix(field, rename[0]); ok && (rest == "" || rest[0] == '.') {
			field = rename[1] + rest
		}
	}
	if strings.HasSuffix(field, ".secret_id_state") {
		field += "_file"
	}
	named.Field = section + "." + field
	return &named
}

func vaultAuth(c *VaultAuthConfig) vault.AuthConfig {
	auth := vault.AuthConfig{TokenFile: c.TokenFile}
	if r := c.AppRole; r != nil {
		auth.AppRole = &vault.AppRole{
			RoleID: r.RoleID, SecretIDFile: r.SecretIDFile, Wrapped: r.Wrapped,
			SecretIDState: r.SecretIDStateFile, Mount: r.Mount,
		}
	}
	if k := c.Kubernetes; k != nil {
		auth.Kubernetes = &vault.Kubernetes{Role: k.Role, TokenFile: k.TokenFile, Mount: k.Mount}
	}
	if t := c.Certificate; t != nil {
		auth.Certificate = &vault.Certificate{CertFile: t.CertFile, KeyFile: t.KeyFile, Name: t.Name, Mount: t.Mount}
	}
	return auth
}
