// SPDX-License-Identifier: Apache-2.0

// Package httpapitest starts a management server for tests: the real API over
// a real Unix socket and a real SQLite store, with an upstream, a credential
// storage and live sessions that tests steer. Only tests import it.
package httpapitest
