// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/sentinel"
	"github.com/postern-mail/postern/broker/session"
	"github.com/postern-mail/postern/broker/workstationca"
)

// maxSocketPath is what sun_path holds on Linux, less its end.
const maxSocketPath = 107

// validator gathers what is wrong.
type validator struct{ problems []problem }

// check adds a problem unless ok.
func (v *validator) check(ok bool, key, format string, args ...any) {
	if !ok {
		v.problems = append(v.problems, problem{key, fmt.Sprintf(format, args...)})
	}
}

func (v *validator) between(key string, d duration, least, most time.Duration) {
	v.check(time.Duration(d) >= least && time.Duration(d) <= most, key, "give between %s and %s", least, most)
}

func (v *validator) count(key string, n, most int) {
	v.check(n >= 1 && n <= most, key, "give between 1 and %d", most)
}

// problems checks a completed configuration, without looking at any file.
func (c *Config) problems() []problem {
	v := &validator{}
	v.check(c.DataDir != "", "data_dir", "name the directory for Postern's state, as made by 'postern init'")
	v.check(c.Hostname != "" && !strings.ContainsAny(c.Hostname, " :/"), "hostname", "give the host name that agents' mail clients connect to")
	v.check(c.Node != "", "node", "the machine has no host name: give the node a name of its own")
	v.listeners(&c.Listeners)
	v.check(c.TLS.Certificate != "", "tls.certificate", "name the PEM file with the server's certificate and its intermediates")
	v.check(c.TLS.Key != "", "tls.key", "name the PEM file with the key of tls.certificate")
	v.workstations(&c.Workstations)
	if c.Directory != nil {
		v.directory("directory", c.Directory)
	}
	v.state(&c.State)
	v.credentials(&c.Credentials)
	v.between("upstream.dial_timeout", c.Upstream.DialTimeout, 100*time.Millisecond, time.Minute)
	v.between("upstream.login_timeout", c.Upstream.LoginTimeout, 100*time.Millisecond, 2*time.Minute)
	v.between("oauth.timeout", c.OAuth.Timeout, 100*time.Millisecond, time.Minute)
	v.count("rotation.concurrency", c.Rotation.Concurrency, 256)
	v.count("rotation.per_provider", c.Rotation.PerProvider, c.Rotation.Concurrency)
	v.checkpoints(&c.Checkpoints)
	v.between("rotation.keep", c.Rotation.Keep, time.Minute, 90*24*time.Hour)
	v.between("sentinel.interval", c.Sentinel.Interval, sentinel.MinInterval, 24*time.Hour)
	v.count("sentinel.concurrency", c.Sentinel.Concurrency, 256)
	v.sinks(c.Sinks)
	v.limits(&c.Limits)
	v.check(len(c.API.Socket) <= maxSocketPath, "api.socket", "the path has %d octets, and a socket's may have %d: give a shorter one", len(c.API.Socket), maxSocketPath)
	if c.API.Listen != "" {
		v.address("api.listen", c.API.Listen)
	}
	for i, o := range c.API.OIDC {
		v.oidc(fmt.Sprintf("api.oidc[%d]", i), &o)
	}
	if c.Metrics.Address != "" {
		v.address("metrics.address", c.Metrics.Address)
	}
	_, err := zapcore.ParseLevel(c.Log.Level)
	v.check(err == nil, "log.level", "give debug, info, warn or error")
	v.check(c.Log.Format == "json" || c.Log.Format == "console", "log.format", "give json or console")
	v.between("drain.timeout", c.Drain.Timeout, 0, 10*time.Minute)
	return v.problems
}

func (v *validator) workstations(c *WorkstationsConfig) {
	v.check(c.EmbeddedCA != "" || c.Vault != nil || len(c.CAFiles)+len(c.Authorities) > 0, "workstations",
		"give embedded_ca, vault, authorities or ca_files, or several: without a CA no workstation could connect")
	v.authorities(c.Authorities)
	for i, file := range c.CAFiles {
		v.check(file != "", fmt.Sprintf("workstations.ca_files[%d]", i), "name a PEM file")
	}
	for i, file := range c.TPMCAFiles {
		v.check(file != "", fmt.Sprintf("workstations.tpm_ca_files[%d]", i), "name a PEM file")
	}
	v.between("workstations.certificate_validity", c.CertificateValidity, time.Hour, workstationca.MaxValidity)
	for i, class := range c.CertificateAlone {
		v.check(class == string(broker.ClassHardware) || class == string(broker.ClassSoftware),
			fmt.Sprintf("workstations.certificate_alone[%d]", i), "give hardware or software")
	}
	if i := c.Vault; i != nil {
		const key = "workstations.vault"
		v.vault(key, &VaultConfig{Address: i.Address, Timeout: i.Timeout, Auth: i.Auth})
		v.check(i.AuthorityFile != "", key+".authority_file",
			"name the PEM file with the certificate of the CA that the PKI engine signs with ('setup.sh pki-ca' prints it)")
	}
}

func (v *validator) listeners(c *ListenersConfig) {
	if *c == (ListenersConfig{}) {
		v.check(false, "listeners", "give at least one of imaps, imap, submissions and submission")
		return
	}
	seen := make(map[string]string)
	for _, l := range c.all() {
		if l.address == "" {
			continue
		}
		key := "listeners." + l.name
		if !v.address(key, l.address) {
			continue
		}
		if strings.HasSuffix(l.address, ":0") {
			continue
		}
		other, taken := seen[l.address]
		v.check(!taken, key, "%s has the same address", other)
		seen[l.address] = key
	}
}

// listener is one entry of ListenersConfig.
type listener struct {
	name, address        string
	implicit, submission bool
}

func (c *ListenersConfig) all() []listener {
	return []listener{
		{"imaps", c.IMAPS, true, false},
		{"imap", c.IMAP, false, false},
		{"submissions", c.Submissions, true, true},
		{"submission", c.Submission, false, true},
	}
}

// address checks "host:port", where the host may be empty and is an IP
// address otherwise: a name could mean another address tomorrow.
func (v *validator) address(key, address string) bool {
	host, port, err := net.SplitHostPort(address)
	_, portErr := strconv.ParseUint(port, 10, 16) // any will do, 0 included
	ok := err == nil && portErr == nil && (host == "" || net.ParseIP(host) != nil)
	v.check(ok, key, `give an IP address and a port, such as "192.0.2.1:993", "[::1]:993" or ":993"`)
	return ok
}

func (v *validator) limits(c *LimitsConfig) {
	v.count("limits.pending", c.Pending, 1_000_000)
	v.count("limits.pending_per_address", c.PendingPerAddress, 1_000_000)
	v.count("limits.pending_per_certificate", c.PendingPerCertificate, 1_000_000)
	v.between("limits.handshake_timeout", c.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	v.between("limits.authenticate_timeout", c.AuthenticateTimeout, time.Second, 10*time.Minute)
	v.count("limits.mailbox_connections", c.MailboxConnections, 1000)
	v.count("limits.mailbox_submissions", c.MailboxSubmissions, 1000)
	v.check(c.MessageSize >= 64<<10 && c.MessageSize <= 1<<30, "limits.message_size", "give between 64KB and 1GB")
	v.count("limits.message_recipients", c.MessageRecipients, 100_000)
}

func (v *validator) state(c *StateConfig) {
	v.check((c.SQLite == "") != (c.PostgreSQL == nil), "state", "give exactly one of sqlite and postgresql")
	v.between("state.lease", c.Lease, session.MinLeaseTime, time.Minute)
	if c.PostgreSQL != nil {
		v.check(c.PostgreSQL.DSN != "", "state.postgresql.dsn",
			`give a connection string, such as "host=db.example dbname=postern user=postern sslmode=verify-full"`)
	}
}

func (v *validator) oidc(key string, c *OIDCConfig) {
	u, err := url.Parse(c.Issuer)
	v.check(err == nil && u.Host != "" && u.Scheme == "https", key+".issuer", `give the issuer's URL, such as "https://id.bpo.example"`)
	v.check(c.Audience != "", key+".audience", "give what the issuer's tokens for Postern name as their audience")
	v.check(c.RoleClaim != "" || len(c.Admins)+len(c.Auditors) == 0, key+".role_claim", "name the claim that admins and auditors are values of")
}

func (v *validator) credentials(c *CredentialsConfig) {
	if (c.Sealed == nil) == (c.Vault == nil) {
		v.check(false, "credentials", "give exactly one of sealed and vault")
	}
	if c.Vault != nil {
		v.vault("credentials.vault", c.Vault)
	}
}

func (v *validator) vault(key string, c *VaultConfig) {
	u, err := url.Parse(c.Address)
	v.check(err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http"), key+".address",
		`give Vault's address, such as "https://vault.example:8200"`)
	v.between(key+".timeout", c.Timeout, 100*time.Millisecond, 30*time.Second)
	if c.Auth == nil {
		v.check(false, key+".auth", "give exactly one of approle, token_file, kubernetes and certificate")
	} else {
		v.vaultAuth(key+".auth", c.Auth)
	}
	if c.WriterAuth != nil {
		v.vaultAuth(key+".writer_auth", c.WriterAuth)
	}
	if c.RotatorAuth != nil {
		v.vaultAuth(key+".rotator_auth", c.RotatorAuth)
	}
}

func (v *validator) vaultAuth(key string, c *VaultAuthConfig) {
	given := 0
	for _, is := range []bool{c.AppRole != nil, c.TokenFile != "", c.Kubernetes != nil, c.Certificate != nil} {
		if is {
			given++
		}
	}
	v.check(given == 1, key, "give exactly one of approle, token_file, kubernetes and certificate")
	if r := c.AppRole; r != nil {
		v.check(r.RoleID != "", key+".approle.role_id", "give the role-id")
		v.check(r.SecretIDFile != "", key+".approle.secret_id_file", "name the file that holds the secret-id")
	}
	if k := c.Kubernetes; k != nil {
		v.check(k.Role != "", key+".kubernetes.role", "give Vault's role for this service account")
	}
	if t := c.Certificate; t != nil {
		v.check(t.CertFile != "", key+".certificate.cert_file", "name the client certificate's PEM file")
		v.check(t.KeyFile != "", key+".certificate.key_file", "name the PEM file of the certificate's key")
	}
}

// workstationCAFiles returns the files of all CAs whose certificates are good.
func (c *Config) workstationCAFiles() []string {
	files := append(c.ownCAFiles(), c.Workstations.CAFiles...)
	for _, a := range c.Workstations.Authorities {
		files = append(files, a.CAFile)
	}
	return files
}

// ownCAFiles returns the files of those that issue for Postern.
func (c *Config) ownCAFiles() []string {
	var files []string
	if c.Workstations.EmbeddedCA != "" {
		files = append(files, filepath.Join(c.Workstations.EmbeddedCA, workstationca.CertificateFile))
	}
	if c.Workstations.Vault != nil {
		files = append(files, c.Workstations.Vault.AuthorityFile)
	}
	return files
}
