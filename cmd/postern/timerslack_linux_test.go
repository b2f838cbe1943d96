// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTimerSlack: the server runs itself anew once, with coarse timers; other
// commands do not, nor does one whose slack somebody chose.
func TestTimerSlack(t *testing.T) {
	if os.Getenv("POSTERN_TEST_SLACK") != "" {
		before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if before == kernelSlack {
			coarsenTimers()
			t.Fatal("the program was not run anew")
		}
		if before != timerSlack {
			t.Fatalf("timer slack %d ns", before)
		}
		coarsenTimers() // does nothing now
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run", "^TestTimerSlack$", "-test.v")
	cmd.Env = append(os.Environ(), "POSTERN_TEST_SLACK=1")
	cmd.Dir = filepath.Dir(exe)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
