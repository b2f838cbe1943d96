// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package sink

const openFlags = 0
