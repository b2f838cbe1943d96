// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
	"github.com/postern-mail/postern/broker/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long something may take that takes no time by itself.
const patience = time.Minute

// soon waits until a condition holds.
func soon(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// recorder is the log: each event at once.
type recorder struct{ *store.Store }

func (r recorder) Append(ctx context.Context, events ...*broker.Event) error {
	return r.AppendEvents(ctx, events)
}

func (recorder) Submit(*broker.Event) *broker.Receipt { panic("sinks wait for what they record") }

// world is a database with logs.
type world struct {
	t     testing.TB
	store *store.Store
	firms []broker.ID
}

func newWorld(t testing.TB, firms int) *world {
	t.Helper()
	s, err := store.Open(ctx, store.Config{Path: filepath.Join(t.TempDir(), "postern.db"), Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	w := &world{t: t, store: s}
	for range firms {
		w.firms = append(w.firms, broker.NewID())
	}
	return w
}

// append records events in a log, whose user names tell them apart.
func (w *world) append(log broker.ID, names ...string) {
	w.t.Helper()
	batch := make([]*broker.Event, len(names))
	for i, name := range names {
		batch[i] = &broker.Event{Type: broker.EventAuthFailed, FirmID: log, Data: broker.AuthFailed{Username: name, Cause: "unknown-token"}}
	}
	must(w.t, w.store.AppendEvents(ctx, batch))
}

// ids returns the ids of a log's events, in their order.
func (w *world) ids(log broker.ID) (all []broker.ID) {
	w.t.Helper()
	events, err := w.store.Events(ctx, broker.EventQuery{FirmID: log, After: -1, Limit: 10000})
	must(w.t, err)
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

// quick are times for tests. A claim outlasts a machine that stands still.
func quick() *times {
	return &times{
		claim: patience, claimEvery: 10 * time.Millisecond, renew: 50 * time.Millisecond, keep: 5 * time.Millisecond, look: 20 * time.Millisecond, gather: time.Millisecond,
		first: time.Millisecond, last: 10 * time.Millisecond, stalled: time.Hour,
	}
}

// start runs sinks as one process, which end by stop.
func (w *world) start(node string, t *times, sinks ...Sink) (s *Sinks, stop func()) {
	w.t.Helper()
	s, err := New(Config{Sinks: sinks, Store: w.store, Log: recorder{w.store}, Logger: zap.NewNop(), Node: node, times: t})
	must(w.t, err)
	return s, w.run(s)
}

// run runs sinks until stop, or the test's end.
func (w *world) run(s *Sinks) (stop func()) {
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(running) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// deaf is a store that tells of no commit.
type deaf struct{ *store.Store }

func (d deaf) SubscribeAppends(func(broker.ID)) (cancel func()) { return func() {} }

// receiver keeps what it takes.
type receiver struct {
	mu sync.Mutex
	// took are events in the order in which they were taken.
	took []*Event
	// answer, where set, is asked of each delivery: how many it takes, and what it
	// says.
	answer func(events []*Event) (int, error)
	closed int
}

func (r *receiver) Deliver(_ context.Context, events []*Event) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := len(events), error(nil)
	if r.answer != nil {
		n, err = r.answer(events)
	}
	r.took = append(r.took, events[:n]...)
	return n, err
}

func (r *receiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
	return nil
}

func (r *receiver) all() []*Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Event(nil), r.took...)
}

// firsts are the ids of a log's events in the order in which each was taken for
// the first time.
func (r *receiver) firsts(log broker.ID) (ids []broker.ID) {
	seen := make(map[broker.ID]bool)
	for _, e := range r.all() {
		if e.FirmID == log && !seen[e.ID] {
			seen[e.ID] = true
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func numbered(prefix string, n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d", prefix, i))
	}
	return names
}

var errDown = errors.New("the receiver is down")
