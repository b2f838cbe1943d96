// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

func credentialBackends() map[string]logical.Factory {
	return map[string]logical.Factory{
		"approle":    approle.Factory,
		"cert":       cert.Factory,
		"kubernetes": kubernetes.Factory,
	}
}

func logicalBackends() map[string]logical.Factory {
	return map[string]logical.Factory{
		"kv":      kv.Factory,
		"pki":     pki.Factory,
		"transit": transit.Factory,
	}
}

func auditBackends() map[string]audit.Factory {
	return map[string]audit.Factory{"file": audit.NewFileBackend}
}

// clientCertificates asks for one and leaves judging it to the cert backend,
// as Vault's own listener does.
func clientCertificates() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
}

// registry reports the compiled-in engines, which NewCore looks up when a
// mount is created.
type registry map[string]consts.PluginType

func builtins() registry {
	r := make(registry)
	for name := range credentialBackends() {
		r[name] = consts.PluginTypeCredential
	}
	for name := range logicalBackends() {
		r[name] = consts.PluginTypeSecrets
	}
	return r
}

func (r registry) Contains(name string, t consts.PluginType) bool { return r[name] == t }

func (r registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	if r[name] != t {
		return nil, false
	}
	return func() (any, error) { return nil, nil }, true
}

func (r registry) Keys(t consts.PluginType) (names []string) {
	for n, pt := range r {
		if pt == t {
			names = append(names, n)
		}
	}
	return names
}

func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r[name] == t
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
