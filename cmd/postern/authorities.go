// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/broker/workstationca"
)

// authorities are the CAs of Postern's own workstations: the embedded one, the
// one in Vault, both or none. Vault's issues where there are both.
type authorities struct {
	embedded *workstationca.Authority
	vault    *vault.Issuer
}

// openWorkstationCA opens what the configuration names.
func openWorkstationCA(c *Config, logger *zap.Logger, registry prometheus.Registerer) (*authorities, error) {
	a := &authorities{}
	var err error
	if c.Workstations.EmbeddedCA != "" {
		if a.embedded, err = loadEmbeddedCA(c); err != nil {
			return nil, err
		}
	}
	if v := c.Workstations.Vault; v != nil {
		a.vault, err = vault.NewIssuer(vault.IssuerConfig{
			Vault: vault.Config{
				Address: v.Address, Namespace: v.Namespace, CACert: v.CAFile, ServerName: v.ServerName, Mount: v.Mount,
				Timeout: time.Duration(v.Timeout), Auth: vaultAuth(v.Auth), Registerer: registry, Logger: logger,
			},
			Role: v.Role, AuthorityFile: v.AuthorityFile, Validity: time.Duration(c.Workstations.CertificateValidity),
		})
		if err != nil {
			return nil, vaultError("workstations.vault", err)
		}
	}
	return a, nil
}

func loadEmbeddedCA(c *Config) (*workstationca.Authority, error) {
	ca, err := workstationca.Load(c.Workstations.EmbeddedCA, workstationca.Config{Validity: time.Duration(c.Workstations.CertificateValidity)})
	if err != nil {
		return nil, keyError("workstations.embedded_ca", err)
	}
	return ca, nil
}

// issuing returns what issues certificates, as the API has it; nil: nothing does.
func (a *authorities) issuing() httpapi.WorkstationCA {
	switch {
	case a.vault != nil:
		return &vaultAuthority{a.vault, a.embedded}
	case a.embedded != nil:
		return a.embedded
	}
	return nil
}

// Run keeps Postern logged in to Vault until ctx ends.
func (a *authorities) Run(ctx context.Context) error {
	if a.vault != nil {
		return a.vault.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// vaultAuthority issues by Vault, and knows what the embedded CA has issued, so
// that its workstations come over by renewing.
type vaultAuthority struct {
	*vault.Issuer
	before *workstationca.Authority
}

var _ httpapi.CertificateRevoker = (*vaultAuthority)(nil)

// Verify checks that one of them issued a client certificate.
func (a *vaultAuthority) Verify(c *x509.Certificate) error {
	if a.before != nil && a.before.Verify(c) == nil {
		return nil
	}
	return a.Issuer.Verify(c)
}
