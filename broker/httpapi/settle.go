// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/broker"
)

// Ended says what a change did to live sessions.
type Ended struct {
	// EndedSessions were live on this node before the change, and are not now.
	EndedSessions []broker.ID `json:"ended_sessions" nullable:"false" doc:"Sessions that the change ended on the node that answers."`
	// OpenSessions had still not ended after a second: that is a fault.
	OpenSessions []broker.ID `json:"open_sessions" nullable:"false" doc:"Sessions that it should have ended and that had not ended a second later, or of which it is not known whether they may go on."`
}

// ending makes a change that ends all live sessions that match, and waits to
// see them end: for a second, which is what Postern promises.
func (a *api) ending(ctx context.Context, match func(*broker.Session) bool, change func() error) (Ended, error) {
	return a.watching(ctx, match, change, func() sessionSet { return nil })
}

// narrowing makes a change that ends those of the matching sessions that it
// makes narrower, and leaves the others. It waits for as long.
func (a *api) narrowing(ctx context.Context, match func(*broker.Session) bool, change func() error) (Ended, error) {
	revision := int64(math.MaxInt64)
	changeAndLook := func() error {
		if err := change(); err != nil {
			return err
		}
		// Without the revision no session is known to go on, and that is what
		// the answer says.
		now, err := a.State.PolicyRevision(ctx)
		if err != nil {
			a.Logger.Error("what a change did to live sessions is not known", zap.Error(err))
			return nil
		}
		revision = now
		return nil
	}
	return a.watching(ctx, match, changeAndLook, func() sessionSet {
		records, ok := a.Sessions.Standing(revision)
		if !ok {
			return nil
		}
		return setOf(records, match)
	})
}

type sessionSet map[broker.ID]bool

// watching makes a change and tells which of the matching sessions it ended,
// of those that standing does not let go on.
func (a *api) watching(ctx context.Context, match func(*broker.Session) bool, change func() error, standing func() sessionSet) (Ended, error) {
	touched := setOf(a.Sessions.Live(), match)
	if err := change(); err != nil {
		return Ended{}, err
	}
	// Some may have been opened since; none that the change forbids can be
	// after the commit.
	maps.Copy(touched, setOf(a.Sessions.Live(), match))
	open, left := a.settle(ctx, touched, match, standing)
	ended := Ended{EndedSessions: []broker.ID{}, OpenSessions: []broker.ID{}}
	for id := range touched {
		switch {
		case open[id]:
			ended.OpenSessions = append(ended.OpenSessions, id)
		case !left[id]:
			ended.EndedSessions = append(ended.EndedSessions, id)
		}
	}
	slices.Sort(ended.EndedSessions)
	slices.Sort(ended.OpenSessions)
	return ended, nil
}

// settle waits until each of the sessions has ended or stands, the time is up,
// or ctx ends. It returns those that did neither, and those that stand.
func (a *api) settle(ctx context.Context, touched sessionSet, match func(*broker.Session) bool, standing func() sessionSet) (open, stand sessionSet) {
	deadline := time.NewTimer(settleTimeout)
	defer deadline.Stop()
	for {
		began := time.Now()
		stand = standing()
		open = setOf(a.Sessions.Live(), func(s *broker.Session) bool {
			return touched[s.ID] && !stand[s.ID] && match(s)
		})
		if len(open) == 0 {
			return open, stand
		}
		// To look at thousands takes the processor from those that end.
		select {
		case <-time.After(max(settleInterval, settlePart*time.Since(began))):
		case <-deadline.C:
			return open, stand
		case <-ctx.Done():
			return open, stand
		}
	}
}

func setOf(sessions []*broker.Session, match func(*broker.Session) bool) sessionSet {
	ids := sessionSet{}
	for _, s := range sessions {
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
