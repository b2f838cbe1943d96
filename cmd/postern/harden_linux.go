// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps this process's memory, which holds credentials for a moment,
// out of core files and from other processes of its user (ptrace,
// /proc/PID/mem). Root can still read it.
func harden() error {
	var errs []error
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("no core files (RLIMIT_CORE): %w", err))
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("not dumpable (PR_SET_DUMPABLE): %w", err))
	}
	return errors.Join(errs...)
}
