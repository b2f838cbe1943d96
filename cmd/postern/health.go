// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

const (
	// checkTimeout bounds one check; they run at the same time.
	checkTimeout = 3 * time.Second
	// healthTimeout bounds a request to the metrics listener and its answer.
	healthTimeout = 10 * time.Second
)

// check is one condition of readiness.
type check struct {
	name string
	run  func(ctx context.Context) error
}

// health serves metrics and health checks.
type health struct {
	checks   []check
	logger   *zap.Logger
	handler  http.Handler
	draining atomic.Bool
}

func newHealth(registry *prometheus.Registry, logger *zap.Logger, checks []check) *health {
	h := &health{checks: checks, logger: logger}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	h.handler = mux
	return h
}

// ready answers 200 when agents could be let in, else 503; a line per check.
// It tells no more of a failure than a client would be told.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	results := make([]error, len(h.checks))
	var wg sync.WaitGroup
	for i, c := range h.checks {
		wg.Go(func() { results[i] = c.run(ctx) })
	}
	wg.Wait()
	status := http.StatusOK
	var body strings.Builder
	if h.draining.Load() {
		status = http.StatusServiceUnavailable
		fmt.Fprintln(&body, "draining")
	}
	for i, c := range h.checks {
		if err := results[i]; err != nil {
			status = http.StatusServiceUnavailable
			h.logger.Warn("not ready", zap.String("check", c.name), zap.Error(err))
			fmt.Fprintf(&body, "%s: %s\n", c.name, broker.PublicText(err))
			continue
		}
		fmt.Fprintf(&body, "%s: ok\n", c.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body.String()))
}

// serve answers on l until ctx ends.
func (h *health) serve(ctx context.Context, l net.Listener) error {
	errorLog, err := zap.NewStdLogAt(h.logger, zap.WarnLevel)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           h.handler,
		ReadHeaderTimeout: healthTimeout,
		ReadTimeout:       healthTimeout,
		WriteTimeout:      healthTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          errorLog,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
