// SPDX-License-Identifier: Apache-2.0

// Package redact makes what a stranger said fit for a log, an event or an
// alert: without secrets that he was told, without control characters, and
// short. It is a leaf, for adapters that quote the other side of a login or of
// a password's change.
package redact
