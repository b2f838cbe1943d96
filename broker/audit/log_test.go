// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
)

// fakeStore keeps the records in memory. When gate is set a commit says that
// it has begun, and waits for its outcome.
type fakeStore struct {
	broker.EventStore
	gate  chan error
	begun chan int

	mu      sync.Mutex
	batches [][]broker.Event
	next    int64
}

func newGated() *fakeStore { return &fakeStore{gate: make(chan error), begun: make(chan int)} }

func (f *fakeStore) AppendEvents(_ context.Context, events []*broker.Event) error {
	if f.gate != nil {
		f.begun <- len(events)
		if err := <-f.gate; err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var batch []broker.Event
	for _, e := range events {
		e.Seq = f.next
		f.next++
		kept := *e
		raw := slices.Clone(*e.Data.(*json.RawMessage)) // nothing of e is the store's
		kept.Data = &raw
		batch = append(batch, kept)
	}
	f.batches = append(f.batches, batch)
	return nil
}

func (f *fakeStore) stored() [][]broker.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batches
}

// start runs a log; stop ends it and waits.
func start(t testing.TB, cfg Config) (l *Log, stop func()) {
	t.Helper()
	cfg.Logger = zap.NewNop()
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l, stop
}

func event(command string) *broker.Event {
	return &broker.Event{
		Type: broker.EventCommandRefused, Actor: broker.Actor{Kind: "agent", Name: "ravi"},
		Data: broker.CommandRefused{Command: command},
	}
}

func wantCode(t testing.TB, err error, code broker.Code) {
	t.Helper()
	if got := broker.CodeOf(err); got != code {
		t.Fatalf("code %q, want %q: %v", got, code, err)
	}
}

var ctx = context.Background()

// While one batch is committed the next one gathers, and shares a receipt.
func TestNaturalBatching(t *testing.T) {
	store := newGated()
	l, _ := start(t, Config{Store: store, BatchSize: 3})
	first := l.Submit(event("1"))
	if n := <-store.begun; n != 1 {
		t.Fatalf("the first batch has %d events: it waited", n)
	}
	var receipts []*broker.Receipt
	for i := range 4 {
		receipts = append(receipts, l.Submit(event(fmt.Sprint(i))))
	}
	if receipts[0] != receipts[2] || receipts[2] == receipts[3] {
		t.Error("a batch of 3 and one of 1 were due")
	}
	if first.Settled() || receipts[0].Settled() {
		t.Error("settled before the commit")
	}
	for _, want := range []int{3, 1} {
		store.gate <- nil
		if n := <-store.begun; n != want {
			t.Errorf("a batch has %d events, want %d", n, want)
		}
	}
	store.gate <- nil
	for _, r := range receipts {
		if err := r.Wait(ctx); err != nil {
			t.Error(err)
		}
	}
}

// MaxDelay lets a batch fill up, and no longer than it says.
func TestMaxDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		l, stop := start(t, Config{Store: store, BatchSize: 3, MaxDelay: time.Second})
		began := time.Now()
		for range 3 {
			l.Submit(event("x"))
		}
		r := l.Submit(event("y"))
		if err := r.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		stop()
		if b := store.stored(); len(b) != 2 || len(b[0]) != 3 {
			t.Errorf("batches: %v", b)
		}
	})
}

// An event that comes alone is committed at once, whatever MaxDelay is.
func TestALoneEventIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := start(t, Config{Store: &fakeStore{}, MaxDelay: time.Second})
		defer stop()
		for range 3 {
			began := time.Now()
			if err := l.Submit(event("x")).Wait(ctx); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("took %v", took)
			}
			time.Sleep(2 * busyFor)
		}
	})
}

// What a producer does to an event later does not show in the record.
func TestEventIsCopied(t *testing.T) {
	store := newGated()
	l, stop := start(t, Config{Store: store})
	l.Submit(event("block"))
	<-store.begun
	data := &broker.SendIntent{Recipients: []string{"a@x.example"}}
	e := event("")
	e.Type, e.Data = broker.EventSendIntent, data
	r := l.Submit(e)
	if e.ID == "" || e.Time.IsZero() || e.Version != 1 {
		t.Errorf("not filled in: %+v", e)
	}
	data.Recipients[0] = "b@x.example"
	id := e.ID
	store.gate <- nil
	<-store.begun
	store.gate <- nil
	if err := r.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if e.Seq != 1 || e.Data != any(data) {
		t.Errorf("after the receipt: %+v", e)
	}
	stop()
	got := store.stored()[1][0]
	if raw := rawData(got); raw != `{"intent":"","mail_from":"","header_from":"","recipients":["a@x.example"],"message_id":"","octets":0,"sha256":""}`+"\n" || got.ID != id {
		t.Errorf("recorded %s", raw)
	}
}

// A full queue fails Submit at once, and makes Append wait for room.
func TestQueueFull(t *testing.T) {
	store := newGated()
	metrics := prometheus.NewRegistry()
	l, _ := start(t, Config{Store: store, QueueSize: 2, Registerer: metrics})
	l.Submit(event("under way"))
	<-store.begun
	l.Submit(event("1"))
	l.Submit(event("2"))
	r := l.Submit(event("3"))
	if !r.Settled() {
		t.Fatal("Submit did not fail at once")
	}
	wantCode(t, r.Wait(ctx), broker.Unavailable)

	short, cancel := context.WithCancel(ctx)
	cancel()
	wantCode(t, l.Append(short, event("4")), broker.Unavailable)
	wantCode(t, l.Append(ctx, event("5"), event("6"), event("7")), broker.Invalid)

	appended := make(chan error)
	go func() { appended <- l.Append(ctx, event("8"), event("9")) }()
	for range 2 {
		store.gate <- nil
		<-store.begun
	}
	select {
	case err := <-appended:
		t.Fatalf("Append returned before its commit: %v", err)
	default:
	}
	store.gate <- nil
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(l.metrics.missing.WithLabelValues(reasonFull)); got != 2 {
		t.Errorf("%v events counted as refused by a full queue, want 2", got)
	}
	if got := testutil.ToFloat64(l.metrics.events); got != 5 {
		t.Errorf("%v events counted, want 5", got)
	}
	if n, err := testutil.GatherAndCount(metrics); err != nil || n != 8 {
		t.Errorf("%d metrics: %v", n, err)
	}
}

// A store that fails fails the batch's receipts; the next batch is tried anew.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newGated()
		l, _ := start(t, Config{Store: store})
		if err := l.Healthy(); err != nil {
			t.Fatal(err)
		}
		r := l.Submit(event("1"))
		<-store.begun
		time.Sleep(stalledAfter + time.Second) // of synctest's clock
		wantCode(t, l.Healthy(), broker.Unavailable)
		full := broker.Errorf(broker.Unavailable, "no room")
		store.gate <- full
		if err := r.Wait(ctx); !errors.Is(err, full) {
			t.Fatalf("receipt: %v", err)
		}
		synctest.Wait()
		wantCode(t, l.Healthy(), broker.Unavailable)
		if got := testutil.ToFloat64(l.metrics.missing.WithLabelValues(reasonStore)); got != 1 {
			t.Errorf("%v events counted as lost", got)
		}
		r = l.Submit(event("2"))
		<-store.begun
		store.gate <- nil
		if err := r.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if err := l.Healthy(); err != nil {
			t.Error(err)
		}
		// A failure that nothing follows does not keep a node out for ever.
		l.Submit(event("3"))
		<-store.begun
		store.gate <- full
		synctest.Wait()
		wantCode(t, l.Healthy(), broker.Unavailable)
		time.Sleep(unhealthyFor)
		if err := l.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

// An event that cannot be recorded fails alone.
func TestPoisonedEventFailsAlone(t *testing.T) {
	store := newGated()
	l, stop := start(t, Config{Store: store})
	l.Submit(event("block"))
	<-store.begun
	good := l.Submit(event("1"))
	typed := func(typ broker.EventType, data any) *broker.Event {
		return &broker.Event{Type: typ, Data: data}
	}
	foreign := event("x")
	foreign.FirmID = "../x"
	old := event("x")
	old.Version = 9
	for name, e := range map[string]*broker.Event{
		"no JSON form": typed("firm.created", broker.StateChange{After: []byte("{")}),
		"no such type": typed("mailbox.stolen", broker.StateChange{}),
		"another type": typed(broker.EventSessionOpen, broker.SessionEnd{}),
		"a secret":     typed(broker.EventCredentialSet, broker.NewSecret([]byte("hunter2"))),
		"no data":      typed(broker.EventSessionOpen, nil),
		"a nil":        typed(broker.EventSessionOpen, (*broker.SessionOpen)(nil)),
		"year 10000":   typed(broker.EventSessionEnd, broker.SessionEnd{OpenedAt: time.Unix(math.MaxInt32*1000, 0)}),
		"no such firm": foreign,
		"version":      old,
	} {
		r := l.Submit(e)
		if !r.Settled() || broker.CodeOf(r.Wait(ctx)) != broker.Invalid {
			t.Errorf("%s: %v", name, r.Wait(ctx))
		}
		if err := l.Append(ctx, event("with it"), e); broker.CodeOf(err) != broker.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	after := l.Submit(event("2"))
	store.gate <- nil
	<-store.begun
	store.gate <- nil
	if good.Wait(ctx) != nil || after.Wait(ctx) != nil {
		t.Error("the others failed too")
	}
	stop()
	if b := store.stored(); len(b) != 2 || len(b[1]) != 2 {
		t.Errorf("stored: %v", b)
	}
}

// rejecting refuses batches that hold one event.
type rejecting struct {
	*fakeStore
	bad broker.ID
}

func (r *rejecting) AppendEvents(ctx context.Context, events []*broker.Event) error {
	for _, e := range events {
		if e.ID == r.bad {
			return broker.InvalidField("event", "no")
		}
	}
	return r.fakeStore.AppendEvents(ctx, events)
}

// What the store alone finds wrong costs no other event its record.
func TestStoreRejectsOne(t *testing.T) {
	store := &rejecting{fakeStore: &fakeStore{}, bad: broker.NewID()}
	l, err := New(Config{Store: store, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	bad := event("bad")
	bad.ID = store.bad
	receipts := []*broker.Receipt{l.Submit(event("1")), l.Submit(bad), l.Submit(event("2"))}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Run(stopped); err != nil {
		t.Fatal(err)
	}
	for _, r := range receipts {
		wantCode(t, r.Wait(ctx), broker.Invalid)
	}
	if b := store.stored(); len(b) != 2 {
		t.Errorf("stored: %v", b)
	}
}

// Flush waits for what was submitted before it, and for no more than ctx.
func TestFlush(t *testing.T) {
	store := newGated()
	l, _ := start(t, Config{Store: store, BatchSize: 1})
	l.Flush(ctx) // there is nothing
	first, second := l.Submit(event("0")), l.Submit(event("1"))
	<-store.begun
	short, cancel := context.WithCancel(ctx)
	cancel()
	l.Flush(short)
	flushed := make(chan struct{})
	go func() {
		l.Flush(ctx)
		close(flushed)
	}()
	for _, receipt := range []*broker.Receipt{first, second} {
		select {
		case <-flushed:
			t.Error("it returned before the last was durable")
		default:
		}
		store.gate <- nil
		<-receipt.Done()
		if receipt == first {
			<-store.begun
		}
	}
	<-flushed
	l.Flush(ctx)
}

// At the end what is queued is committed, and the rest is refused.
func TestShutdown(t *testing.T) {
	store := newGated()
	l, err := New(Config{Store: store, Logger: zap.NewNop(), QueueSize: 4, BatchSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- l.Run(running) }()
	receipts := []*broker.Receipt{l.Submit(event("0"))}
	<-store.begun
	for i := range 4 {
		receipts = append(receipts, l.Submit(event(fmt.Sprint(i))))
	}
	waiting := make(chan error)
	go func() { waiting <- l.Append(ctx, event("x"), event("x"), event("x"), event("x")) }()
	cancel()
	for range 2 {
		store.gate <- nil
		<-store.begun
	}
	store.gate <- nil
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for i, r := range receipts {
		if !r.Settled() || r.Wait(ctx) != nil {
			t.Errorf("event %d was queued, and is not stored", i)
		}
	}
	wantCode(t, <-waiting, broker.Unavailable)
	wantCode(t, l.Submit(event("late")).Wait(ctx), broker.Unavailable)
	wantCode(t, l.Append(ctx, event("late")), broker.Unavailable)
	wantCode(t, l.Healthy(), broker.Unavailable)
	if err := l.Run(ctx); err == nil {
		t.Error("Run could be called twice")
	}
}

func TestConfig(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no store":       {Logger: zap.NewNop()},
		"no logger":      {Store: &fakeStore{}},
		"negative queue": {Store: &fakeStore{}, Logger: zap.NewNop(), QueueSize: -1},
		"negative delay": {Store: &fakeStore{}, Logger: zap.NewNop(), MaxDelay: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	metrics := prometheus.NewRegistry()
	for i, want := range []bool{true, false} {
		_, err := New(Config{Store: &fakeStore{}, Logger: zap.NewNop(), Registerer: metrics})
		if (err == nil) != want {
			t.Errorf("registering for time %d: %v", i, err)
		}
	}
}
