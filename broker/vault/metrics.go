// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/postern-mail/postern/broker"
)

// metrics are a caller's; the zero value keeps none.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(c *caller, prefix string, registerer prometheus.Registerer) (*metrics, error) {
	if registerer == nil {
		return &metrics{}, nil
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_requests_total",
			Help: "Calls to Vault by operation and outcome: ok, an error code, or the reason of an outage.",
		}, []string{"op", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    prefix + "_request_seconds",
			Help:    "How long calls to Vault took, second tries and logins among them.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"op"}),
	}
	for _, collector := range []prometheus.Collector{m.requests, m.seconds, &gauges{c, prefix}} {
		if err := registerer.Register(collector); err != nil {
			return nil, broker.Errorf(broker.Internal, "Vault's metrics cannot be registered").WithCause(err)
		}
	}
	return m, nil
}

func (m *metrics) observe(op string, err error, took time.Duration) {
	if m.requests == nil {
		return
	}
	m.requests.WithLabelValues(op, outcome(err)).Inc()
	m.seconds.WithLabelValues(op).Observe(took.Seconds())
}

func outcome(err error) string {
	var e *broker.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e) && e.Reason != "":
		return e.Reason
	}
	return string(broker.CodeOf(err))
}

// gauges tell the state of the breaker and of the tokens at each scrape.
type gauges struct {
	c      *caller
	prefix string
}

func (g *gauges) breakerState() *prometheus.Desc {
	return prometheus.NewDesc(g.prefix+"_breaker_state", "0: closed, 1: half-open, 2: open.", nil, nil)
}

func (g *gauges) tokenTTL() *prometheus.Desc {
	return prometheus.NewDesc(g.prefix+"_token_ttl_seconds", "How long the token still lives: +Inf for ever, 0 when there is none.", []string{"identity"}, nil)
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.breakerState()
	ch <- g.tokenTTL()
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	state := map[gobreaker.State]float64{gobreaker.StateHalfOpen: 1, gobreaker.StateOpen: 2}[g.c.breaker.State()]
	ch <- prometheus.MustNewConstMetric(g.breakerState(), prometheus.GaugeValue, state)
	for _, id := range g.c.identities {
		ttl := 0.0
		switch at, ok := id.expiry(); {
		case ok && at.IsZero():
			ttl = math.Inf(1)
		case ok:
			ttl = max(0, time.Until(at).Seconds())
		}
		ch <- prometheus.MustNewConstMetric(g.tokenTTL(), prometheus.GaugeValue, ttl, id.name)
	}
}
