// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker"
)

// metrics are what operations watches.
type metrics struct {
	looks, findings *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_sentinel_looks_total", Help: "Looks at mailboxes, by what they found.",
		}, []string{"outcome"}),
		findings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_sentinel_findings_total", Help: "Uses of mailboxes without Postern, by what was done.",
		}, []string{"what"}),
	}
	for _, o := range []broker.WatchOutcome{broker.WatchOK, broker.WatchDrift, broker.WatchUnavailable} {
		m.looks.WithLabelValues(string(o)) // so that each is there as 0
	}
	for _, b := range broker.Bypasses() {
		m.findings.WithLabelValues(string(b))
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.looks, m.findings} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("sentinel: %w", err)
		}
	}
	return m, nil
}
