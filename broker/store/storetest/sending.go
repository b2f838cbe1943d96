// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/broker"
)

// reservation is one message under w.Assignment.
func (w *World) reservation(recipients, maxMessages, maxRecipients int) *broker.SendingReservation {
	return &broker.SendingReservation{
		AssignmentID: w.Assignment.ID, Intent: broker.NewID(), Recipients: recipients,
		MaxMessages: maxMessages, MaxRecipients: maxRecipients,
	}
}

func wantReason(t testing.TB, err error, reason string) {
	t.Helper()
	wantCode(t, err, broker.Limit)
	var e *broker.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Fatalf("reason of %v, want %s", err, reason)
	}
}

// testSending: what was reserved counts, for its own assignment, until it is
// released; what was refused does not.
func testSending(t *testing.T, w *World) {
	s := w.Store
	first := w.reservation(2, 3, 6)
	must(t, s.ReserveSending(ctx, first))
	must(t, s.ReserveSending(ctx, w.reservation(2, 3, 6)))
	wantReason(t, s.ReserveSending(ctx, w.reservation(3, 3, 6)), broker.ReasonRecipientsPerHour)
	must(t, s.ReserveSending(ctx, w.reservation(2, 3, 6)))
	wantReason(t, s.ReserveSending(ctx, w.reservation(1, 3, 100)), broker.ReasonMessagesPerHour)
	wantReason(t, s.ReserveSending(ctx, w.reservation(1, 0, 6)), broker.ReasonRecipientsPerHour)
	must(t, s.ReserveSending(ctx, w.reservation(1, 0, 0)))
	must(t, s.ReleaseSending(ctx, first.Intent))
	must(t, s.ReleaseSending(ctx, first.Intent))
	must(t, s.ReserveSending(ctx, w.reservation(1, 4, 6)))

	other := w.reservation(1, 1, 1)
	other.AssignmentID = broker.NewID()
	must(t, s.ReserveSending(ctx, other))
	again := *other
	again.Intent = broker.NewID()
	wantReason(t, s.ReserveSending(ctx, &again), broker.ReasonMessagesPerHour)

	none := w.reservation(0, 1, 1)
	wantField(t, s.ReserveSending(ctx, none), "recipients")
	none.Recipients, none.AssignmentID = 1, ""
	wantField(t, s.ReserveSending(ctx, none), "assignment_id")
}

// testSendingTogether: of many at once, as many get through as may.
func testSendingTogether(t *testing.T, w *World) {
	const limit = 5
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 4 * limit {
		all.Go(func() {
			switch err := w.Store.ReserveSending(ctx, w.reservation(1, limit, 0)); {
			case err == nil:
				passed.Add(1)
			case broker.CodeOf(err) != broker.Limit:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := passed.Load(); n != limit {
		t.Errorf("%d got through, want %d", n, limit)
	}
}
