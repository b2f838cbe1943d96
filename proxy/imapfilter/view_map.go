// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"fmt"
	"slices"
	"sync"
)

// mailMap tells the messages of the selected folder: the upstream's by their
// sequence numbers, and those that the client knows by its own. A message is
// visible when the client knows it and it is not gone. The upstream's goroutine
// notes what the upstream tells; the client's asks what is visible, and tells
// the client.
type mailMap struct {
	mu sync.Mutex
	// open says that a folder is selected whose messages were asked for.
	open bool
	// upstream are all UIDs, ascending; behind them, 0 for each message that
	// was told of and not asked for yet.
	upstream []uint32
	// client are the UIDs that the client was told of, ascending.
	client []uint32
	// gone are those among them that it was not told of as expunged yet.
	gone map[uint32]struct{}
	// arrived says that there is something to ask for.
	arrived bool
	// unsure says that a message went of which it is not known which one it was,
	// since ask was called.
	unsure bool
	// tooMany says that the folder has more than a view holds.
	tooMany bool
	// told is the number of messages in the last EXISTS to the client.
	told int
}

// reset forgets the folder.
func (m *mailMap) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open, m.upstream, m.client, m.gone, m.arrived, m.unsure, m.tooMany, m.told = false, nil, nil, nil, false, false, false, 0
}

// exists notes an EXISTS. false: it contradicts what was told before.
func (m *mailMap) exists(n uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > maxMapped {
		m.tooMany = true
		return true
	}
	if !m.open { // what came before may have been the folder's that was left
		m.upstream = nil
	}
	if int(n) < len(m.upstream) {
		return false
	}
	m.arrived = m.arrived || int(n) > len(m.upstream)
	m.upstream = append(m.upstream, make([]uint32, int(n)-len(m.upstream))...)
	return true
}

// expunged notes an EXPUNGE. One of a message that was never told of, which some
// servers leave out when another went, changes nothing.
func (m *mailMap) expunged(n uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n == 0 || int(n) > len(m.upstream) {
		m.arrived, m.unsure = true, true
		return
	}
	uid := m.upstream[n-1]
	m.unsure = m.unsure || uid == 0
	m.upstream = slices.Delete(m.upstream, int(n-1), int(n))
	m.lose(uid)
}

// lose hides a message from now on.
func (m *mailMap) lose(uid uint32) {
	if _, known := slices.BinarySearch(m.client, uid); !known || uid == 0 {
		return
	}
	if m.gone == nil {
		m.gone = make(map[uint32]struct{})
	}
	m.gone[uid] = struct{}{}
}

// number returns the client's number for a message and its UID, by the
// upstream's number; 0: it is not visible, or the client was not told of it yet.
func (m *mailMap) number(n uint32) (seq, uid uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.open || n == 0 || int(n) > len(m.upstream) {
		return 0, 0
	}
	uid = m.upstream[n-1]
	if seq = m.seq(uid); int(seq) > m.told {
		seq = 0
	}
	return seq, uid
}

// seq returns the client's number of a UID; 0: it is not visible.
func (m *mailMap) seq(uid uint32) uint32 {
	i, known := slices.BinarySearch(m.client, uid)
	if _, gone := m.gone[uid]; !known || gone || uid == 0 {
		return 0
	}
	return uint32(i + 1)
}

// last returns the highest UID that was asked for.
func (m *mailMap) last() uint32 {
	for i := len(m.upstream) - 1; i >= 0; i-- {
		if m.upstream[i] != 0 {
			return m.upstream[i]
		}
	}
	return 0
}

// ask is called before the upstream is asked what learn takes in.
func (m *mailMap) ask() {
	m.mu.Lock()
	m.unsure = false
	m.mu.Unlock()
}

// learned is what came of an answer.
type learned uint8

const (
	learnedAll learned = iota
	// learnedTooMany: there are more messages than a view holds.
	learnedTooMany
	// learnedUnsure: one has gone that may be among those that were told. A server
	// may say so behind what a UID SEARCH found (RFC 9051 §7.5.1).
	learnedUnsure
)

// learn takes in what lies behind last: all UIDs, and the visible ones among
// them.
func (m *mailMap) learn(all, visible []uint32) learned {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.tooMany:
		return learnedTooMany
	case m.unsure:
		return learnedUnsure
	}
	last := max(m.last(), m.highest())
	at := len(m.upstream)
	for at > 0 && m.upstream[at-1] == 0 {
		at--
	}
	for _, uid := range all {
		switch {
		case uid <= last: // UID n:* has the last message even where n is above it
			continue
		case at < len(m.upstream):
			m.upstream[at] = uid
		case len(m.upstream) >= maxMapped:
			return learnedTooMany
		default:
			m.upstream = append(m.upstream, uid)
		}
		at++
		last = uid
		if _, found := slices.BinarySearch(visible, uid); found {
			m.client = append(m.client, uid)
		}
	}
	m.arrived = at < len(m.upstream)
	m.open = true
	return learnedAll
}

// highest returns the highest UID that the client knows.
func (m *mailMap) highest() uint32 {
	if len(m.client) == 0 {
		return 0
	}
	return m.client[len(m.client)-1]
}

// keep hides all messages that are not among the visible ones any more.
func (m *mailMap) keep(visible []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range m.client {
		if _, found := slices.BinarySearch(visible, uid); !found {
			m.lose(uid)
		}
	}
}

// tell appends what the client must be told: EXISTS, and EXPUNGE where it may
// be. What it was told of is what its numbers count from then on.
func (m *mailMap) tell(dst []byte, expunge bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.open {
		return dst
	}
	if len(m.client) > m.told {
		dst = fmt.Appendf(dst, "* %d EXISTS\r\n", len(m.client))
	}
	if expunge && len(m.gone) > 0 {
		kept := m.client[:0]
		for _, uid := range m.client {
			if _, gone := m.gone[uid]; gone {
				dst = fmt.Appendf(dst, "* %d EXPUNGE\r\n", len(kept)+1)
			} else {
				kept = append(kept, uid)
			}
		}
		m.client, m.gone = kept, nil
	}
	m.told = len(m.client)
	return dst
}
