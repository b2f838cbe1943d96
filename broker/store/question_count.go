// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strconv"
	"time"

	"github.com/postern-mail/postern/broker"
)

type countKey struct {
	day, what int64
	other     broker.ID
}

type count struct{ events, messages, octets, first, last int64 }

// counts are what a question counts by day.
type counts struct {
	// shift is how far the days' zone is east of UTC, in microseconds.
	shift int64
	by    map[countKey]count
}

func newCounts(zone int) *counts {
	return &counts{int64(time.Duration(zone) * time.Second / time.Microsecond), make(map[countKey]count)}
}

func (c *counts) merge(k countKey, n count) {
	old, there := c.by[k]
	if there {
		n = count{old.events + n.events, old.messages + n.messages, old.octets + n.octets, min(old.first, n.first), max(old.last, n.last)}
	}
	c.by[k] = n
}

// add counts an event that the index does not hold.
func (c *counts) add(e *indexed, other broker.ID) {
	c.merge(countKey{(e.time + c.shift) / dayMicros, int64(e.what), other}, count{1, e.messages, e.octets, e.time, e.time})
}

func (c *counts) sorted() []broker.ActivityCount {
	names := broker.Activities()
	all := make([]broker.ActivityCount, 0, len(c.by))
	for k, n := range c.by {
		x := broker.ActivityCount{
			Day:    time.UnixMicro(k.day * dayMicros).UTC().Format(time.DateOnly),
			Events: n.events, Messages: n.messages, Octets: n.octets, Other: k.other,
			First: time.UnixMicro(n.first).UTC(), Last: time.UnixMicro(n.last).UTC(),
			Activity: broker.ActivityOther,
		}
		if k.what >= 0 && k.what < int64(len(names)) {
			x.Activity = names[k.what]
		}
		if x.Activity == broker.ActivitySessionEnd {
			x.Messages = 0 // it is the length
		}
		all = append(all, x)
	}
	sortCounts(all)
	return all
}

func limitTo(n int) string { return " LIMIT $" + strconv.Itoa(n) }
