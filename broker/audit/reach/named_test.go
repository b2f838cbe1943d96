// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
	"github.com/postern-mail/postern/broker/store/storetest"
)

// TestNamesakes: who bore a name when, though others bear it since.
func TestNamesakes(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var hours atomic.Int64
	s, err := store.Open(ctx, store.Config{
		Path: filepath.Join(t.TempDir(), "postern.db"), Logger: zap.NewNop(),
		Now: func() time.Time { return begin.Add(time.Duration(hours.Load()) * time.Hour) },
	})
	must(err)
	defer func() { must(s.Close()) }()
	storetest.Build(t, s)
	first := broker.Agent{Name: "Asha"}
	must(s.CreateAgent(ctx, storetest.Admin, &first))
	hours.Store(10)
	must(s.DeleteAgent(ctx, storetest.Admin, first.ID))
	hours.Store(20)
	second := broker.Agent{Name: "asha"}
	must(s.CreateAgent(ctx, storetest.Admin, &second))
	hours.Store(30)
	at := func(h int) time.Time { return begin.Add(time.Duration(h) * time.Hour) }
	both := []broker.ID{first.ID, second.ID}
	slices.SortFunc(both, func(a, b broker.ID) int { return strings.Compare(string(a), string(b)) })
	for _, test := range []struct {
		since, until time.Time
		want         []broker.ID
	}{
		{time.Time{}, time.Time{}, both},
		{at(1), at(9), both[:1]},
		{at(11), at(19), nil},
		{at(9), at(21), both},
		{at(21), at(22), both[1:]},
	} {
		got, err := Named(ctx, s, "", "agent", "name", "ASHA", test.since, test.until)
		must(err)
		if !slices.Equal(got, test.want) {
			t.Errorf("from %s until %s: %v, want %v", test.since, test.until, got, test.want)
		}
	}
}
