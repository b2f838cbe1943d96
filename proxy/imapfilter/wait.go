// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"errors"
	"os"
	"time"
)

// errUpstreamSilent says that the upstream has not answered for too long.
var errUpstreamSilent = errors.New("the upstream does not answer")

// wait sleeps until ready, called under the mutex, returns true: until the
// upstream has answered, as a rule.
//
// When that takes long, what the client sends meanwhile is read ahead: a
// client that has gone must not keep its session for as long as an upstream
// does not answer. And an upstream that says nothing for f.silence ends it.
func (s *clientSide) wait(ready func(*relay) bool) error {
	r := s.r
	heard, patience := r.octetsDown.Load(), time.Time{}
	for {
		r.mu.Lock()
		if r.end != nil {
			r.mu.Unlock()
			return errOver
		}
		if ready(r) {
			r.mu.Unlock()
			return nil
		}
		r.waiting = true
		r.mu.Unlock()
		if patience.IsZero() {
			if s.sleep(s.f().listenAfter) {
				continue
			}
			patience = time.Now().Add(s.f().silence)
		}
		if err := s.listen(patience); err != nil {
			return err
		}
		if now := time.Now(); !now.Before(patience) {
			more := r.octetsDown.Load()
			if more == heard {
				return errUpstreamSilent
			}
			heard, patience = more, now.Add(s.f().silence)
		}
	}
}

// sleep waits for a signal for d at most, and reports whether one came.
func (s *clientSide) sleep(d time.Duration) bool {
	if s.timer == nil {
		s.timer = time.NewTimer(d)
	} else {
		s.timer.Reset(d)
	}
	defer s.timer.Stop()
	select {
	case <-s.r.signal:
		return true
	case <-s.r.over:
		return true
	case <-s.timer.C:
		return false
	}
}

// listen reads once from the client, into the memory for its lines, until a
// signal comes or until has passed.
func (s *clientSide) listen(until time.Time) error {
	r := s.r
	if s.lines.full() {
		s.sleep(time.Until(until))
		return nil
	}
	r.mu.Lock()
	if !r.waiting || r.end != nil { // the signal has come
		r.mu.Unlock()
		return nil
	}
	r.listening = true
	err := r.down.SetReadDeadline(until)
	r.mu.Unlock()
	if err == nil {
		err = s.lines.ahead()
	}
	r.mu.Lock()
	r.listening = false
	r.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.deadline = time.Now().Add(s.f().silence)
	return r.readBy(s.deadline)
}
