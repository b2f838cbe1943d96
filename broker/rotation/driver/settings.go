// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// The fields that errors of settings begin with.
const (
	fieldProvider = "provider"
	fieldMailbox  = "mailbox"
)

// decode reads settings strictly; without any, into stays as it is.
func decode(field string, raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return broker.InvalidField(field, "%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return broker.InvalidField(field, "there is something behind the settings")
	}
	return nil
}

// tlsConfig verifies host by ca, a PEM bundle, or by the configured roots.
func (c *Config) tlsConfig(host, ca string) (*tls.Config, error) {
	roots := c.RootCAs
	if ca != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(ca)) {
			return nil, broker.InvalidField(fieldProvider+".ca", "it holds no certificate")
		}
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: roots, Time: c.Now}, nil
}

// expand replaces {name} in a template by what value returns for it; {{ is a
// brace.
func expand(template string, value func(name string) (string, error)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, "{") {
			b.WriteByte('{')
			template = rest[1:]
			continue
		}
		name, behind, closed := strings.Cut(rest, "}")
		if !closed {
			return "", errors.New("a { is not closed: write {{ for a brace")
		}
		v, err := value(name)
		if err != nil {
			return "", err
		}
		b.WriteString(v)
		template = behind
	}
}

func unknownName(name string) error {
	return fmt.Errorf("{%s} is not known: use {address}, {local}, {domain} or {username}", name)
}

// mailboxNames is for expand, with an escape for the place.
func (a *attempt) mailboxNames(escape func(string) string) func(string) (string, error) {
	return func(name string) (string, error) {
		if !isMailboxName(name) {
			return "", unknownName(name)
		}
		return escape(a.names[name]), nil
	}
}

// onlyMailboxNames checks a template without a mailbox.
func onlyMailboxNames(template string) error {
	_, err := expand(template, func(name string) (string, error) {
		if !isMailboxName(name) {
			return "", unknownName(name)
		}
		return "x", nil
	})
	return err
}
