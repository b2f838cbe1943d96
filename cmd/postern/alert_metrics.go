// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker"
)

// alertCountTimeout bounds the question that a scrape asks the state.
const alertCountTimeout = 2 * time.Second

// alertMetrics counts the alerts that stand, when it is asked. All nodes of one
// database tell the same.
type alertMetrics struct {
	alerts broker.Alerts
	desc   *prometheus.Desc
}

func newAlertMetrics(alerts broker.Alerts) *alertMetrics {
	return &alertMetrics{alerts, prometheus.NewDesc("postern_alerts",
		"Alerts that stand, of the BPO and all firms, by severity and state; absent while the state cannot be read.", []string{"severity", "state"}, nil)}
}

// Describe is a prometheus.Collector's.
func (m *alertMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.desc }

// Collect is a prometheus.Collector's. What it cannot find out must not cost the
// others their scrape.
func (m *alertMetrics) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), alertCountTimeout)
	defer cancel()
	counts, err := m.alerts.AlertCounts(ctx, "")
	if err != nil {
		return
	}
	for _, severity := range broker.Severities() {
		for _, state := range []broker.AlertState{broker.AlertOpen, broker.AlertAcknowledged} {
			n := 0
			for _, c := range counts {
				if c.Severity == severity && c.State == state {
					n += c.Count
				}
			}
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, float64(n), string(severity), string(state))
		}
	}
}
