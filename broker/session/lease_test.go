// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/broker"
)

// fakeLeases is one node's lease in memory.
type fakeLeases struct {
	mu     sync.Mutex
	holder broker.ID
	fail   error
	hang   time.Duration
	taken  int
	reaps  int
}

func (l *fakeLeases) enter(ctx context.Context) (leave func(), err error) {
	l.mu.Lock()
	hang := l.hang
	l.mu.Unlock()
	select {
	case <-time.After(hang):
	case <-ctx.Done():
		return nil, broker.Errorf(broker.Unavailable, "too slow").WithCause(ctx.Err())
	}
	l.mu.Lock()
	if err := l.fail; err != nil {
		l.mu.Unlock()
		return nil, err
	}
	return l.mu.Unlock, nil
}

func (l *fakeLeases) TakeLease(ctx context.Context, _ string, holder broker.ID, _ time.Duration, takeOver bool) error {
	leave, err := l.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if l.holder != "" && l.holder != holder && !takeOver {
		return broker.Errorf(broker.Conflict, "another has it")
	}
	l.holder = holder
	l.taken++
	return nil
}

func (l *fakeLeases) RenewLease(ctx context.Context, _ string, holder broker.ID, _ time.Duration) (bool, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	return l.holder == holder, nil
}

func (l *fakeLeases) EndLapsedSessions(ctx context.Context, _ string) (int, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	l.reaps++
	return 0, nil
}

func (l *fakeLeases) set(f func(*fakeLeases)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
}

// TestNever4LeaseOfSeveralNodes: sessions end within the lease when it cannot
// be prolonged, and at once when another has it; nobody is let in without it.
func TestNever4LeaseOfSeveralNodes(t *testing.T) {
	const lease = 10 * time.Second
	outage := broker.Errorf(broker.Unavailable, "the database is away")
	run := func(t *testing.T, name string, test func(*testing.T, *world, *fakeLeases)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &fakeLeases{}
				w := newWorld(t, func(c *Config) { c.Leases, c.Lease = l, lease })
				w.run(t)
				test(t, w, l)
			})
		})
	}
	refused := func(t *testing.T, w *world) {
		t.Helper()
		_, err := w.manager.Open(context.Background(), w.login())
		if broker.CodeOf(err) != broker.Unavailable || broker.PublicText(err) != textUnavailable {
			t.Errorf("a login without a lease: %v", err)
		}
	}
	leaseEnd := func(t *testing.T, s broker.LiveSession) {
		t.Helper()
		synctest.Wait()
		if end := ended(t, s); end.Reason != broker.EndLease || end.Text != textLease {
			t.Errorf("end %+v", end)
		}
	}

	run(t, "it lasts", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		time.Sleep(10 * lease)
		alive(t, s)
		l.set(func(l *fakeLeases) {
			if l.taken != 1 || l.reaps < 40 {
				t.Errorf("taken %d times, looked %d times for the dead", l.taken, l.reaps)
			}
		})
	})
	// The state can be read all the while.
	run(t, "it cannot be prolonged", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		l.set(func(l *fakeLeases) { l.fail = outage })
		time.Sleep(lease - lease/renewals - PollInterval)
		alive(t, s)
		time.Sleep(lease/renewals + PollInterval)
		leaseEnd(t, s)
		refused(t, w)
		s.End(nil, nil)
		l.set(func(l *fakeLeases) { l.fail = nil })
		time.Sleep(PollInterval)
		synctest.Wait()
		w.open(t)
	})
	run(t, "a short outage", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		for range 5 {
			l.set(func(l *fakeLeases) { l.fail = outage })
			time.Sleep(lease / 2)
			l.set(func(l *fakeLeases) { l.fail = nil })
			time.Sleep(lease / renewals)
		}
		synctest.Wait()
		alive(t, s)
	})
	run(t, "a slow database", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		l.set(func(l *fakeLeases) { l.hang = readTimeout - time.Millisecond })
		time.Sleep(5 * lease)
		alive(t, s) // slow, but in time
		l.set(func(l *fakeLeases) { l.hang = time.Hour })
		time.Sleep(lease + readTimeout)
		leaseEnd(t, s)
	})
	run(t, "another process has its name", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		other := broker.NewID()
		l.set(func(l *fakeLeases) { l.holder = other })
		time.Sleep(lease/renewals + PollInterval)
		leaseEnd(t, s)
		s.End(nil, nil)
		time.Sleep(3 * lease)
		refused(t, w)
		l.set(func(l *fakeLeases) {
			if l.holder != other || l.taken != 1 {
				t.Error("the lease was taken from whoever had it")
			}
			l.holder = ""
		})
		time.Sleep(PollInterval)
		synctest.Wait()
		w.open(t)
	})
	run(t, "it was taken for dead", func(t *testing.T, w *world, l *fakeLeases) {
		s := w.open(t)
		l.set(func(l *fakeLeases) { l.holder = "" })
		time.Sleep(lease/renewals + PollInterval)
		leaseEnd(t, s)
		// While its connections close the node must not have a new lease: what
		// they were let in under is over.
		time.Sleep(lease)
		refused(t, w)
		w.taken()
		s.End(nil, nil)
		time.Sleep(PollInterval)
		synctest.Wait()
		if !slices.Contains(w.taken(), "EndStaleSessions") {
			t.Error("what it had left open was not ended in the record")
		}
		w.open(t)
	})
}
