// SPDX-License-Identifier: Apache-2.0

package companyca

import "sync"

// subscribers are those who are told of changes.
type subscribers struct {
	mu   sync.Mutex
	next int
	all  map[int]func()
}

func (s *subscribers) add(f func()) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[int]func())
	}
	id := s.next
	s.next++
	s.all[id] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.all, id)
	}
}

// call tells all of them. The lock is held, so that nobody is called who has
// cancelled.
func (s *subscribers) call() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.all {
		f()
	}
}
