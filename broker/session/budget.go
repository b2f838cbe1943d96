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
// of a session that is ending already, or of one whose agent has more places
// than s's agent would then have: an idle one if there is any, of the greediest
// agent, the longest idle. A busy one goes when no such session is idle: else
// whoever never reads what he asked for, or never ends what he sends, would
// keep all others out of the mailbox. That session is returned: the caller ends
// it and waits for its end.
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
	var best candidacy
	for s := range places {
		if held[s.record.AgentID] <= held[asking]+1 {
			continue
		}
		c := candidacy{s, s.idleSince.Load(), held[s.record.AgentID]}
		if best.session == nil || c.before(best) {
			best = c
		}
	}
	return best.session
}

// candidacy is how a session stands in the order in which places are lost.
type candidacy struct {
	session   *live
	idleSince int64 // read once, so that the order holds; 0: busy
	held      int   // by its agent
}

// before puts idle sessions before busy ones, then orders by how many places
// the agent holds, then by idleness. Ids settle the rest: they grow with time,
// so the oldest goes first.
func (c candidacy) before(other candidacy) bool {
	if a, b := c.idleSince != 0, other.idleSince != 0; a != b {
		return a
	}
	if c.held != other.held {
		return c.held > other.held
	}
	if c.idleSince != other.idleSince {
		return c.idleSince < other.idleSince
	}
	return c.session.record.ID < other.session.record.ID
}
