// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// caller asks Vault as one of its identities, behind a breaker of its own.
type caller struct {
	timeout    time.Duration
	log        *zap.Logger
	identities []*identity
	breaker    *gobreaker.CircuitBreaker[struct{}]
	metrics    *metrics
	running    atomic.Bool
}

// newCaller makes one; name is the breaker's, prefix the metrics'.
func newCaller(name, prefix string, timeout time.Duration, log *zap.Logger, registerer prometheus.Registerer, identities ...*identity) (*caller, error) {
	c := &caller{timeout: timeout, log: log, identities: identities}
	c.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         name,
		Timeout:      breakerOpen,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= breakerFailures },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errNotCounted) },
		OnStateChange: func(name string, from, to gobreaker.State) {
			c.log.Warn("the breaker before Vault changed", zap.String("breaker", name), zap.Stringer("from", from), zap.Stringer("to", to))
		},
	})
	var err error
	c.metrics, err = newMetrics(c, prefix, registerer)
	return c, err
}

// Run logs in, keeps the logins alive, and replaces those that end, until ctx
// is done; then it revokes the tokens it had been given. It returns nil, or
// Internal when it is called twice.
func (c *caller) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return broker.Errorf(broker.Internal, "the Vault client runs already")
	}
	var wg sync.WaitGroup
	for _, id := range c.identities {
		wg.Go(func() { id.run(ctx) })
	}
	wg.Wait()
	return nil
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
func (c *caller) call(ctx context.Context, id *identity, op string, try func(context.Context, *api.Client) error) error {
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
func (c *caller) tries(ctx context.Context, id *identity, try func(context.Context, *api.Client) error) error {
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
