// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// vaultTTL is how long Vault's tokens live; no test needs a renewal.
const vaultTTL = time.Hour

// config is the configuration file.
func (p *Postern) config(vault string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `data_dir: .
hostname: localhost
node: e2e
listeners:
  imaps: "127.0.0.1:%d"
  imap: "127.0.0.1:%d"
  submissions: "127.0.0.1:%d"
  submission: "127.0.0.1:%d"
tls:
  certificate: tls/server.pem
  key: tls/server.key
workstations:
  embedded_ca: workstation-ca
api:
  socket: %s
metrics:
  address: %s
log:
  level: debug
drain:
  timeout: 2s
`, p.IMAPSPort, p.IMAPPort, p.SubmissionsPort, p.SubmissionPort,
		filepath.Base(p.Socket), strings.TrimPrefix(p.MetricsURL, "http://"))
	if p.options.StorePath != "" {
		fmt.Fprintf(&b, "store:\n  path: %q\n", p.options.StorePath)
	}
	if vault == "" {
		b.WriteString("credentials:\n  sealed: {}\n")
	} else {
		b.WriteString(vault)
	}
	b.WriteString(p.options.Config)
	return b.String()
}

// vaultConfig makes Vault ready as deployments/vault describes, with an
// AppRole and a wrapped secret-id for each of the two identities, and returns
// the configuration's section; "" without Vault.
func (p *Postern) vaultConfig() string {
	p.t.Helper()
	v := p.options.Vault
	if v == nil {
		return ""
	}
	v.MountKV("postern")
	v.ApplyPolicies()
	return fmt.Sprintf(`credentials:
  vault:
    address: %s
    ca_file: %q
    auth:
%s    writer_auth:
%s`, v.Addr, v.CAFile, p.appRole("postern-proxy"), p.appRole("postern-writer"))
}

// appRole makes a role with the policy of the same name.
func (p *Postern) appRole(policy string) string {
	p.t.Helper()
	v := p.options.Vault
	roleID := v.AppRole(policy, policy, vaultTTL, vaultTTL)
	secretID := filepath.Join(p.Dir, policy+".wrapped")
	p.write(secretID, v.WrappedSecretID(policy))
	return fmt.Sprintf(`      approle:
        role_id: %s
        secret_id_file: %s
        wrapped: true
        secret_id_state_file: %s
`, roleID, filepath.Base(secretID), policy+".secret-id")
}
