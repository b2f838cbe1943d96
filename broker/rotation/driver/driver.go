// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"crypto/x509"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Limits.
const (
	// DefaultTimeout bounds one change, from the connection to the last answer.
	DefaultTimeout = 30 * time.Second
	// maxAnswer bounds the octets that a provider may say in one conversation.
	maxAnswer = 256 << 10
	// maxCause bounds the text of an error's cause, in octets.
	maxCause = 400
)

// Names of the drivers, as a Provider's settings have them.
const (
	NameLDAP   = "ldap"
	NameSQL    = "sql"
	NameHTTP   = "http"
	NameExec   = "exec"
	NameManual = "manual"
)

// Config is what the drivers need.
type Config struct {
	// RootCAs verify providers whose settings name no CA; nil: the system's.
	RootCAs *x509.CertPool
	// Programs are what the exec driver may run, by the names in settings.
	Programs map[string]Program
	// Timeout bounds one change; 0: DefaultTimeout.
	Timeout time.Duration
	// Now is the clock that certificates are verified by; nil: time.Now.
	Now func() time.Time
}

// New makes the drivers, by name. A wrong setting is Invalid.
func New(c Config) (map[string]broker.Driver, error) {
	if c.Timeout < 0 {
		return nil, broker.InvalidField("timeout", "must not be negative")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	for name, program := range c.Programs {
		if err := program.check(); err != nil {
			return nil, broker.InvalidField("programs."+name, "%v", err)
		}
	}
	return map[string]broker.Driver{
		NameLDAP:   &LDAP{c},
		NameSQL:    &SQL{c},
		NameHTTP:   &HTTP{c},
		NameExec:   &Exec{c},
		NameManual: Manual{},
	}, nil
}
