// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
)

// config is the configuration file.
func (p *Postern) config(vault string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `data_dir: .
hostname: localhost
node: %s
listeners:
  imaps: "127.0.0.1:%d"
  imap: "127.0.0.1:%d"
  submissions: "127.0.0.1:%d"
  submission: "127.0.0.1:%d"
tls:
  certificate: tls/server.pem
  key: tls/server.key
%sapi:
  socket: %s
  listen: "127.0.0.1:%d"
metrics:
  address: %s
log:
  level: debug
drain:
  timeout: 2s
`, p.options.Node, p.IMAPSPort, p.IMAPPort, p.SubmissionsPort, p.SubmissionPort, p.workstations,
		filepath.Base(p.Socket), p.APIPort, strings.TrimPrefix(p.MetricsURL, "http://"))
	if p.options.StorePath != "" {
		fmt.Fprintf(&b, "state:\n  sqlite: %q\n", p.options.StorePath)
	}
	if d := p.options.Database; d != nil {
		fmt.Fprintf(&b, "state:\n  postgresql:\n    dsn: %q\n    password_file: %q\n", d.DSN(p.options.DatabasePort), d.PasswordFile)
		if p.options.Lease != 0 {
			fmt.Fprintf(&b, "  lease: %s\n", p.options.Lease)
		}
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
	v.Setup("engine")
	v.Setup("policies")
	v.Setup("approle")
	section := fmt.Sprintf(`credentials:
  vault:
    address: %s
    ca_file: %q
    auth:
%s    writer_auth:
%s`, v.Addr, v.CAFile, p.appRole("postern-proxy"), p.appRole("postern-writer"))
	if p.options.Rotates {
		section += "    rotator_auth:\n" + p.appRole("postern-rotator")
	}
	return section
}

// workstationsConfig is the section about workstations' certificates; Vault is
// made ready to sign them, where it is to.
func (p *Postern) workstationsConfig() string {
	p.t.Helper()
	section := "workstations:\n  embedded_ca: workstation-ca\n"
	if v := p.options.Vault; p.options.Issuer {
		for _, step := range []string{"pki", "policies", "approle"} {
			v.Setup(step)
		}
		p.write(filepath.Join(p.Dir, "authority.pem"), v.Setup("pki-ca"))
		section += fmt.Sprintf(`  vault:
    address: %s
    ca_file: %q
    authority_file: authority.pem
    auth:
%s`, v.Addr, v.CAFile, p.appRole("postern-pki"))
	}
	return section + p.options.Workstations
}

// appRole lets Postern in as a role that Vault was made ready with.
func (p *Postern) appRole(role string) string {
	p.t.Helper()
	v := p.options.Vault
	secretID := filepath.Join(p.Dir, role+".wrapped")
	p.write(secretID, v.Setup("secret-id", role))
	return fmt.Sprintf(`      approle:
        role_id: %s
        secret_id_file: %s
        wrapped: true
        secret_id_state_file: %s
`, v.Setup("role-id", role), filepath.Base(secretID), role+".secret-id")
}
