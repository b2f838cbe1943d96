// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/postern-mail/postern/broker"
)

var _ broker.Credentials = (*Client)(nil)

// Client is a broker.Credentials in Vault. Its methods may be called from any
// goroutine; they need Run.
type Client struct {
	*caller
	mount  string
	reader *identity
	// writer is reader itself when there is one identity for both.
	writer *identity
}

// New checks cfg and makes a client; it does not talk to Vault. The error is
// Invalid, its Field a name within the configuration's vault section or an
// environment variable's.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{mount: cfg.Mount}
	if c.reader, err = newIdentity("proxy", cfg, cfg.Auth); err != nil {
		return nil, err
	}
	c.writer = c.reader
	identities := []*identity{c.reader}
	if cfg.Writer != nil {
		if c.writer, err = newIdentity("writer", cfg, *cfg.Writer); err != nil {
			return nil, err
		}
		identities = append(identities, c.writer)
	}
	c.caller, err = newCaller("vault", "postern_vault", cfg.Timeout, cfg.Logger, cfg.Registerer, identities...)
	return c, err
}

// Ready asks whether Vault is initialised and unsealed, and whether the
// proxy's token is good.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, c.reader, "ready", func(ctx context.Context, client *api.Client) error {
		if err := c.reader.health(ctx); err != nil {
			return err
		}
		_, err := client.Auth().Token().LookupSelfWithContext(ctx)
		return err
	})
}

// health asks sys/health, which is not a namespace's and needs no token.
func (id *identity) health(ctx context.Context) error {
	root := *id.conn
	root.namespace = ""
	client, err := root.client("")
	if err != nil {
		return err
	}
	answer, err := client.Logical().ReadRawWithDataWithContext(ctx, "sys/health", map[string][]string{
		"standbyok": {"true"}, "perfstandbyok": {"true"},
	})
	if answer != nil {
		defer answer.Body.Close()
	}
	var said *api.ResponseError
	switch {
	case errors.As(err, &said) && (said.StatusCode == http.StatusServiceUnavailable || said.StatusCode == http.StatusNotImplemented):
		return outage(ReasonSealed, errors.New("vault is sealed, not initialised, or behind a balancer that knows of none that is up"), false)
	case errors.As(err, &said) && said.StatusCode < 500:
		return nil // 472, 473: a secondary, or a standby: it is alive and the token decides
	}
	return err
}
