// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why an event was not recorded: labels, and reasons of errors.
const (
	reasonFull    = "queue-full"
	reasonClosed  = "closed"
	reasonInvalid = "invalid"
	reasonStore   = "store"
)

// metrics are the log's.
type metrics struct {
	events  prometheus.Counter
	missing *prometheus.CounterVec
	batch   prometheus.Histogram
	seconds prometheus.Histogram
}

// newMetrics makes the metrics, and registers them if r is not nil.
func newMetrics(r prometheus.Registerer, queued func() float64) (*metrics, error) {
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_audit_events_total", Help: "Events that were made durable.",
		}),
		missing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_audit_failures_total", Help: "Events that were not recorded, or not known to be, by reason.",
		}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postern_audit_batch_events", Help: "Events per transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postern_audit_commit_seconds", Help: "Seconds that a transaction took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}),
	}
	for _, reason := range []string{reasonFull, reasonClosed, reasonInvalid, reasonStore} {
		m.missing.WithLabelValues(reason) // so that each is there as 0
	}
	if r == nil {
		return m, nil
	}
	queue := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "postern_audit_queue_events", Help: "Events that wait to be committed.",
	}, queued)
	for _, c := range []prometheus.Collector{m.events, m.missing, m.batch, m.seconds, queue} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) lost(reason string, n int) {
	m.missing.WithLabelValues(reason).Add(float64(n))
}

func (m *metrics) committed(n int, took time.Duration, err error) {
	m.seconds.Observe(took.Seconds())
	if err != nil {
		m.lost(reasonStore, n)
		return
	}
	m.batch.Observe(float64(n))
	m.events.Add(float64(n))
}
