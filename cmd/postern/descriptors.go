// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/proxy"
)

// strangersPart is the part of the process's descriptors, as a divisor, that
// connections may hold which have not logged in: sessions take two each, and
// Vault and the database must never wait for one.
const strangersPart = 2

// boundPending lowers limits.pending to what the process may have of
// descriptors. Go has raised the soft limit to the hard one by now.
func boundPending(limits *LimitsConfig, logger *zap.Logger) {
	var descriptors unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &descriptors); err != nil {
		logger.Warn("the limit on open files is not known (RLIMIT_NOFILE)", zap.Error(err))
		return
	}
	most := pendingWithin(descriptors.Cur)
	if limits.Pending <= most {
		return
	}
	logger.Warn("fewer clients may be logging in at once than limits.pending says: raise the limit on open files (LimitNOFILE)",
		zap.Uint64("open_files", descriptors.Cur), zap.Int("pending", most), zap.Int("limits.pending", limits.Pending))
	limits.Pending = most
}

// pendingWithin is the highest limits.pending for so many descriptors.
func pendingWithin(descriptors uint64) int {
	return int(max(1, min(descriptors/strangersPart/proxy.PendingClasses, 1_000_000)))
}
