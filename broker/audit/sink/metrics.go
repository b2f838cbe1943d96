// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counts are a sink's.
type counts struct{ delivered, failures, skipped, pruned atomic.Int64 }

// collector makes metrics of the sinks. Lag is told by the node that delivers.
type collector struct{ sinks *Sinks }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_sink_"+name, help, append([]string{"sink"}, labels...), nil)
}

// Describe says nothing in advance: which sinks there are is in the configuration.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads what the sinks have counted.
func (c collector) Collect(to chan<- prometheus.Metric) {
	counter := func(name, help, sink string, n *atomic.Int64) {
		to <- prometheus.MustNewConstMetric(desc(name, help), prometheus.CounterValue, float64(n.Load()), sink)
	}
	for _, r := range c.sinks.sinks {
		counter("delivered_total", "Events that the sink's receiver has taken.", r.Name, &r.counts.delivered)
		counter("failures_total", "Deliveries that the sink's receiver did not take.", r.Name, &r.counts.failures)
		counter("skipped_total", "Events that were set aside, since the sink's receiver refuses them.", r.Name, &r.counts.skipped)
		counter("pruned_total", "Events that were pruned before they could be delivered.", r.Name, &r.counts.pruned)
		r.mu.Lock()
		held, behind, seconds := r.held, r.behind, 0.0
		if !r.oldest.IsZero() {
			seconds = max(c.sinks.cfg.Now().Sub(r.oldest).Seconds(), 0)
		}
		r.mu.Unlock()
		if !held {
			continue
		}
		to <- prometheus.MustNewConstMetric(desc("lag_events", "Events that the sink has not passed yet, told by the node that delivers."),
			prometheus.GaugeValue, float64(behind), r.Name)
		to <- prometheus.MustNewConstMetric(desc("lag_seconds", "Age of the oldest event that the sink's receiver has not taken yet, told by the node that delivers."),
			prometheus.GaugeValue, seconds, r.Name)
	}
}
