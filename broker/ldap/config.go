// SPDX-License-Identifier: Apache-2.0

package ldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	client "github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Limits and times.
const (
	// DefaultTimeout is for one question, from connecting to the answer.
	DefaultTimeout = 5 * time.Second
	// DefaultConnections is how many questions may be under way.
	DefaultConnections = 16
	// MaxPassword is the longest password that is passed on, in octets.
	MaxPassword = 1024

	// maxAnswer bounds what a server may send on one connection, in octets,
	// TLS included.
	maxAnswer = 256 << 10
	// The breaker: how many outages in a row open it, and for how long.
	breakerFailures = 5
	breakerPause    = 5 * time.Second
)

// Placeholder stands for the account's name in a filter or a name.
const Placeholder = "{account}"

// Config says where the directory is, and how an account is found in it.
type Config struct {
	// URLs are the servers', tried in turn when one is out of reach:
	// ldaps://host[:port] for TLS from the first octet, ldap://host[:port] for
	// StartTLS, without which nothing is said.
	URLs []string
	// RootCAs verify the servers' certificates; nil: the system's.
	RootCAs *x509.CertPool
	// NameTemplate makes the name that is bound with, such as
	// "uid={account},ou=people,dc=bpo,dc=example". Without it the account is
	// searched for.
	NameTemplate string
	// Search finds accounts; nil: nobody may. With a NameTemplate it serves Look
	// alone.
	Search *Search
	// Timeout and Connections replace the defaults when they are not 0.
	Timeout     time.Duration
	Connections int
	Logger      *zap.Logger
}

// Search is how an account is found, by an identity that may search.
type Search struct {
	// Base is where the subtree begins.
	Base string
	// Filter holds {account}, as in
	// "(&(objectCategory=person)(sAMAccountName={account}))".
	Filter string
	// BindName is the identity's, a name or, in Active Directory,
	// "user@domain".
	BindName string
	// Password returns the identity's password, a fresh copy that is wiped.
	Password func() (broker.Secret, error)
}

// server is one of Config.URLs.
type server struct {
	address string
	tls     *tls.Config
	// startTLS: the connection begins in plain text.
	startTLS bool
}

func (c *Config) servers() ([]server, error) {
	if len(c.URLs) == 0 {
		return nil, broker.InvalidField("urls", "give at least one server")
	}
	var all []server
	for _, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, broker.InvalidField("urls", `give servers as "ldaps://host" or, for StartTLS, "ldap://host"`)
		}
		s := server{tls: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs, ServerName: u.Hostname()}}
		port := u.Port()
		switch u.Scheme {
		case "ldaps":
			if port == "" {
				port = client.DefaultLdapsPort
			}
		case "ldap":
			s.startTLS = true
			if port == "" {
				port = client.DefaultLdapPort
			}
		default:
			return nil, broker.InvalidField("urls", `give servers as "ldaps://host" or, for StartTLS, "ldap://host"`)
		}
		s.address = net.JoinHostPort(u.Hostname(), port)
		all = append(all, s)
	}
	return all, nil
}

// Validate reports what is wrong with a configuration, as an Invalid error
// with the field's name, without asking anybody.
func (c *Config) Validate() error {
	if _, err := c.servers(); err != nil {
		return err
	}
	if c.NameTemplate == "" && c.Search == nil {
		return broker.InvalidField("search", "without a name_template accounts must be searched for")
	}
	if t := c.NameTemplate; t != "" {
		if strings.Count(t, Placeholder) != 1 {
			return broker.InvalidField("name_template", "it must hold %s once", Placeholder)
		}
		if name, err := client.ParseDN(bindName(t, "account")); err != nil || len(name.RDNs) == 0 {
			return broker.InvalidField("name_template", "not a distinguished name (RFC 4514)").WithCause(err)
		}
	}
	if c.Search != nil {
		return c.Search.validate()
	}
	return nil
}

func (s *Search) validate() error {
	if !strings.Contains(s.Filter, Placeholder) {
		return broker.InvalidField("search.filter", "it must hold %s", Placeholder)
	}
	if _, err := client.CompileFilter(filter(s.Filter, "account")); err != nil {
		return broker.InvalidField("search.filter", "not a filter (RFC 4515)").WithCause(err)
	}
	if _, err := client.ParseDN(s.Base); err != nil || s.Base == "" {
		return broker.InvalidField("search.base", "not a distinguished name (RFC 4514)").WithCause(err)
	}
	if s.BindName == "" {
		return broker.InvalidField("search.bind_name", "name the identity that searches")
	}
	if s.Password == nil {
		return errors.New("ldap: the searching identity has no password")
	}
	return nil
}

// filter puts an account into a filter.
func filter(template, account string) string {
	return strings.ReplaceAll(template, Placeholder, client.EscapeFilter(account))
}

// bindName puts an account into a name.
func bindName(template, account string) string {
	return strings.ReplaceAll(template, Placeholder, client.EscapeDN(account))
}
