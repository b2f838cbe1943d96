// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/broker/oauth"
	"github.com/postern-mail/postern/broker/rotation"
	"github.com/postern-mail/postern/broker/sentinel"
	"github.com/postern-mail/postern/broker/session"
	"github.com/postern-mail/postern/broker/upstream"
	"github.com/postern-mail/postern/broker/vault"
	"github.com/postern-mail/postern/broker/workstationca"
	"github.com/postern-mail/postern/proxy"
	"github.com/postern-mail/postern/proxy/submission"
)

// Defaults of the configuration that no package has of its own.
const (
	defaultDrainTimeout = 30 * time.Second
	defaultLogLevel     = "info"
	defaultLogFormat    = "json"
)

// Files in the data directory, where the configuration says nothing else.
const (
	storeFile          = "postern.db"
	appPasswordKeyFile = "app-password.key"
	adminTokenFile     = "admin.token"
	sealedFile         = "credentials.age"
	sealedIdentityFile = "credentials.key"
	workstationCADir   = "workstation-ca"
	socketFile         = "postern.sock"
	revocationDir      = "revocation-lists"
)

// Config is the configuration file of `postern serve`. Its keys are documented
// in deployments/postern.example.yaml. Paths are absolute once it is loaded.
type Config struct {
	DataDir        string             `yaml:"data_dir"`
	Hostname       string             `yaml:"hostname"`
	Node           string             `yaml:"node"`
	Listeners      ListenersConfig    `yaml:"listeners"`
	TrustedProxies []netip.Prefix     `yaml:"trusted_proxies"`
	TLS            TLSConfig          `yaml:"tls"`
	Workstations   WorkstationsConfig `yaml:"workstations"`
	AppPasswords   AppPasswordsConfig `yaml:"app_passwords"`
	Directory      *DirectoryConfig   `yaml:"directory"`
	Guardrails     string             `yaml:"guardrails"`
	Checkpoints    CheckpointsConfig  `yaml:"checkpoints"`
	Credentials    CredentialsConfig  `yaml:"credentials"`
	Rotation       RotationConfig     `yaml:"rotation"`
	Sentinel       SentinelConfig     `yaml:"sentinel"`
	Sinks          []SinkConfig       `yaml:"sinks"`
	Upstream       UpstreamConfig     `yaml:"upstream"`
	OAuth          OAuthConfig        `yaml:"oauth"`
	Limits         LimitsConfig       `yaml:"limits"`
	State          StateConfig        `yaml:"state"`
	API            APIConfig          `yaml:"api"`
	Metrics        MetricsConfig      `yaml:"metrics"`
	Log            LogConfig          `yaml:"log"`
	Drain          DrainConfig        `yaml:"drain"`
}

// ListenersConfig says where agents' mail clients connect; empty: not there.
type ListenersConfig struct {
	IMAPS       string `yaml:"imaps"`
	IMAP        string `yaml:"imap"`
	Submissions string `yaml:"submissions"`
	Submission  string `yaml:"submission"`
}

// TLSConfig is the server's own certificate.
type TLSConfig struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// WorkstationsConfig says whose client certificates are good.
type WorkstationsConfig struct {
	EmbeddedCA          string        `yaml:"embedded_ca"`
	CAFiles             []string      `yaml:"ca_files"`
	TPMCAFiles          []string      `yaml:"tpm_ca_files"`
	CertificateValidity duration      `yaml:"certificate_validity"`
	CertificateAlone    []string      `yaml:"certificate_alone"`
	Vault               *IssuerConfig `yaml:"vault"`
	// Authorities are company's CAs whose certificates name workstations.
	Authorities []AuthorityConfig `yaml:"authorities"`
}

// IssuerConfig is broker/vault's Issuer: Vault's PKI engine signs workstations'
// certificates.
type IssuerConfig struct {
	Address       string           `yaml:"address"`
	CAFile        string           `yaml:"ca_file"`
	ServerName    string           `yaml:"server_name"`
	Namespace     string           `yaml:"namespace"`
	Mount         string           `yaml:"mount"`
	Role          string           `yaml:"role"`
	AuthorityFile string           `yaml:"authority_file"`
	Timeout       duration         `yaml:"timeout"`
	Auth          *VaultAuthConfig `yaml:"auth"`
}

// AppPasswordsConfig holds the key of the app passwords' hashes.
type AppPasswordsConfig struct {
	KeyFile string `yaml:"key_file"`
}

// CredentialsConfig says where credentials are kept: in exactly one of these.
type CredentialsConfig struct {
	Sealed *SealedConfig `yaml:"sealed"`
	Vault  *VaultConfig  `yaml:"vault"`
}

// SealedConfig is broker/sealed's.
type SealedConfig struct {
	File           string `yaml:"file"`
	IdentityFile   string `yaml:"identity_file"`
	PassphraseFile string `yaml:"passphrase_file"`
}

// VaultConfig is broker/vault's.
type VaultConfig struct {
	Address    string           `yaml:"address"`
	CAFile     string           `yaml:"ca_file"`
	ServerName string           `yaml:"server_name"`
	Namespace  string           `yaml:"namespace"`
	Mount      string           `yaml:"mount"`
	Timeout    duration         `yaml:"timeout"`
	Auth       *VaultAuthConfig `yaml:"auth"`
	WriterAuth *VaultAuthConfig `yaml:"writer_auth"`
	// RotatorAuth is the rotator's identity.
	RotatorAuth *VaultAuthConfig `yaml:"rotator_auth"`
}

// RotationConfig says who replaces passwords, and how many at once.
type RotationConfig struct {
	// Separate says that 'postern rotator' does it, and not 'postern serve'.
	Separate    bool     `yaml:"separate"`
	Concurrency int      `yaml:"concurrency"`
	PerProvider int      `yaml:"per_provider"`
	Keep        duration `yaml:"keep"`
	// Programs are what the driver exec may run.
	Programs []ProgramConfig `yaml:"programs"`
}

// SentinelConfig says how mailboxes are watched.
type SentinelConfig struct {
	// Off: this server watches none.
	Off         bool     `yaml:"off"`
	Interval    duration `yaml:"interval"`
	Concurrency int      `yaml:"concurrency"`
}

// ProgramConfig is a program that changes passwords at a provider.
type ProgramConfig struct {
	Name    string   `yaml:"name"`
	Path    string   `yaml:"path"`
	Args    []string `yaml:"args"`
	Actions []string `yaml:"actions"`
	Firms   []string `yaml:"firms"`
}

// VaultAuthConfig is a way to log in to Vault: exactly one of these.
type VaultAuthConfig struct {
	AppRole     *AppRoleConfig          `yaml:"approle"`
	TokenFile   string                  `yaml:"token_file"`
	Kubernetes  *KubernetesConfig       `yaml:"kubernetes"`
	Certificate *VaultCertificateConfig `yaml:"certificate"`
}

// AppRoleConfig is Vault's AppRole method.
type AppRoleConfig struct {
	RoleID            string `yaml:"role_id"`
	SecretIDFile      string `yaml:"secret_id_file"`
	Wrapped           bool   `yaml:"wrapped"`
	SecretIDStateFile string `yaml:"secret_id_state_file"`
	Mount             string `yaml:"mount"`
}

// KubernetesConfig is Vault's Kubernetes method.
type KubernetesConfig struct {
	Role      string `yaml:"role"`
	TokenFile string `yaml:"token_file"`
	Mount     string `yaml:"mount"`
}

// VaultCertificateConfig is Vault's TLS certificate method.
type VaultCertificateConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	Name     string `yaml:"name"`
	Mount    string `yaml:"mount"`
}

// UpstreamConfig is broker/upstream's.
type UpstreamConfig struct {
	CAFile       string   `yaml:"ca_file"`
	DialTimeout  duration `yaml:"dial_timeout"`
	LoginTimeout duration `yaml:"login_timeout"`
}

// OAuthConfig is broker/oauth's.
type OAuthConfig struct {
	CAFile   string         `yaml:"ca_file"`
	Networks []netip.Prefix `yaml:"networks"`
	Timeout  duration       `yaml:"timeout"`
}

// LimitsConfig bounds what clients may use.
type LimitsConfig struct {
	Pending               int      `yaml:"pending"`
	PendingPerAddress     int      `yaml:"pending_per_address"`
	PendingPerCertificate int      `yaml:"pending_per_certificate"`
	HandshakeTimeout      duration `yaml:"handshake_timeout"`
	AuthenticateTimeout   duration `yaml:"authenticate_timeout"`
	MailboxConnections    int      `yaml:"mailbox_connections"`
	MailboxSubmissions    int      `yaml:"mailbox_submissions"`
	MessageSize           size     `yaml:"message_size"`
	MessageRecipients     int      `yaml:"message_recipients"`
}

// StateConfig says where state and events are kept: in exactly one of these.
type StateConfig struct {
	SQLite     string            `yaml:"sqlite"`
	PostgreSQL *PostgreSQLConfig `yaml:"postgresql"`
	Lease      duration          `yaml:"lease"`
}

// PostgreSQLConfig is broker/store's.
type PostgreSQLConfig struct {
	DSN          string `yaml:"dsn"`
	PasswordFile string `yaml:"password_file"`
}

// APIConfig is the management API's.
type APIConfig struct {
	Socket string       `yaml:"socket"`
	Listen string       `yaml:"listen"`
	OIDC   []OIDCConfig `yaml:"oidc"`
}

// OIDCConfig is an OpenID Connect issuer whose tokens the API takes.
type OIDCConfig struct {
	Issuer    string   `yaml:"issuer"`
	Audience  string   `yaml:"audience"`
	CAFile    string   `yaml:"ca_file"`
	RoleClaim string   `yaml:"role_claim"`
	Admins    []string `yaml:"admins"`
	Auditors  []string `yaml:"auditors"`
}

// MetricsConfig is for metrics and health checks.
type MetricsConfig struct {
	Address string `yaml:"address"`
}

// LogConfig is the log's.
type LogConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// DrainConfig says how the server stops.
type DrainConfig struct {
	Timeout duration `yaml:"timeout"`
}

// loadConfig reads, completes and validates a file. The error names every key
// that is wrong.
func loadConfig(file string) (*Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("--config: %v; 'postern init --dir DIR' makes a configuration", err)
	}
	return parseConfig(file, b)
}

// parseConfig is loadConfig for a file's content; paths in it are relative to
// the file's directory.
func parseConfig(file string, content []byte) (*Config, error) {
	c := &Config{}
	problems := decodeConfig(content, c)
	if len(problems) == 0 {
		dir, err := filepath.Abs(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		c.complete(dir)
		problems = c.problems()
	}
	if len(problems) > 0 {
		return nil, &configError{file: file, problems: problems}
	}
	return c, nil
}

// complete fills in defaults, and makes paths absolute.
func (c *Config) complete(dir string) {
	under := func(dir string, paths ...*string) {
		for _, p := range paths {
			if *p != "" && !filepath.IsAbs(*p) {
				*p = filepath.Join(dir, *p)
			}
		}
	}
	under(dir, &c.DataDir)
	if c.State.PostgreSQL == nil {
		setDefault(&c.State.SQLite, filepath.Join(c.DataDir, storeFile))
	} else {
		under(dir, &c.State.PostgreSQL.PasswordFile)
	}
	setDefault(&c.API.Socket, filepath.Join(c.DataDir, socketFile))
	setDefault(&c.AppPasswords.KeyFile, filepath.Join(c.DataDir, appPasswordKeyFile))
	c.Directory.complete(func(paths ...*string) { under(dir, paths...) })
	under(dir, &c.TLS.Certificate, &c.TLS.Key, &c.Workstations.EmbeddedCA, &c.AppPasswords.KeyFile,
		&c.Upstream.CAFile, &c.OAuth.CAFile, &c.State.SQLite, &c.API.Socket, &c.Guardrails)
	for i := range c.Workstations.CAFiles {
		under(dir, &c.Workstations.CAFiles[i])
	}
	for i := range c.Workstations.TPMCAFiles {
		under(dir, &c.Workstations.TPMCAFiles[i])
	}
	for i := range c.Workstations.Authorities {
		c.Workstations.Authorities[i].complete(func(paths ...*string) { under(dir, paths...) })
	}
	if v := c.Workstations.Vault; v != nil {
		setDefault(&v.Mount, vault.DefaultIssuerMount)
		setDefault(&v.Role, vault.DefaultIssuerRole)
		setDefault(&v.Timeout, duration(vault.DefaultTimeout))
		under(dir, &v.CAFile, &v.AuthorityFile)
		v.Auth.complete(func(paths ...*string) { under(dir, paths...) })
	}
	c.Checkpoints.complete(func(paths ...*string) { under(dir, paths...) })
	for i := range c.Sinks {
		c.Sinks[i].complete(func(paths ...*string) { under(dir, paths...) })
	}
	for i := range c.API.OIDC {
		under(dir, &c.API.OIDC[i].CAFile)
	}
	if s := c.Credentials.Sealed; s != nil {
		setDefault(&s.File, filepath.Join(c.DataDir, sealedFile))
		setDefault(&s.IdentityFile, filepath.Join(c.DataDir, sealedIdentityFile))
		under(dir, &s.File, &s.IdentityFile, &s.PassphraseFile)
	}
	if v := c.Credentials.Vault; v != nil {
		setDefault(&v.Mount, vault.DefaultMount)
		setDefault(&v.Timeout, duration(vault.DefaultTimeout))
		under(dir, &v.CAFile)
		for _, auth := range []*VaultAuthConfig{v.Auth, v.WriterAuth, v.RotatorAuth} {
			auth.complete(func(paths ...*string) { under(dir, paths...) })
		}
	}
	if c.Node == "" {
		c.Node, _ = os.Hostname() // empty on failure, which validation reports
	}
	setDefault(&c.Rotation.Concurrency, rotation.DefaultConcurrency)
	setDefault(&c.Rotation.PerProvider, rotation.DefaultPerProvider)
	setDefault(&c.Rotation.Keep, duration(rotation.DefaultKeep))
	setDefault(&c.Sentinel.Interval, duration(sentinel.DefaultInterval))
	setDefault(&c.Sentinel.Concurrency, sentinel.DefaultConcurrency)
	setDefault(&c.State.Lease, duration(session.LeaseTime))
	setDefault(&c.Workstations.CertificateValidity, duration(workstationca.DefaultValidity))
	setDefault(&c.Upstream.DialTimeout, duration(upstream.DefaultDialTimeout))
	setDefault(&c.Upstream.LoginTimeout, duration(upstream.DefaultLoginTimeout))
	setDefault(&c.OAuth.Timeout, duration(oauth.DefaultTimeout))
	setDefault(&c.Limits.Pending, proxy.DefaultPending)
	setDefault(&c.Limits.PendingPerAddress, proxy.DefaultPendingPerAddress)
	setDefault(&c.Limits.PendingPerCertificate, proxy.DefaultPendingPerCertificate)
	setDefault(&c.Limits.HandshakeTimeout, duration(proxy.DefaultHandshakeTimeout))
	setDefault(&c.Limits.AuthenticateTimeout, duration(proxy.DefaultAuthenticateTimeout))
	setDefault(&c.Limits.MailboxConnections, session.DefaultConnections)
	setDefault(&c.Limits.MailboxSubmissions, session.DefaultSubmissions)
	setDefault(&c.Limits.MessageSize, submission.DefaultMessageOctets)
	setDefault(&c.Limits.MessageRecipients, submission.DefaultRecipients)
	setDefault(&c.Log.Level, defaultLogLevel)
	setDefault(&c.Log.Format, defaultLogFormat)
	setDefault(&c.Drain.Timeout, duration(defaultDrainTimeout))
}

func (a *VaultAuthConfig) complete(absolute func(...*string)) {
	if a == nil {
		return
	}
	absolute(&a.TokenFile)
	if r := a.AppRole; r != nil {
		absolute(&r.SecretIDFile, &r.SecretIDStateFile)
	}
	if k := a.Kubernetes; k != nil {
		absolute(&k.TokenFile)
	}
	if t := a.Certificate; t != nil {
		absolute(&t.CertFile, &t.KeyFile)
	}
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}
