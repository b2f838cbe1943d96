// SPDX-License-Identifier: Apache-2.0

package imapfilter

import "github.com/prometheus/client_golang/prometheus"

// outcome is what became of a command.
type outcome uint8

const (
	outcomeForwarded outcome = iota
	outcomeRewritten
	outcomeRefused
	outcomeBad
	outcomeNever
	outcomes
)

var outcomeNames = [outcomes]string{"forwarded", "rewritten", "refused", "bad", "never"}

// unknownCommand and malformedCommand are counted for what is in no table.
var (
	unknownCommand   = &command{name: "unknown"}
	malformedCommand = &command{name: "malformed"}
)

// metrics counts commands by name and outcome. A nil *metrics counts nothing.
type metrics struct {
	// commands holds a counter for each, so that none is looked up by its
	// labels for every command.
	commands map[*command]*[outcomes]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, table map[string]*command) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "postern", Subsystem: "imap", Name: "commands_total",
		Help: "IMAP commands after login, by name and by what became of them: forwarded, rewritten, refused, bad, never.",
	}, []string{"command", "outcome"})
	m := &metrics{make(map[*command]*[outcomes]prometheus.Counter, len(table)+2)}
	add := func(c *command) {
		var counters [outcomes]prometheus.Counter
		for o, name := range outcomeNames {
			counters[o] = vec.WithLabelValues(c.name, name)
		}
		m.commands[c] = &counters
	}
	for _, c := range table {
		add(c)
	}
	add(unknownCommand)
	add(malformedCommand)
	return m, reg.Register(vec)
}

// command counts one; names come from the table, never from a client.
func (m *metrics) command(c *command, o outcome) {
	if m != nil {
		m.commands[c][o].Inc()
	}
}
