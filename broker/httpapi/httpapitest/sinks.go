// SPDX-License-Identifier: Apache-2.0

package httpapitest

import (
	"context"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/audit/sink"
)

// nowhere is a sink's receiver that takes everything.
type nowhere struct{}

func (nowhere) Deliver(_ context.Context, events []*sink.Event) (int, error) { return len(events), nil }
func (nowhere) Close() error                                                 { return nil }

// eventLog records at once.
type eventLog struct{ store broker.EventStore }

func (l eventLog) Append(ctx context.Context, events ...*broker.Event) error {
	return l.store.AppendEvents(ctx, events)
}

func (l eventLog) Submit(e *broker.Event) *broker.Receipt {
	r, settle := broker.NewReceipt()
	settle(l.store.AppendEvents(context.Background(), []*broker.Event{e}))
	return r
}
