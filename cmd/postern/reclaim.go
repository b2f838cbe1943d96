// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// reclaimInterval is how often allocation is looked at.
	reclaimInterval = time.Second
	// reclaimQuiet is how long it must have been quiet, and quietOctets what
	// may be allocated in one interval of that: polls and a scrape of metrics.
	reclaimQuiet = 2 * reclaimInterval
	quietOctets  = 512 << 10
	// reclaimShare is which part of what lives must be gained to be worth the
	// work, and reclaimLeast how many octets.
	reclaimShare = 4
	reclaimLeast = 1 << 20
	// usualPercent is how much garbage may come together, in percent of what
	// lives: sessions hold little, and their work's garbage is small beside what
	// Go's 100 would collect for it. gatheringPercent takes its place while the
	// sessions become more by gathering or more in an interval. What they will
	// hold for hours lies among the garbage of their logins then, and a page that
	// holds one thing that lives cannot be given back.
	usualPercent     = 300
	gatheringPercent = 50
	gathering        = 4
)

// reclaimer gives memory back when the server comes to rest.
//
// Go collects garbage when as much of it has come together as there is live
// memory. A shift that begins leaves hundreds of sessions in IDLE, which
// allocate nothing: the garbage of their handshakes and logins, as much again
// as they hold, and stacks that grew for those, would stay until the collection
// that comes once in two minutes, and the pages for some time after. So once
// work has been over for two seconds, the heap is collected and its free pages
// go back to the system at once. A busy server is left alone: there the
// collector keeps its own pace, as set by usualPercent and gatheringPercent, or by
// GOGC, and by GOMEMLIMIT.
//
// The cost is bounded by what it gains: a collection takes time in proportion
// to what lives, and is made only when a quarter of that has been allocated
// since the last one.
type reclaimer struct {
	// read returns the state of the heap, reclaim collects it.
	read    func() heapState
	reclaim func()
	// sessions returns how many there are, collectAt sets the percentage of
	// garbage; nil: the operator has set GOGC.
	sessions  func() int
	collectAt func(percent int)

	counted, percent int

	last  heapState
	quiet time.Duration
	// until is what had been allocated when it was last reclaimed.
	until uint64
}

// heapState is what a reclaimer goes by, in octets.
type heapState struct {
	// allocated is all that was ever allocated; live what the last collection
	// found alive.
	allocated, live uint64
}

// newReclaimer returns the process's: sessions returns how many are live.
func newReclaimer(sessions func() int) *reclaimer {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	r := &reclaimer{
		read: func() heapState {
			metrics.Read(samples)
			return heapState{allocated: samples[0].Value.Uint64(), live: samples[1].Value.Uint64()}
		},
		reclaim:  debug.FreeOSMemory,
		sessions: sessions,
	}
	if os.Getenv("GOGC") == "" {
		r.collectAt = func(percent int) { debug.SetGCPercent(percent) }
	}
	return r
}

// Run reclaims until ctx ends.
func (r *reclaimer) Run(ctx context.Context) error {
	ticker := time.NewTicker(reclaimInterval)
	defer ticker.Stop()
	r.last = r.read()
	r.pace()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.look()
		}
	}
}

// pace chooses the percentage of garbage.
func (r *reclaimer) pace() {
	if r.collectAt == nil {
		return
	}
	percent, n := usualPercent, r.sessions()
	if n-r.counted >= gathering {
		percent = gatheringPercent
	}
	r.counted = n
	if percent != r.percent {
		r.percent = percent
		r.collectAt(percent)
	}
}

// look is called once in reclaimInterval.
func (r *reclaimer) look() {
	r.pace()
	now := r.read()
	if now.allocated-r.last.allocated > quietOctets {
		r.quiet = 0
	} else {
		r.quiet += reclaimInterval
	}
	r.last = now
	if r.quiet < reclaimQuiet || now.allocated-r.until < max(reclaimLeast, now.live/reclaimShare) {
		return
	}
	r.reclaim()
	r.until = now.allocated
}
