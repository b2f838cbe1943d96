// SPDX-License-Identifier: Apache-2.0

// Package credentialstest is the contract of broker.Credentials as tests:
// each implementation runs all of them. Only tests import it.
package credentialstest
