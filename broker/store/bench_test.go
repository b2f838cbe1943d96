// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"testing"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store/storetest"
	"github.com/postern-mail/postern/test/servers"
)

// BenchmarkAppendEvents appends durable events in batches of several sizes.
func BenchmarkAppendEvents(b *testing.B) {
	benchmarkAppendEvents(b, func(b *testing.B) *Store { return open(b, Config{}) })
}

// BenchmarkPostgreSQLAppendEvents is the same with PostgreSQL on this machine.
func BenchmarkPostgreSQLAppendEvents(b *testing.B) {
	server := servers.StartPostgreSQL(b)
	benchmarkAppendEvents(b, func(b *testing.B) *Store { return openDatabase(b, server.NewDatabase(), Config{}) })
}

func benchmarkAppendEvents(b *testing.B, open func(*testing.B) *Store) {
	for _, size := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			w := storetest.Build(b, open(b))
			batch := make([]*broker.Event, size)
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch {
					batch[i] = w.Event(broker.EventMessageOpen, broker.MessageOpen{
						Folder: "INBOX", UIDValidity: 1, Messages: []broker.OpenedMessage{{UID: 7, Seq: 7, Section: "BODY[]", Octets: 12000, MessageID: "<a@x.example>"}},
					})
				}
				if err := w.Store.AppendEvents(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkRead is one of the reads that each session begins with.
func BenchmarkRead(b *testing.B) {
	w := storetest.Build(b, open(b, Config{}))
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": cancellable} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Store.AppPasswordByHash(ctx, w.AppPassword.Hash); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
