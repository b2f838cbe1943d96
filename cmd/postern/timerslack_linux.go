// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// kernelSlack is the timer slack that a process has unless somebody chose
	// another, timerSlack the server's, both in nanoseconds.
	kernelSlack = 50_000
	timerSlack  = 500_000
)

// coarsenTimers makes the server's timers up to half a millisecond late, by
// running this program anew, in the same process (prctl(2), PR_SET_TIMERSLACK:
// it is kept across execve, and threads inherit it).
//
// Go watches a thread that is in a system call, such as fsync, every 20 µs. On
// a busy database that watching alone was a fifth of the processor time that a
// session or a message costs, and nothing that Postern waits for is so short.
// A slack that was chosen, as with systemd's TimerSlackNSec=, stays; and where
// the program cannot be run anew, all works as well and costs more.
func coarsenTimers() {
	runtime.LockOSThread() // the setting is a thread's own
	defer runtime.UnlockOSThread()
	if slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || slack != kernelSlack {
		return
	}
	if unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec("/proc/self/exe", os.Args, os.Environ()) // it returns only when it failed
}
