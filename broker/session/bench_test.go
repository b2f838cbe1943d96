// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/broker"
)

// BenchmarkRevoke5000 measures from the commit of a revoke to the cancellation
// of the last of 5,000 sessions' contexts. The design allows 100 ms to closed
// sockets.
func BenchmarkRevoke5000(b *testing.B) {
	const sessions = 5000
	w := newWorld(b, func(c *Config) { c.Connections = sessions + 1 })
	w.run(b)
	var total time.Duration
	for b.Loop() {
		b.StopTimer()
		var over sync.WaitGroup
		over.Add(sessions)
		open := make([]broker.LiveSession, sessions)
		for i := range open {
			s, err := w.manager.Open(b.Context(), w.login())
			if err != nil {
				b.Fatal(err)
			}
			open[i] = s
			context.AfterFunc(s.Context(), over.Done)
		}
		b.StartTimer()
		began := time.Now()
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Now() })
		over.Wait()
		total += time.Since(began)
		b.StopTimer()
		for _, s := range open {
			s.End(nil, nil)
		}
		w.set(broker.Change{Kind: "delegation", ID: w.delegation.ID}, func() { w.delegation.RevokedAt = time.Time{} })
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "ms/revoke")
}

// BenchmarkOpen measures what a session costs the gate, the state's and the
// log's own work left out.
func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	w.run(b)
	l := w.login()
	b.ReportAllocs()
	for b.Loop() {
		s, err := w.manager.Open(b.Context(), l)
		if err != nil {
			b.Fatal(err)
		}
		s.End(nil, nil)
	}
}

// BenchmarkRedecide measures deciding one live session anew.
func BenchmarkRedecide(b *testing.B) {
	w := newWorld(b)
	w.run(b)
	s := w.open(b).(*live)
	v := w.manager.viewAt(1)
	b.ReportAllocs()
	for b.Loop() {
		if end, err := w.manager.redecide(b.Context(), v, s); end != nil || err != nil {
			b.Fatal(end, err)
		}
	}
}
