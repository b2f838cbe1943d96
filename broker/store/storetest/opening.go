// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/policy"
)

// testOpening: what was opened counts for its own assignment; what was refused
// does not; of many at once, as many get through as may.
func testOpening(t *testing.T, w *World) {
	q := policy.Quotas{
		Messages: policy.Rate{Hour: 5, Day: 8}, Octets: policy.Rate{Day: 1000}, Headers: policy.Rate{Hour: 3},
	}
	id := broker.NewID()
	open := func(messages, octets, headers int64) error {
		return w.Store.ReserveOpening(ctx, &broker.OpeningReservation{
			AssignmentID: id, Messages: messages, Octets: octets, Headers: headers, Quotas: q,
		})
	}
	must(t, open(3, 400, 0))
	wantReason(t, open(3, 1, 0), "messages.hour")
	wantReason(t, open(1, 601, 0), "octets.day")
	must(t, open(2, 600, 3))
	wantReason(t, open(0, 1, 0), "octets.day")
	wantReason(t, open(0, 0, 1), "headers.hour")
	must(t, open(0, 0, 0))
	q.Messages.Hour = 0
	wantReason(t, open(4, 0, 0), "messages.day")
	must(t, open(3, 0, 0))
	wantReason(t, open(0, 1<<62, 0), "octets.day")
	wantField(t, open(-1, 0, 0), "messages")

	id = broker.NewID()
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := open(1, 1, 0); err == nil {
				passed.Add(1)
			} else if broker.CodeOf(err) != broker.Limit {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := passed.Load(); n != 8 {
		t.Errorf("%d got through, want 8", n)
	}
	id = ""
	wantField(t, open(1, 1, 0), "assignment_id")
}
