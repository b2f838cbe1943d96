// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by the listeners of one lobby.
type metrics struct {
	accepted *prometheus.CounterVec // listener
	open     *prometheus.GaugeVec   // listener
	rejected *prometheus.CounterVec // listener, cause
	pending  *prometheus.GaugeVec   // class
	evicted  *prometheus.CounterVec // class, cause
	panics   *prometheus.CounterVec // listener
	// acceptFailures count what must not end a listener.
	acceptFailures *prometheus.CounterVec // listener
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "postern", Subsystem: "proxy", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "postern", Subsystem: "proxy", Name: name, Help: help}, labels)
	}
	m := &metrics{
		accepted:       counter("connections_accepted_total", "Connections accepted.", "listener"),
		open:           gauge("connections_open", "Connections open now, authenticated or not.", "listener"),
		rejected:       counter("connections_rejected_total", "Connections that ended before their protocol began, by cause.", "listener", "cause"),
		pending:        gauge("connections_pending", "Connections that have not authenticated yet, by class: stranger (no handshake begun), hello (waiting for it to be computed), handshake, certificate (shown and verified).", "class"),
		evicted:        counter("connections_evicted_total", "Unauthenticated connections dropped to make room, by class and cause.", "class", "cause"),
		acceptFailures: counter("accept_failures_total", "Failed attempts to accept a connection: as a rule no descriptors were left.", "listener"),
		panics:         counter("panics_total", "Panics caught; each ended one connection.", "listener"),
	}
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.accepted, m.open, m.rejected, m.pending, m.evicted, m.panics, m.acceptFailures} {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}
