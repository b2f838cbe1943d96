// SPDX-License-Identifier: Apache-2.0

//go:build unix

package sink

import "syscall"

// openFlags keep a name from leading elsewhere, or to a pipe that blocks.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
