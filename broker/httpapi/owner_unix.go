// SPDX-License-Identifier: Apache-2.0

//go:build unix

package httpapi

import (
	"io/fs"
	"syscall"
)

// owner returns who owns a file, where the system says so.
func owner(info fs.FileInfo) (uid uint32, ok bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Uid, true
}
