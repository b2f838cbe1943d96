// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

var _ broker.Credentials = (*Client)(nil)

// Client is a broker.Credentials in Vault. Its methods may be called from any
// goroutine; they need Run.
type Client struct {
	mount   string
	timeout time.Duration
	log     *zap.Logger
	reader  *identity
	// writer is reader itself when there is one identity for both.
	writer  *identity
	breaker *gobreaker.CircuitBreaker[struct{}]
	metrics *metrics
	running atomic.Bool
}

// New checks cfg and makes a client; it does not talk to Vault. The error is
// Invalid, its Field a name within the configuration's vault section or an
// environment variable's.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{mount: cfg.Mount, timeout: cfg.Timeout, log: cfg.Logger}
	if c.reader, err = newIdentity("proxy", cfg, cfg.Auth); err != nil {
		return nil, err
	}
	c.writer = c.reader
	if cfg.Writer != nil {
		if c.writer, err = newIdentity("writer", cfg, *cfg.Writer); err != nil {
			return nil, err
		}
	}
	c.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         "vault",
		Timeout:      breakerOpen,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNotCounted) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			c.log.Warn("the breaker before Vault changed", zap.Stringer("from", from), zap.Stringer("to", to))
		},
	})
	c.metrics, err = newMetrics(c, cfg.Registerer)
	return c, err
}

// Run logs in, keeps the logins alive, and replaces those that end, until ctx
// is done; then it revokes the tokens it had been given. It returns nil, or
// Internal when it is called twice.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return broker.Errorf(broker.Internal, "the Vault client runs already")
	}
	var wg sync.WaitGroup
	for _, id := range c.identities() {
		wg.Go(func() { id.run(ctx) })
	}
	wg.Wait()
	return nil
}

func (c *Client) identities() []*identity {
	if c.writer == c.reader {
		return []*identity{c.reader}
	}
	return []*identity{c.reader, c.writer}
}

// errNotCounted marks what says nothing about Vault's health: the caller went
// away, or Postern has no token to ask with.
var errNotCounted = errors.New("not counted by the breaker")

func isOutage(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.outage
}

// call runs try with an identity's client: within the time limit, behind the
// breaker, and a second time after an outage that may pass or with a new
// token after the old one has died. Its errors are *broker.Error.
func (c *Client) call(ctx context.Context, id *identity, op string, try func(context.Context, *api.Client) error) error {
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, err := c.breaker.Execute(func() (struct{}, error) {
		err := c.tries(bounded, id, try)
		if err != nil && ctx.Err() != nil {
			err = errors.Join(err, errNotCounted)
		}
		return struct{}{}, err
	})
	var f *failure
	var result error
	switch {
	case err == nil:
	case errors.As(err, &f):
		result = f.err
	default: // gobreaker's own: open, or half-open with a call under way
		result = unavailable(ReasonBreaker, err)
	}
	c.metrics.observe(op, result, time.Since(start))
	return result
}

// tries returns nil or something with a *failure in it.
func (c *Client) tries(ctx context.Context, id *identity, try func(context.Context, *api.Client) error) error {
	held, err := id.get(ctx)
	if err != nil {
		return errors.Join(err, errNotCounted)
	}
	err = try(ctx, held.api)
	if err == nil {
		return nil
	}
	f := failureOf(err)
	switch {
	case f.token || f.suspect && time.Since(held.since) > suspectAge:
		id.drop(held)
		if held, err = id.get(ctx); err != nil {
			return errors.Join(err, errNotCounted)
		}
	case f.retry:
		if !pause(ctx, jitter(retryWait)) {
			return f
		}
	default:
		return f
	}
	if err = try(ctx, held.api); err != nil {
		return failureOf(err)
	}
	return nil
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

// pause waits for d and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter returns d, more or less by up to a fifth.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.4*float64(d))
}
