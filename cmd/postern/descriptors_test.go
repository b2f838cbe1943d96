// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/postern-mail/postern/proxy"
)

// TestNever9StrangersLeaveDescriptors: whatever limits.pending says, half of the
// process's descriptors are left for sessions.
func TestNever9StrangersLeaveDescriptors(t *testing.T) {
	for _, test := range []struct {
		descriptors uint64
		want        int
	}{
		{1024, 128},
		{8192, 1024},
		{1 << 20, 131072},
		{1<<64 - 1, 1_000_000}, // RLIM_INFINITY
		{3, 1},
	} {
		got := pendingWithin(test.descriptors)
		if got != test.want {
			t.Errorf("with %d descriptors %d may be pending, want %d", test.descriptors, got, test.want)
		}
		if test.descriptors > 100 && uint64(got*proxy.PendingClasses) > test.descriptors/2 {
			t.Errorf("of %d descriptors too few are left", test.descriptors)
		}
	}
}
