// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/broker"
)

// metrics are what operations watches.
type metrics struct {
	live           *prometheus.GaugeVec
	opens          *prometheus.CounterVec
	ends           *prometheus.CounterVec
	authFailures   *prometheus.CounterVec
	revoke         prometheus.Histogram
	budgetRefusals *prometheus.CounterVec
	drift          *prometheus.CounterVec
	consents       *prometheus.CounterVec
	stateFailures  prometheus.Counter
	unrecorded     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Name: name, Help: help}, labels)
	}
	m := &metrics{
		live: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "postern", Name: "sessions_live", Help: "Sessions that are open.",
		}, []string{"protocol"}),
		opens:        counter("session_opens_total", "Attempts to open a session, by outcome: opened, or the error's code.", "protocol", "outcome"),
		ends:         counter("session_ends_total", "Sessions that ended, by reason.", "reason"),
		authFailures: counter("auth_failures_total", "Attempts denied, by their true cause.", "cause"),
		revoke: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "postern", Name: "revoke_seconds",
			Help:    "From the commit of a change to the end of a session that it ends.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		budgetRefusals: counter("budget_refusals_total", "Sessions refused because a mailbox's connections were all in use.", "protocol"),
		drift:          counter("credential_drift_total", "Credentials that the upstream refused.", "protocol"),
		consents:       counter("consents_withdrawn_total", "Consents that an issuer of access tokens says are gone.", "protocol"),
		stateFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "postern", Name: "state_read_failures_total",
			Help: "Times that the state could not be read to decide sessions anew.",
		}),
		unrecorded: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "postern", Name: "session_ends_unrecorded",
			Help: "session.end events that the audit log has not taken yet.",
		}),
	}
	// So that each is there as 0: the first increase of what was not there is
	// none to Prometheus.
	for _, protocol := range []broker.Protocol{broker.ProtocolIMAP, broker.ProtocolSubmission} {
		m.live.WithLabelValues(string(protocol))
		m.budgetRefusals.WithLabelValues(string(protocol))
		m.drift.WithLabelValues(string(protocol))
		m.consents.WithLabelValues(string(protocol))
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.live, m.opens, m.ends, m.authFailures, m.revoke, m.budgetRefusals, m.drift, m.consents, m.stateFailures, m.unrecorded,
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
