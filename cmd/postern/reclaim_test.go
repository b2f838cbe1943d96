// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestReclaim: memory is given back once, when work is over; never while it
// lasts, and not for a trifle.
func TestReclaim(t *testing.T) {
	const mb, live = 1 << 20, 40 << 20
	for _, tc := range []struct {
		name string
		// allocates is what each second brings; reclaimed is how often memory
		// has been given back after it.
		allocates []uint64
		reclaimed []int
	}{
		{"nothing happens", []uint64{0, 0, 0, 0, 0}, []int{0, 0, 0, 0, 0}},
		{"a shift begins", []uint64{50 * mb, 50 * mb, 0, 0, 0, 0}, []int{0, 0, 0, 1, 1, 1}},
		{"work without a pause", []uint64{50 * mb, mb, 50 * mb, mb, mb, mb}, []int{0, 0, 0, 0, 0, 0}},
		{"a pause too short", []uint64{50 * mb, 0, mb, 0, 0}, []int{0, 0, 0, 0, 1}},
		{"less than is worth it", []uint64{9 * mb, 0, 0, 0}, []int{0, 0, 0, 0}},
		{"small things come together", []uint64{9 * mb, 0, 0, 9 * mb, 0, 0, 0}, []int{0, 0, 0, 0, 0, 1, 1}},
		{"polls come together", []uint64{50 * mb, 0, mb / 4, 0, mb / 4, 0, mb / 4}, []int{0, 0, 1, 1, 1, 1, 1}},
		{"two shifts", []uint64{50 * mb, 0, 0, 0, 50 * mb, 0, 0}, []int{0, 0, 1, 1, 1, 1, 2}},
	} {
		heap, reclaimed := heapState{live: live}, 0
		r := &reclaimer{read: func() heapState { return heap }, reclaim: func() { reclaimed++ }}
		for second, octets := range tc.allocates {
			heap.allocated += octets
			r.look()
			if reclaimed != tc.reclaimed[second] {
				t.Errorf("%s: reclaimed %d times after second %d, want %d", tc.name, reclaimed, second, tc.reclaimed[second])
			}
		}
	}
}

// TestReclaimerPaces: garbage is collected often while sessions gather, and not
// while they come and go, or leave.
func TestReclaimerPaces(t *testing.T) {
	sessions, set := 0, []int{}
	r := &reclaimer{
		read: func() heapState { return heapState{} }, reclaim: func() {},
		sessions: func() int { return sessions }, collectAt: func(percent int) { set = append(set, percent) },
	}
	for _, sessions = range []int{0, 3, 3, 30, 60, 62, 60, 10, 11, 20} {
		r.look()
	}
	if want := []int{usualPercent, gatheringPercent, usualPercent, gatheringPercent}; !slices.Equal(set, want) {
		t.Errorf("set %v, want %v", set, want)
	}
}

// TestReclaimerEnds with its context, and looks each second until then.
func TestReclaimerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		r := &reclaimer{read: func() heapState { looks++; return heapState{} }, reclaim: func() {}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if looks != 11 {
			t.Errorf("it looked %d times, want 11", looks)
		}
	})
}

// TestReclaimerReadsTheHeap: the runtime has the metrics under these names.
func TestReclaimerReadsTheHeap(t *testing.T) {
	r := newReclaimer(func() int { return 0 })
	before := r.read()
	octets := make([]byte, 8<<20)
	after := r.read()
	runtime.KeepAlive(octets)
	if grown := after.allocated - before.allocated; grown < 8<<20 || grown > 64<<20 {
		t.Errorf("8 MiB were allocated, the metrics say %d octets", grown)
	}
	debug.FreeOSMemory()
	if r.read().live == 0 {
		t.Error("nothing is alive")
	}
}
