// SPDX-License-Identifier: Apache-2.0

//go:build !race

package audit

import (
	"testing"

	"github.com/postern-mail/postern/broker"
	"go.uber.org/zap"
)

// An event costs no allocation beside its id: what is left is the batch's.
// (Not under the race detector, where sync.Pool forgets on purpose.)
func TestSubmitAllocations(t *testing.T) {
	l, err := New(Config{Store: &fakeStore{}, Logger: zap.NewNop(), QueueSize: 1 << 20, BatchSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]broker.Event, 5001)
	data := any(broker.MessageOpen{Folder: "INBOX", Messages: []broker.OpenedMessage{{UID: 1, Section: "BODY[]", Octets: 12000}}})
	for i := range events {
		events[i] = broker.Event{ID: broker.NewID(), Type: broker.EventMessageOpen, Data: data}
	}
	next := 0
	perEvent := testing.AllocsPerRun(len(events)-1, func() {
		l.Submit(&events[next])
		next++
	})
	if perEvent != 0 {
		t.Errorf("%v allocations per event", perEvent)
	}
	if l.queued != len(events) {
		t.Errorf("%d events are queued", l.queued)
	}
}
