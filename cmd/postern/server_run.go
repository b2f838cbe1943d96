// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker/httpapi"
)

// closingTime is how long connections may take to close once their sessions
// have ended.
const closingTime = 2 * time.Second

// stage is a set of goroutines that are stopped together. A server's stages
// are stopped in the opposite order of their starts: first what lets work in,
// last what records it.
type stage struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed func(name string, err error)
}

func newStage(ctx context.Context, failed func(string, error)) *stage {
	g := &stage{failed: failed}
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return g
}

// start runs f, which is to return only once the stage is stopped.
func (g *stage) start(name string, f func(ctx context.Context) error) {
	g.wg.Go(func() {
		err := f(g.ctx)
		if err == nil && g.ctx.Err() == nil {
			err = errors.New("ended by itself")
		}
		if err != nil {
			g.failed(name, err)
		}
	})
}

func (g *stage) stop() {
	g.cancel()
	g.wg.Wait()
}

// Run serves until ctx is cancelled, then drains: no connection is accepted
// any more, each session is told goodbye, and what is not over by the drain's
// timeout is cut off. It returns when every goroutine has; the error is what
// ended it, or nil. It is called once, and Close after it.
func (s *server) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	failed := func(name string, err error) {
		if s.aborted.Err() != nil {
			return // cut off, as everything is
		}
		s.logger.Error("a part of the server failed", zap.String("part", name), zap.Error(err))
		fail(fmt.Errorf("%s: %w", name, err))
	}

	probes := newStage(ctx, failed)
	defer probes.stop()
	if l := s.listeners["metrics.address"]; l != nil {
		probes.start("metrics", func(ctx context.Context) error { return s.health.serve(ctx, l) })
	}
	// They stop last: what is recorded at the end is signed as well.
	signers := newStage(ctx, failed)
	defer signers.stop()
	signers.start("log-keys", s.logKeys.Run)
	checkpoints := newStage(ctx, failed)
	defer checkpoints.stop()
	checkpoints.start("checkpoints", s.checkpoints.Run)
	records := newStage(ctx, failed)
	defer records.stop()
	records.start("audit", s.log.Run)

	services := newStage(ctx, failed)
	defer services.stop()
	services.start("credentials", s.credentials.Run)
	// It stops before the log does, which it appends to.
	outages := &outages{
		checks: s.health.checks, log: s.log, alerts: s.store, node: s.config.Node, logger: s.logger.Named("outages"), now: time.Now,
	}
	services.start("outages", outages.Run)
	services.start("sinks", s.sinks.Run)
	services.start("retention", s.pruner.Run)
	// It stops before the credentials do: what it got is stored first.
	tokens := newStage(ctx, failed)
	defer tokens.stop()
	tokens.start("oauth", s.upstream.Run)
	// Before the first login: until then every firm's sessions stop.
	if err := s.witnesses.Look(ctx); err != nil {
		s.logger.Error("the witnesses of the logs cannot be looked at yet", zap.Error(err))
	}
	services.start("witnesses", s.witnesses.Run)
	services.start("workstation-ca", s.authorities.Run)
	services.start("company-ca", s.companyCAs.Run)
	services.start("sites", s.networkOnly.Run)
	services.start("memory", newReclaimer(s.manager.Count).Run)
	services.start("tls", func(ctx context.Context) error {
		if err := s.certificates.Run(ctx); err != nil {
			// No reason to stop: SIGHUP still reloads.
			s.logger.Error("certificates are not watched; send SIGHUP after replacing them", zap.Error(err))
			<-ctx.Done()
		}
		return nil
	})
	if s.rotator != nil {
		if s.secrets != s.credentials {
			services.start("rotator's credentials", s.secrets.Run)
		}
		services.start("rotator", s.rotator.Run)
	}
	// It stops before what it asks does.
	watches := newStage(ctx, failed)
	defer watches.stop()
	if s.sentinel != nil {
		watches.start("sentinel", s.sentinel.Run)
	}
	sessions := newStage(ctx, failed)
	defer sessions.stop()
	sessions.start("sessions", s.manager.Run)

	front := newStage(ctx, failed)
	front.start("api", func(ctx context.Context) error { return s.api.Serve(ctx, s.listeners["api.socket"]) })
	if l := s.listeners["api.listen"]; l != nil {
		front.start("api", func(ctx context.Context) error {
			// HTTP/1.1 alone: nobody here needs what HTTP/2 opens up.
			return s.api.Serve(ctx, tls.NewListener(httpapi.LimitConnections(l), s.certificates.Anonymous("http/1.1")))
		})
	}
	for _, p := range s.proxies {
		front.start("proxy", p.Run)
	}
	s.logger.Info("serving", zap.String("version", version()), zap.String("node", s.config.Node), zap.Strings("listeners", s.listening()))
	if s.serving != nil {
		s.serving()
	}

	select {
	case <-ctx.Done():
	case <-s.aborted.Done():
	}
	s.health.draining.Store(true)
	s.drain(front)
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// drain stops the front: it returns when no connection is left.
func (s *server) drain(front *stage) {
	s.logger.Info("stopping", zap.Duration("timeout", time.Duration(s.config.Drain.Timeout)))
	front.cancel()
	ctx, cancel := context.WithTimeout(s.aborted, time.Duration(s.config.Drain.Timeout))
	defer cancel()
	if err := s.manager.Drain(ctx); err != nil {
		s.logger.Warn("sessions were cut off by the stop", zap.Error(err))
	} else {
		// What is left are handlers on their way out.
		ctx, cancel = context.WithTimeout(s.aborted, closingTime)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() {
		for _, p := range s.proxies {
			p.Close()
		}
	})
	defer stop()
	front.wg.Wait()
}

// listening names the listeners and their addresses, for the log.
func (s *server) listening() []string {
	var all []string
	for _, l := range s.config.Listeners.all() {
		if addr := s.addr("listeners." + l.name); addr != nil {
			all = append(all, l.name+"="+addr.String())
		}
	}
	if addr := s.APIAddr(); addr != nil {
		all = append(all, "api="+addr.String())
	}
	return all
}
