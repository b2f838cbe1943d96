// SPDX-License-Identifier: Apache-2.0

package servers

import (
	"sync"
	"testing"
	"time"
)

const (
	// stopwatchTick is how often a stopwatch wants to run.
	stopwatchTick = 5 * time.Millisecond
	// stopwatchSlack is how late that may be on a machine that is not short of
	// processors.
	stopwatchSlack = 10 * time.Millisecond
	// stopwatchParts is how many processes wait for a processor one after
	// another in what is measured: client, Postern, provider, and the test.
	stopwatchParts = 4
)

// Stopwatch measures how long something takes, and beside it for how long the
// machine did not let a goroutine run that wanted to: what a promise of a
// second is not held against.
type Stopwatch struct {
	began time.Time
	stop  func() (starved time.Duration)
}

// StartStopwatch starts one; it stops with Within, or with the test.
func StartStopwatch(t testing.TB) *Stopwatch {
	s := &Stopwatch{began: time.Now()}
	over, done := make(chan struct{}), make(chan struct{})
	var starved time.Duration
	go func() {
		defer close(done)
		tick := time.NewTimer(stopwatchTick)
		defer tick.Stop()
		for last := s.began; ; last = time.Now() {
			select {
			case <-tick.C:
				tick.Reset(stopwatchTick)
			case <-over:
				return
			}
			if late := time.Since(last) - stopwatchTick; late > stopwatchSlack {
				starved += late
			}
		}
	}()
	var once sync.Once
	s.stop = func() time.Duration {
		once.Do(func() { close(over) })
		<-done
		return starved
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// Within fails the test when more than limit has passed since the start.
func (s *Stopwatch) Within(t testing.TB, what string, limit time.Duration) {
	t.Helper()
	s.Took(t, what, time.Since(s.began), limit)
}

// Took fails the test when took, measured while the stopwatch ran, is more than
// limit.
func (s *Stopwatch) Took(t testing.TB, what string, took, limit time.Duration) {
	t.Helper()
	starved := s.stop()
	if took > limit+stopwatchParts*starved {
		t.Errorf("%s took %v, want at most %v; the machine kept processes waiting for %v", what, took, limit, starved)
	}
}
