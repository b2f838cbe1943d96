// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps this process's memory, which holds credentials for a moment,
// out of core files.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core files (RLIMIT_CORE): %w", err)
	}
	return nil
}
