// SPDX-License-Identifier: Apache-2.0

package imapfilter

import "github.com/prometheus/client_golang/prometheus"

// metrics counts commands by name and outcome. A nil *metrics counts nothing.
type metrics struct {
	commands *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "postern", Subsystem: "imap", Name: "commands_total",
		Help: "IMAP commands after login, by name and by what became of them: forwarded, rewritten, refused, bad, never.",
	}, []string{"command", "outcome"})}
	return m, reg.Register(m.commands)
}

// command counts one; names come from the table, never from a client.
func (m *metrics) command(name, outcome string) {
	if m != nil {
		m.commands.WithLabelValues(name, outcome).Inc()
	}
}
