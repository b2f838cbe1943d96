// SPDX-License-Identifier: Apache-2.0

package companyca

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are about revocation lists, by authority.
type metrics struct {
	nextUpdate *prometheus.GaugeVec
	due        *prometheus.GaugeVec
	failures   *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer, authorities []Authority) (metrics, error) {
	m := metrics{
		nextUpdate: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "postern", Name: "revocation_list_next_update_timestamp_seconds",
			Help: "When the first of an authority's revocation lists is out of date; 0: there is none.",
		}, []string{"authority"}),
		due: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "postern", Name: "revocation_list_due_timestamp_seconds",
			Help: "When the first of an authority's revocation lists is about to be out of date, and a newer one due; 0: there is none.",
		}, []string{"authority"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Name: "revocation_list_failures_total",
			Help: "Revocation lists of an authority that were not fetched, or cannot be used.",
		}, []string{"authority"}),
	}
	for _, a := range authorities {
		if a.Revocation != nil {
			m.failures.WithLabelValues(a.Name) // there as 0
		}
	}
	if registerer == nil {
		return m, nil
	}
	return m, errors.Join(registerer.Register(m.nextUpdate), registerer.Register(m.due), registerer.Register(m.failures))
}
