// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	signed, failures prometheus.Counter
	torn             prometheus.Gauge
}

// newMetrics makes the metrics, and registers them if r is not nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		signed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_log_checkpoints_total", Help: "Checkpoints of the transparency logs that were signed.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_log_checkpoint_failures_total", Help: "Checkpoints that could not be signed or stored.",
		}),
		torn: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_log_torn", Help: "Transparency logs that are not signed any more, since they do not follow from what was signed before.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.signed, m.failures, m.torn} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
	}
	return m, nil
}
