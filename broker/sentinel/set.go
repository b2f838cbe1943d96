// SPDX-License-Identifier: Apache-2.0

package sentinel

import (
	"cmp"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
)

// uids is a set of UIDs: ranges that are ascending, apart and not adjacent.
type uids []uidRange

type uidRange struct{ from, to uint32 }

// add adds a UID; where it is below another, the set is one only after normal.
func (s *uids) add(uid uint32) {
	if n := len(*s); n > 0 {
		switch last := &(*s)[n-1]; {
		case last.from <= uid && uid <= last.to:
			return
		case last.to < uid && last.to+1 == uid:
			last.to = uid
			return
		}
	}
	*s = append(*s, uidRange{uid, uid})
}

// normal puts ranges in order and joins them.
func normal(all uids) uids {
	slices.SortFunc(all, func(a, b uidRange) int { return cmp.Compare(a.from, b.from) })
	out := all[:0]
	for _, r := range all {
		if n := len(out); n > 0 && (out[n-1].to == math.MaxUint32 || r.from <= out[n-1].to+1) {
			out[n-1].to = max(out[n-1].to, r.to)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (s uids) union(t uids) uids { return normal(append(slices.Clone(s), t...)) }

// minus returns what is in s and not in t.
func (s uids) minus(t uids) uids {
	var out uids
	j := 0
	for _, r := range s {
		from, whole := r.from, true
		for ; j < len(t) && t[j].to < from; j++ {
		}
		for k := j; k < len(t) && t[k].from <= r.to; k++ {
			if t[k].from > from {
				out = append(out, uidRange{from, t[k].from - 1})
			}
			if t[k].to >= r.to {
				whole = false
				break
			}
			from = max(from, t[k].to+1)
		}
		if whole {
			out = append(out, uidRange{from, r.to})
		}
	}
	return out
}

func (s uids) and(t uids) uids { return s.minus(s.minus(t)) }

// has reports whether a UID is in the set.
func (s uids) has(uid uint32) bool {
	i, ok := slices.BinarySearchFunc(s, uid, func(r uidRange, uid uint32) int { return cmp.Compare(r.from, uid) })
	return ok || i > 0 && uid <= s[i-1].to
}

// from returns those that are not below a UID.
func (s uids) from(uid uint32) uids {
	if uid == 0 {
		return s
	}
	return s.minus(uids{{0, uid - 1}})
}

func (s uids) len() (n int) {
	for _, r := range s {
		n += int(r.to-r.from) + 1
	}
	return n
}

// each yields the UIDs, the highest first.
func (s uids) each() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, r := range slices.Backward(s) {
			for uid := r.to; ; uid-- {
				if !yield(uid) {
					return
				}
				if uid == r.from {
					break
				}
			}
		}
	}
}

// String writes a set as IMAP does (RFC 9051 §9); empty: "".
func (s uids) String() string {
	var b []byte
	for i, r := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.from), 10)
		if r.to != r.from {
			b = strconv.AppendUint(append(b, ':'), uint64(r.to), 10)
		}
	}
	return string(b)
}

// parseUIDs reads a set, in which "*" is every UID from there on. What is none,
// such as a set that was cut or "$", is not ok.
func parseUIDs(text string) (set uids, ok bool) {
	if text == "" {
		return nil, false
	}
	var all uids
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, ":")
		from, ok1 := parseUID(first)
		to, ok2 := from, ok1
		if isRange {
			to, ok2 = parseUID(last)
		}
		if !ok1 || !ok2 {
			return nil, false
		}
		// "*" is the highest UID there is, which is not known: anything.
		if strings.Contains(part, "*") && !isRange {
			from = 1
		}
		all = append(all, uidRange{min(from, to), max(from, to)})
	}
	return normal(all), true
}

func parseUID(s string) (uint32, bool) {
	if s == "*" {
		return math.MaxUint32, true
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n > 0
}
