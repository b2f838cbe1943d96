// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/ldap"
	"github.com/postern-mail/postern/broker/session"
)

// DirectoryConfig is broker/ldap's, and what session asks it.
type DirectoryConfig struct {
	URLs          []string               `yaml:"urls"`
	CAFile        string                 `yaml:"ca_file"`
	NameTemplate  string                 `yaml:"name_template"`
	Search        *DirectorySearchConfig `yaml:"search"`
	Timeout       duration               `yaml:"timeout"`
	Connections   int                    `yaml:"connections"`
	Failures      int                    `yaml:"failures"`
	FailuresTime  duration               `yaml:"failures_window"`
	CheckInterval duration               `yaml:"check_interval"`
}

// DirectorySearchConfig is how accounts are found.
type DirectorySearchConfig struct {
	Base         string `yaml:"base"`
	Filter       string `yaml:"filter"`
	BindName     string `yaml:"bind_name"`
	PasswordFile string `yaml:"password_file"`
}

func (c *DirectoryConfig) complete(absolute func(...*string)) {
	if c == nil {
		return
	}
	absolute(&c.CAFile)
	if c.Search != nil {
		absolute(&c.Search.PasswordFile)
	}
	setDefault(&c.Timeout, duration(ldap.DefaultTimeout))
	setDefault(&c.Connections, ldap.DefaultConnections)
	setDefault(&c.Failures, session.DirectoryFailures)
	setDefault(&c.FailuresTime, duration(session.DirectoryWindow))
}

func (v *validator) directory(key string, c *DirectoryConfig) {
	config := c.ldap()
	if err := config.Validate(); err != nil {
		var e *broker.Error
		if errors.As(err, &e) {
			v.check(false, key+"."+e.Field, "%s", e.Public)
		} else {
			v.check(false, key, "%s", err)
		}
	}
	if c.Search != nil {
		v.check(c.Search.PasswordFile != "", key+".search.password_file", "name the file that holds the password of bind_name")
	}
	v.between(key+".timeout", c.Timeout, 100*time.Millisecond, 10*time.Second)
	v.count(key+".connections", c.Connections, 1000)
	v.check(c.Failures >= session.MinDirectoryFailures && c.Failures <= 1000, key+".failures", "give between %d and 1000", session.MinDirectoryFailures)
	v.between(key+".failures_window", c.FailuresTime, time.Minute, 24*time.Hour)
	if c.CheckInterval != 0 {
		v.between(key+".check_interval", c.CheckInterval, time.Second, 24*time.Hour)
		v.check(c.Search != nil, key+".check_interval", "accounts are looked up with search: configure it, or leave this out")
	}
}

// ldap makes broker/ldap's configuration, without what is read from files.
func (c *DirectoryConfig) ldap() ldap.Config {
	config := ldap.Config{
		URLs: c.URLs, NameTemplate: c.NameTemplate,
		Timeout: time.Duration(c.Timeout), Connections: c.Connections,
	}
	if s := c.Search; s != nil {
		config.Search = &ldap.Search{
			Base: s.Base, Filter: s.Filter, BindName: s.BindName,
			Password: func() (broker.Secret, error) { return readPassword(s.PasswordFile) },
		}
	}
	return config
}

// readPassword reads a password from a file, without the line's end. It is read
// each time, so that a new one is taken up.
func readPassword(file string) (broker.Secret, error) {
	info, err := os.Stat(file)
	if err != nil {
		return broker.Secret{}, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return broker.Secret{}, fmt.Errorf("%s has mode %04o: anybody could read or change the password; chmod 0600 it", file, info.Mode().Perm())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return broker.Secret{}, err
	}
	return broker.NewSecret(bytes.TrimRight(b, "\r\n")), nil
}

func (c *Config) certificateAlone() []broker.WorkstationClass {
	var classes []broker.WorkstationClass
	for _, class := range c.Workstations.CertificateAlone {
		classes = append(classes, broker.WorkstationClass(class))
	}
	return classes
}

// openDirectory gives the sessions the directory, if one is configured.
func (s *server) openDirectory(config *session.Config) error {
	c := s.config.Directory
	if c == nil {
		return nil
	}
	settings := c.ldap()
	settings.Logger = s.logger.Named("directory")
	if c.CAFile != "" {
		b, err := os.ReadFile(c.CAFile)
		if err != nil {
			return keyError("directory.ca_file", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(b) {
			return keyError("directory.ca_file", errors.New(c.CAFile+" holds no certificate in PEM form"))
		}
	}
	if settings.Search != nil {
		password, err := settings.Search.Password()
		if err != nil {
			return keyError("directory.search.password_file", err)
		}
		password.Wipe()
	}
	directory, err := ldap.New(settings)
	if err != nil {
		return keyError("directory", err)
	}
	config.Directory = directory
	config.DirectoryFailures, config.DirectoryWindow = c.Failures, time.Duration(c.FailuresTime)
	config.DirectoryInterval = time.Duration(c.CheckInterval)
	return nil
}
