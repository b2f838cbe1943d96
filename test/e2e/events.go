// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/httpapi"
	"github.com/postern-mail/postern/test/servers"
)

// eventTimeout is how long a record may be on its way to the log.
const eventTimeout = 10 * time.Second

// Event is one audit record as `postern log events` prints it.
type Event struct {
	broker.Event
	// Data is the type's own struct of the catalogue, in JSON.
	Data json.RawMessage `json:"data"`
}

// Decode reads an event's data.
func Decode[T any](t testing.TB, e Event) T {
	t.Helper()
	var data T
	if err := json.Unmarshal(e.Data, &data); err != nil {
		t.Fatalf("event %s: %v\n%s", e.Type, err, e.Data)
	}
	return data
}

// Events returns a firm's log from the start, read by the command line; "":
// the BPO's own. filter are further flags, such as "--type", "session.open".
func (p *Postern) Events(firm string, filter ...string) []Event {
	p.t.Helper()
	const page = 10000
	var all []Event
	for after := int64(-1); ; {
		args := append([]string{"log", "events", "--limit", strconv.Itoa(page), "--after", strconv.FormatInt(after, 10)}, filter...)
		if firm != "" {
			args = append(args, "--firm", firm)
		}
		got := decodeCLI[httpapi.LogPage](p, args...)
		for _, item := range got.Items {
			var e Event
			if err := json.Unmarshal(item.Record, &e); err != nil {
				p.t.Fatalf("event %d: %v\n%s", item.Seq, err, item.Record)
			}
			all = append(all, e)
		}
		if len(got.Items) < page {
			return all
		}
		after = got.Next
	}
}

// Events returns the events of the seat's agent in the firm's log, oldest
// first: of these types, or of all without any.
func (s *Seat) Events(types ...broker.EventType) []Event {
	s.world.t.Helper()
	var own []Event
	for _, e := range s.world.Postern.Events(FirmName) {
		wanted := len(types) == 0
		for _, t := range types {
			wanted = wanted || e.Type == t
		}
		if wanted && e.AgentID == s.AgentID {
			own = append(own, e)
		}
	}
	return own
}

// AwaitEvents returns the seat's events of these types once there are n.
func (s *Seat) AwaitEvents(n int, types ...broker.EventType) []Event {
	s.world.t.Helper()
	var got []Event
	servers.WaitFor(s.world.t, eventTimeout, func() bool {
		got = s.Events(types...)
		return len(got) >= n
	}, "events in the log")
	return got
}
