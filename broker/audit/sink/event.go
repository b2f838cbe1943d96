// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/broker"
)

// Event is one event on its way to a receiver.
type Event struct {
	// Event has the record's fields. Its Data is json.RawMessage, or nil.
	broker.Event
	// Record is the exact JSON in the log.
	Record []byte
	// Severity is an alert's; of all other events SeverityInfo.
	Severity broker.Severity
}

// batchID names events that are delivered together. A receiver may take a name that
// it knows for a repetition, so that no other events may have it, and these no other
// when they come again.
func batchID(events []*Event) string {
	h := sha256.New()
	for _, e := range events {
		h.Write([]byte(e.ID + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// parse reads a record. Events of later versions are read as well: the fields
// outside data are the same in all.
func parse(e *broker.LogEntry) (*Event, error) {
	var data json.RawMessage
	x := &Event{Record: e.Record, Severity: broker.SeverityInfo}
	x.Data = &data
	if err := json.Unmarshal(e.Record, &x.Event); err != nil {
		return nil, fmt.Errorf("event %d of a log is not understood: %w", e.Seq, err)
	}
	x.Seq, x.Data = e.Seq, nil
	if data != nil {
		x.Data = data
	}
	if IsAlert(x.Type) {
		var alert struct {
			Severity broker.Severity `json:"severity"`
		}
		if json.Unmarshal(data, &alert) == nil && alert.Severity != "" {
			x.Severity = alert.Severity
		}
	}
	return x, nil
}

// IsAlert reports whether events of a type tell of alerts.
func IsAlert(t broker.EventType) bool {
	return t == broker.EventAlertRaised || t == broker.EventAlertAcknowledged || t == broker.EventAlertResolved
}

// Filter says which events a sink is given. Those that it passes over cost it
// nothing but reading them.
type Filter struct {
	// Firm is the only log that is read, the BPO's own if it is empty; nil: all.
	Firm *broker.ID
	// Types are types of events, or beginnings of them that end in "*"; empty:
	// all.
	Types []string
	// Alerts leaves out all but alerts, Severity what is less severe. Events that
	// are no alerts have SeverityInfo.
	Alerts   bool
	Severity broker.Severity
}

// Validate returns the field that is wrong, and why.
func (f *Filter) Validate() (field, reason string) {
	for _, pattern := range f.Types {
		known := false
		for _, spec := range broker.Catalogue() {
			known = known || matches(pattern, spec.Type)
		}
		if !known {
			return "events", fmt.Sprintf("there is no event of the type %q: 'postern log catalogue' lists them", pattern)
		}
	}
	if f.Severity != "" {
		for _, s := range broker.Severities() {
			if s == f.Severity {
				return "", ""
			}
		}
		return "severity", "give info, warning or critical"
	}
	return "", ""
}

func matches(pattern string, t broker.EventType) bool {
	if start, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(string(t), start)
	}
	return pattern == string(t)
}

// wants reports whether the sink is given an event of its logs.
func (f *Filter) wants(e *Event) bool {
	if f.Alerts && !IsAlert(e.Type) || f.Severity != "" && f.Severity.Above(e.Severity) {
		return false
	}
	for _, pattern := range f.Types {
		if matches(pattern, e.Type) {
			return true
		}
	}
	return len(f.Types) == 0
}

// covers reports whether the sink reads a log.
func (f *Filter) covers(log broker.ID) bool { return f.Firm == nil || *f.Firm == log }
