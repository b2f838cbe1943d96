// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"

	"github.com/postern-mail/postern/broker"
)

// testRepeats: a key stands for one request of one caller.
func testRepeats(t *testing.T, w *World) {
	s := w.Store
	k := broker.RepeatKey{Caller: "somebody", Key: "k", Fingerprint: Hash()}
	first := func(k broker.RepeatKey, want *broker.FirstAnswer) {
		t.Helper()
		got, err := s.BeginRequest(ctx, k)
		same(t, "BeginRequest", got, err, want)
	}
	first(k, nil)
	first(k, &broker.FirstAnswer{})
	other := k
	other.Fingerprint = Hash()
	_, err := s.BeginRequest(ctx, other)
	wantField(t, err, "Idempotency-Key")
	other.Caller = "somebody else"
	first(other, nil)
	must(t, s.EndRequest(ctx, k, broker.FirstAnswer{Status: 200, Body: []byte("{}")}))
	first(k, &broker.FirstAnswer{Done: true, Status: 200, Body: []byte("{}")})
	must(t, s.EndRequest(ctx, other, broker.FirstAnswer{Status: 200}))
	first(other, &broker.FirstAnswer{Done: true, Status: 200})
	must(t, s.ForgetRequest(ctx, k))
	first(k, nil)
}
