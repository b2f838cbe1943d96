// SPDX-License-Identifier: Apache-2.0

package imapfilter

import (
	"bytes"
	"slices"
	"strconv"
)

// errNumbers is the answer to a set with numbers of messages that are not there.
const errNumbers = "there is no such message"

// span is a range of the client's messages, as indexes: from and what comes
// behind it.
type span struct{ from, to int }

// spans reads a set that was judged: of numbers, or of UIDs. false: it names
// numbers that are not there.
func (m *mailMap) spans(set []byte, uids bool) ([]span, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []span
	for part := range bytes.SplitSeq(set, []byte(",")) {
		low, high, isRange := bytes.Cut(part, []byte(":"))
		if !isRange {
			high = low
		}
		a, b := m.setNumber(low, uids), m.setNumber(high, uids)
		if a > b {
			a, b = b, a
		}
		if !uids {
			if a == 0 || b > uint64(len(m.client)) {
				return nil, false
			}
			all = append(all, span{int(a - 1), int(b)})
			continue
		}
		from, _ := slices.BinarySearch(m.client, uint32(a))
		to, found := slices.BinarySearch(m.client, uint32(b))
		if found {
			to++
		}
		if from < to {
			all = append(all, span{from, to})
		}
	}
	return all, true
}

// setNumber reads one number of a set; '*' is the last message that the client
// knows.
func (m *mailMap) setNumber(v []byte, uids bool) uint64 {
	if string(v) == "*" {
		if uids {
			return uint64(m.highest())
		}
		return uint64(len(m.client))
	}
	n, _ := strconv.ParseUint(string(v), 10, 32)
	return n
}

// chosen returns the visible UIDs of spans, ascending, each once.
func (m *mailMap) chosen(all []span) []uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(all, func(a, b span) int { return a.from - b.from })
	var uids []uint32
	next := 0
	for _, s := range all {
		for i := max(s.from, next); i < s.to; i++ {
			if _, gone := m.gone[m.client[i]]; !gone {
				uids = append(uids, m.client[i])
			}
		}
		next = max(next, s.to)
	}
	return uids
}

// sets writes UIDs as sets, of at most maxSet octets each. A range holds no
// message that is not among them: one that is hidden is not to be touched.
func (m *mailMap) sets(uids []uint32) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	var b []byte
	at := 0 // where in upstream the last one stands
	for i := 0; i < len(uids); {
		for at < len(m.upstream) && m.upstream[at] != uids[i] {
			at++
		}
		first := uids[i]
		last := first
		for i++; i < len(uids) && at+1 < len(m.upstream) && m.upstream[at+1] == uids[i]; i++ {
			last = uids[i]
			at++
		}
		if len(b) > maxSet-25 {
			all, b = append(all, string(b)), b[:0]
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(first), 10)
		if last != first {
			b = strconv.AppendUint(append(b, ':'), uint64(last), 10)
		}
	}
	if len(b) > 0 {
		all = append(all, string(b))
	}
	return all
}

// searchSet writes a set of a search as UIDs that mean the same among visible
// messages. Hidden ones may lie in its ranges: the answer is filtered. "": it
// describes none.
func (m *mailMap) searchSet(all []span) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b []byte
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(m.client[s.from]), 10)
		if s.to > s.from+1 {
			b = strconv.AppendUint(append(b, ':'), uint64(m.client[s.to-1]), 10)
		}
	}
	return string(b)
}

// visible keeps those of the UIDs that are, in their order.
func (m *mailMap) visible(uids []uint32) []uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := uids[:0]
	for _, uid := range uids {
		if m.seq(uid) != 0 {
			kept = append(kept, uid)
		}
	}
	return kept
}

// numbers turns visible UIDs into the client's numbers.
func (m *mailMap) numbers(uids []uint32) []uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, uid := range uids {
		uids[i] = m.seq(uid)
	}
	return uids
}

// appendSet appends numbers as a set, in their order.
func appendSet(dst []byte, n []uint32) []byte {
	for i := 0; i < len(n); {
		first := n[i]
		last := first
		for i++; i < len(n) && n[i] == last+1; i++ {
			last = n[i]
		}
		if dst[len(dst)-1] != ' ' {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(first), 10)
		if last != first {
			dst = strconv.AppendUint(append(dst, ':'), uint64(last), 10)
		}
	}
	return dst
}
