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
	// gcPercent is how much garbage may come together under load, in percent of
	// what lives. Sessions hold little and logins allocate much, so that Go's
	// 100 collects often for small gains; what is left over goes when the server
	// comes to rest.
	gcPercent = 300
)

// collectLess sets gcPercent, unless the operator has set GOGC.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// reclaimer gives memory back when the server comes to rest.
//
// Go collects garbage when as much of it has come together as there is live
// memory. A shift that begins leaves hundreds of sessions in IDLE, which
// allocate nothing: the garbage of their handshakes and logins, as much again
// as they hold, and stacks that grew for those, would stay until the collection
// that comes once in two minutes, and the pages for some time after. So once
// work has been over for two seconds, the heap is collected and its free pages
// go back to the system at once. A busy server is left alone: there the
// collector keeps its own pace, as set by gcPercent, or GOGC, and GOMEMLIMIT.
//
// The cost is bounded by what it gains: a collection takes time in proportion
// to what lives, and is made only when a quarter of that has been allocated
// since the last one.
type reclaimer struct {
	// read returns the state of the heap, reclaim collects it.
	read    func() heapState
	reclaim func()

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

func newReclaimer() *reclaimer {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	return &reclaimer{
		read: func() heapState {
			metrics.Read(samples)
			return heapState{allocated: samples[0].Value.Uint64(), live: samples[1].Value.Uint64()}
		},
		reclaim: debug.FreeOSMemory,
	}
}

// Run reclaims until ctx ends.
func (r *reclaimer) Run(ctx context.Context) error {
	ticker := time.NewTicker(reclaimInterval)
	defer ticker.Stop()
	r.last = r.read()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.look()
		}
	}
}

// look is called once in reclaimInterval.
func (r *reclaimer) look() {
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
