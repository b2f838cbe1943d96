// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/broker"
)

// Ended says what a change did to live sessions.
type Ended struct {
	// EndedSessions were live on this node before the change, and are not now.
	EndedSessions []broker.ID `json:"ended_sessions" nullable:"false" doc:"Sessions that the change ended on the node that answers."`
	// OpenSessions had still not ended after a second: that is a fault.
	OpenSessions []broker.ID `json:"open_sessions" nullable:"false" doc:"Sessions that it should have ended and that had not ended a second later."`
}

// ending makes a change that ends the live sessions that match, and waits to
// see them end: for a second, which is what Postern promises.
func (a *api) ending(ctx context.Context, match func(*broker.Session) bool, change func() error) (Ended, error) {
	touched := a.live(match)
	if err := change(); err != nil {
		return Ended{}, err
	}
	// Some may have been opened since; none can be after the commit.
	for id := range a.live(match) {
		touched[id] = true
	}
	ended := Ended{EndedSessions: []broker.ID{}, OpenSessions: []broker.ID{}}
	open := a.settle(ctx, touched, match)
	for id := range touched {
		if open[id] {
			ended.OpenSessions = append(ended.OpenSessions, id)
		} else {
			ended.EndedSessions = append(ended.EndedSessions, id)
		}
	}
	slices.Sort(ended.EndedSessions)
	slices.Sort(ended.OpenSessions)
	return ended, nil
}

// settle returns those of the sessions that are still live when all have
// ended, the time is up, or ctx ends.
func (a *api) settle(ctx context.Context, touched map[broker.ID]bool, match func(*broker.Session) bool) map[broker.ID]bool {
	deadline := time.NewTimer(settleTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(settleInterval)
	defer tick.Stop()
	for {
		open := a.live(func(s *broker.Session) bool { return touched[s.ID] && match(s) })
		if len(open) == 0 {
			return open
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return open
		case <-ctx.Done():
			return open
		}
	}
}

func (a *api) live(match func(*broker.Session) bool) map[broker.ID]bool {
	ids := map[broker.ID]bool{}
	for _, s := range a.Sessions.Live() {
		if match(s) {
			ids[s.ID] = true
		}
	}
	return ids
}

// keyedMutex is a mutex for each id. Its zero value is ready.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[broker.ID]*idLock
}

type idLock struct {
	held chan struct{}
	// users hold it or wait for it.
	users int
}

// lock waits for id's mutex; the error is Unavailable when ctx ends first.
func (k *keyedMutex) lock(ctx context.Context, id broker.ID) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[broker.ID]*idLock{}
	}
	l := k.locks[id]
	if l == nil {
		l = &idLock{held: make(chan struct{}, 1)}
		k.locks[id] = l
	}
	l.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, id)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, broker.Errorf(broker.Unavailable, "another request is changing it; try again").WithCause(context.Cause(ctx))
	}
}
