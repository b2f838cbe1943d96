// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// DefaultMount is where the KV engine is mounted.
	DefaultMount = "postern"

	// DefaultTimeout bounds one call, both tries and a login among them.
	// Config.Timeout may be minTimeout to maxTimeout.
	DefaultTimeout = 3 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = 30 * time.Second

	// retryWait is the mean pause before the second try.
	retryWait = 150 * time.Millisecond

	// breakerFailures outages in a row open the breaker; after breakerOpen one
	// call is let through to see whether Vault is back.
	breakerFailures = 5
	breakerOpen     = 2 * time.Second

	// loginTimeout bounds one login. It is longer than a call's, since an
	// unwrapping that is cut off loses the secret-id for good.
	loginTimeout = 15 * time.Second
	// loginWaitMin to loginWaitMax is the pause after a failed login.
	loginWaitMin = 250 * time.Millisecond
	loginWaitMax = 5 * time.Second
	// suspectAge is how old a login must be before a 403 that may mean either
	// "dead token" or "no permission" is answered by a new login: a wrong
	// policy must not become a storm of logins.
	suspectAge = 10 * time.Second
	// revokeTimeout bounds the revocation of Postern's own token at the end.
	revokeTimeout = time.Second

	// filePoll is how often a token file is looked at.
	filePoll = time.Second
	// maxFile bounds a token or secret-id file, in octets.
	maxFile = 16 << 10

	// maxAnswer bounds an answer on a credential's path, in octets: a secret
	// of broker.MaxSecret octets, each escaped as \u00xx, and what surrounds it.
	maxAnswer = 6*broker.MaxSecret + 64<<10
)

// Config says which Vault, and who Postern is there.
type Config struct {
	// Address is "https://host:port", with an optional path; "http" is
	// accepted for loopback addresses only.
	Address string
	// Namespace is a Vault Enterprise, HCP or OpenBao namespace; empty: none.
	Namespace string
	// CACert is a PEM file that replaces the system's roots; empty: those.
	CACert string
	// ServerName is verified instead of the address's host; empty: the host.
	ServerName string
	// Mount is the KV version 2 engine's; empty: DefaultMount.
	Mount string
	// Timeout bounds one call, 100 ms to 30 s; 0: DefaultTimeout.
	Timeout time.Duration
	// Auth is the identity that reads credentials.
	Auth AuthConfig
	// Writer is the identity that stores and deletes them; nil: Auth's.
	Writer *AuthConfig
	// Registerer takes the metrics; nil: none are kept.
	Registerer prometheus.Registerer
	// Logger is told of logins and of outages; nil: nobody is.
	Logger *zap.Logger
}

// AuthConfig is a way to log in: exactly one of its fields is set.
type AuthConfig struct {
	AppRole *AppRole
	// TokenFile holds a token, which somebody else renews or replaces, such
	// as Vault Agent. It is read again when it changes.
	TokenFile   string
	Kubernetes  *Kubernetes
	Certificate *Certificate
}

// AppRole logs in with a role-id and a secret-id.
type AppRole struct {
	RoleID string
	// SecretIDFile holds the secret-id or, if Wrapped, a wrapping token.
	SecretIDFile string
	// Wrapped says that SecretIDFile holds a wrapping token. It works once:
	// the secret-id in it is kept in memory, and in SecretIDState.
	Wrapped bool
	// SecretIDState is a file, of mode 0600, that keeps an unwrapped
	// secret-id so that a restart works; empty: a restart needs a new
	// wrapping token.
	SecretIDState string
	// Mount is the auth method's; empty: "approle".
	Mount string
}

// Kubernetes logs in with a service account's token.
type Kubernetes struct {
	Role string
	// TokenFile is read at each login; empty: where Kubernetes mounts it.
	TokenFile string
	// Mount is the auth method's; empty: "kubernetes".
	Mount string
}

// Certificate logs in with a TLS client certificate.
type Certificate struct {
	// CertFile and KeyFile are PEM, read at each handshake.
	CertFile, KeyFile string
	// Name is the certificate role in Vault; empty: Vault tries each.
	Name string
	// Mount is the auth method's; empty: "cert".
	Mount string
}

var mountPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$`)

// withDefaults returns cfg complete, or what is wrong with it.
func (cfg Config) withDefaults() (Config, error) {
	if v := os.Getenv("VAULT_SKIP_VERIFY"); v != "" {
		if skip, err := strconv.ParseBool(v); err != nil || skip {
			return cfg, broker.InvalidField("VAULT_SKIP_VERIFY", "is set in the environment: Postern does not talk to a Vault whose certificate is not verified; unset it")
		}
	}
	if err := checkAddress(cfg.Address); err != nil {
		return cfg, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Timeout < minTimeout || cfg.Timeout > maxTimeout {
		return cfg, broker.InvalidField("timeout", "must be %v to %v", minTimeout, maxTimeout)
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	var err error
	if cfg.Mount, err = checkMount("mount", cfg.Mount, DefaultMount); err != nil {
		return cfg, err
	}
	if cfg.Auth, err = cfg.Auth.withDefaults("auth"); err != nil {
		return cfg, err
	}
	if cfg.Writer != nil {
		writer, err := cfg.Writer.withDefaults("writer")
		if err != nil {
			return cfg, err
		}
		if shared := writer.AppRole; shared != nil && cfg.Auth.AppRole != nil && shared.SecretIDState != "" && shared.SecretIDState == cfg.Auth.AppRole.SecretIDState {
			return cfg, broker.InvalidField("writer.approle.secret_id_state", "must not be the file of the other identity")
		}
		cfg.Writer = &writer
	}
	return cfg, nil
}

func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return broker.InvalidField("address", "must be https://host:port")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return broker.InvalidField("address", "plain http is for loopback addresses only: use https")
	}
	return broker.InvalidField("address", "must begin with https://")
}

// isLoopback accepts literal addresses alone: a name is what a resolver says.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func checkMount(field, mount, standard string) (string, error) {
	if mount == "" {
		mount = standard
	}
	if !mountPattern.MatchString(mount) {
		return "", broker.InvalidField(field, "must be a path of letters, digits, - and _")
	}
	return mount, nil
}

func (a AuthConfig) withDefaults(field string) (AuthConfig, error) {
	ways := 0
	for _, set := range []bool{a.AppRole != nil, a.TokenFile != "", a.Kubernetes != nil, a.Certificate != nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return a, broker.InvalidField(field, "must have exactly one of approle, token_file, kubernetes, certificate")
	}
	var err error
	switch {
	case a.AppRole != nil:
		a.AppRole, err = a.AppRole.withDefaults(field + ".approle")
	case a.Kubernetes != nil:
		a.Kubernetes, err = a.Kubernetes.withDefaults(field + ".kubernetes")
	case a.Certificate != nil:
		a.Certificate, err = a.Certificate.withDefaults(field + ".certificate")
	}
	return a, err
}

func (r AppRole) withDefaults(field string) (*AppRole, error) {
	switch {
	case r.RoleID == "":
		return nil, broker.InvalidField(field+".role_id", "is missing")
	case r.SecretIDFile == "":
		return nil, broker.InvalidField(field+".secret_id_file", "is missing")
	case r.SecretIDState != "" && !r.Wrapped:
		return nil, broker.InvalidField(field+".secret_id_state", "has a use only with a wrapped secret-id")
	case r.SecretIDState == r.SecretIDFile:
		return nil, broker.InvalidField(field+".secret_id_state", "must not be the secret-id file itself")
	}
	var err error
	r.Mount, err = checkMount(field+".mount", r.Mount, "approle")
	return &r, err
}

func (k Kubernetes) withDefaults(field string) (*Kubernetes, error) {
	if k.Role == "" {
		return nil, broker.InvalidField(field+".role", "is missing")
	}
	if k.TokenFile == "" {
		k.TokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	}
	var err error
	k.Mount, err = checkMount(field+".mount", k.Mount, "kubernetes")
	return &k, err
}

func (c Certificate) withDefaults(field string) (*Certificate, error) {
	if c.CertFile == "" || c.KeyFile == "" {
		return nil, broker.InvalidField(field, "cert_file and key_file are both needed")
	}
	var err error
	c.Mount, err = checkMount(field+".mount", c.Mount, "cert")
	return &c, err
}
