// SPDX-License-Identifier: Apache-2.0

package submission

import "github.com/prometheus/client_golang/prometheus"

// metrics counts; labels come from closed sets.
type metrics struct {
	logins   *prometheus.CounterVec // result: "ok" or a broker.Code
	messages *prometheus.CounterVec // outcome, as in send.result
	refused  *prometheus.CounterVec // rule, as in send.refused
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "postern", Subsystem: "submission", Name: name, Help: help,
		}, []string{label})
	}
	m := &metrics{
		logins:   counter("logins_total", "Attempts to log in.", "result"),
		messages: counter("messages_total", "Messages for which a send.intent was recorded.", "outcome"),
		refused:  counter("refused_total", "Commands and messages that a rule refused.", "rule"),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.logins, m.messages, m.refused} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
