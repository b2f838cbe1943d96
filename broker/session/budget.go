// SPDX-License-Identifier: Apache-2.0

package session

import (
	"sync"

	"github.com/postern-mail/postern/broker"
)

// budget shares each mailbox's upstream connections among its agents. IMAP
// and submission have pools of their own.
type budget struct {
	mu    sync.Mutex
	pools map[pool]map[*live]struct{}
}

type pool struct {
	mailbox  broker.ID
	protocol broker.Protocol
}

// take gives s a place among limit. When all are taken, s takes over the place
// of a session that is ending already, or of the longest idle one of the
// greediest agent, if that agent has more places than s's agent would then
// have. That session is returned: the caller ends it and waits for its end.
func (b *budget) take(s *live, limit int) (predecessor *live, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := pool{s.record.MailboxID, s.record.Protocol}
	places := b.pools[key]
	if places == nil {
		places = make(map[*live]struct{})
		b.pools[key] = places
	}
	if len(places) >= limit {
		if predecessor = evictable(places, s.record.AgentID); predecessor == nil {
			return nil, false
		}
		delete(places, predecessor)
	}
	places[s] = struct{}{}
	return predecessor, true
}

// release gives s's place back, if it has one.
func (b *budget) release(s *live) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := pool{s.record.MailboxID, s.record.Protocol}
	places := b.pools[key]
	delete(places, s)
	if len(places) == 0 {
		delete(b.pools, key)
	}
}

// evictable returns the session whose place asking may have, or nil.
func evictable(places map[*live]struct{}, asking broker.ID) *live {
	held := make(map[broker.ID]int)
	for s := range places {
		if s.over() {
			return s
		}
		held[s.record.AgentID]++
	}
	var best *live
	for s := range places {
		if s.idleSince.Load() == 0 || held[s.record.AgentID] <= held[asking]+1 {
			continue
		}
		if best == nil || greedier(s, best, held) {
			best = s
		}
	}
	return best
}

// greedier orders by how many places the agent holds, then by idleness; the
// id settles the rest, so that the order is the same every time.
func greedier(s, other *live, held map[broker.ID]int) bool {
	if a, b := held[s.record.AgentID], held[other.record.AgentID]; a != b {
		return a > b
	}
	if a, b := s.idleSince.Load(), other.idleSince.Load(); a != b {
		return a < b
	}
	return s.record.ID < other.record.ID
}
